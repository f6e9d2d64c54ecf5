"""The pictures of evaluation sets in the form in which a crawl has its own, so that the two can be compared.

Reads    encoder, where the run trained its own; the sets, wherever they lie
Writes   pictures (EVALUATION_PICTURES) and img_emb (float16, norm 1), row-aligned; a shard a set
Rejects  the reasons of the bytes, of files that are no picture (pair_id: the set and the file's name)

A file passes what every fetched picture passes (shrunk, encoded, hashed), and is embedded from its stored form by the
model that embeds the corpus.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from pipeline.commits import Whole
from pipeline.errors import RecipeError
from pipeline.folders import files_below
from pipeline.recipe import Json
from pipeline.schemas import EVALUATION_PICTURES
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.storage import open_store
from pipeline.writer import ShardWriter, Task
from stages.download import Download, DownloadRecipe, stored_picture
from stages.embed import OWN, Embed, Embedder, EmbedRecipe, open_towers, width_of
from stages.filter.evaluation_source import EvaluationSet
from stages.filter.recipe import THIS_RUN, FilterRecipe

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EvaluationSets(Stage[Any]):
    """State: the towers of stages.embed. root: of the run whose encoder is used; None: this run's, if any."""

    sets: Sequence[EvaluationSet]
    download: DownloadRecipe
    embed: EmbedRecipe
    root: str | None = None

    name: ClassVar[str] = "evaluation_sets"
    version: ClassVar[int] = 1
    stateful: ClassVar[bool] = True

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(OWN, Need.WHOLE, self.root)] if self.embed.model == OWN else []

    @property
    def resources(self) -> Resources:
        return Embed(self.embed).resources

    def settings(self) -> Mapping[str, Json]:
        return {
            "sets": {chosen.name: chosen.checksum for chosen in self.sets},
            "download": Download(self.download).settings(),
            "embed": Embed(self.embed).settings(),
        }

    def conditions(self) -> Mapping[str, Json]:
        return Embed(self.embed).conditions()

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(number), {"set": chosen.name}) for number, chosen in enumerate(self.sets)])

    def open(self, task: Task) -> Any:
        return open_towers(self.embed, task.whole(OWN) if self.embed.model == OWN else None)

    def process(self, task: Task, out: ShardWriter, state: Any) -> Counts:
        chosen = next(chosen for chosen in self.sets if chosen.name == task.params["set"])
        refuse_other_width(chosen, state.width)
        num_files, rows, vectors = self._folder(chosen, out, state) if chosen.width is None else _table(chosen)
        out.table("pictures", "{stem}.parquet", rows)
        out.array("img_emb", "img_emb/img_emb_{stem}.npy", vectors.astype(np.float16))
        return Counts(num_files, rows.num_rows)

    def _folder(self, chosen: EvaluationSet, out: ShardWriter, towers: Any) -> tuple[int, pa.Table, Vectors]:
        """Raises RecipeError where nothing in it is a picture."""
        import torch

        files, fit = files_below(chosen.path), towers.fitter()
        rows: list[dict[str, Json]] = []
        vectors: list[Vectors] = []
        readable = self._stored(chosen, out)
        while batch := list(islice(readable, self.embed.batch_size)):
            rows += [row for row, _ in batch]
            pixels = np.stack([_fitted(jpeg, fit) for _, jpeg in batch])
            vectors.append(towers.encode_images(torch.from_numpy(pixels)))
        if not rows:
            raise RecipeError(f"filter.evaluation_sets.{chosen.name}: no file of {chosen.path} is a picture")
        return len(files), pa.Table.from_pylist(rows, schema=EVALUATION_PICTURES), np.concatenate(vectors)

    def _stored(self, chosen: EvaluationSet, out: ShardWriter) -> Iterator[tuple[dict[str, Json], bytes]]:
        """A row of EVALUATION_PICTURES and the JPEG of every file that is a picture."""
        for file in files_below(chosen.path):
            name = str(file.relative_to(chosen.path))
            refuse = partial(out.reject, f"{chosen.name}/{name}")
            made = stored_picture(file.read_bytes(), self.download, refuse)
            if made:
                yield {"name": name, "sha256": made.sha256, "phash": made.phash}, made.jpeg


def evaluation_stage(recipe: FilterRecipe, download: DownloadRecipe, embed: EmbedRecipe) -> EvaluationSets:
    """download, embed: how this run makes its pairs; where it judges those of others alone, theirs count.

    Raises InputError where a set cannot be read, or its embeddings cannot be compared with the corpus'.
    """
    sets = [EvaluationSet.of(name, path) for name, path in recipe.evaluation_sets.items()]
    if not recipe.inputs or THIS_RUN in recipe.inputs:
        stage, width = EvaluationSets(sets, download, embed), width_of(embed)
    else:
        stage, width = _like(recipe.inputs[0], sets, embed.device), _stored_width(recipe.inputs[0])
    for chosen in sets:
        if width is not None:
            refuse_other_width(chosen, width)
    return stage


def refuse_other_width(chosen: EvaluationSet, width: int) -> None:
    if chosen.width not in (None, width):
        raise RecipeError(
            f"filter.evaluation_sets.{chosen.name}: the embeddings of {chosen.path} have width {chosen.width}, those "
            f"of the corpus {width}: another model made them. Give the pictures as a folder, or embed them by this one"
        )


def _like(root: str, sets: Sequence[EvaluationSet], device: str) -> EvaluationSets:
    """As the run made its pairs. Raises InputError where its recipe does not say so."""
    made = Embedder.of(root, device)
    recipe = yaml.safe_load(open_store(made.root).read("recipe.yaml"))
    return EvaluationSets(sets, DownloadRecipe.model_validate(recipe.get("download", {})), made.recipe, made.root)


def _stored_width(root: str) -> int:
    embedded = Whole.open(root, Embed.name)
    return int(embedded.read(next(iter(embedded.shards))).array("img_emb").shape[1])


def _table(chosen: EvaluationSet) -> tuple[int, pa.Table, Vectors]:
    rows, vectors = chosen.table()
    unknown = pa.nulls(rows.num_rows, pa.string())
    return (
        rows.num_rows,
        rows.append_column("sha256", unknown).select(EVALUATION_PICTURES.names).cast(EVALUATION_PICTURES),
        vectors,
    )


def _fitted(jpeg: bytes, fit: Any) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as picture:
        return np.asarray(fit(picture))
