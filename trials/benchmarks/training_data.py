"""A corpus on disk that a trainer reads as one that a run has made, and updates that are ready in memory.

Pictures are photo-like JPEGs of short side 256 px, captions are real where CC3M's list is at hand, neighbours are found
by exact search among random vectors, cached patch tokens are drawn. Imports torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from model.config import ImageEncoderConfig, ReViLMConfig, to_dict
from model.freezing import freeze
from model.presets import VIT_B_32, preset
from model.revilm import ReViLM
from model.sequence import Chunk, SequenceBuilder
from model.training.data import Opening
from model.training.patches import Patches
from model.training.recipe import SourceRecipe
from model.training.samples import Listed, Sample
from model.training.sources import Reads, open_sources
from model.training.updates import Batching, Rank, Share, Update, Updates
from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter import Corpus
from stages.neighbors import NeighborsRecipe, neighbor_stages
from trials.benchmarks.model_samples import TEXT_TOKENS, Captions, Given
from trials.benchmarks.photos import Photos
from trials.benchmarks.vector_corpus import metadata

SHARD_ROWS = 2048
WIDTH = 64  # of the vectors that neighbours are found by
NEIGHBORS = 2
SOURCE = "pairs"
ALONE = Rank()


@dataclass(frozen=True)
class PhotoPairs(Stage[None]):
    """Photos with captions, as `filter` leaves them."""

    pairs: int
    captions: Captions
    name, version = Corpus.name, 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(Photos.name, Need.WHOLE)]

    def settings(self) -> Mapping[str, Json]:
        return {"pairs": self.pairs, "captions": self.captions.told}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        firsts = range(0, self.pairs, SHARD_ROWS)
        return Plan([Shard(shard_id(n), {"first": first}) for n, first in enumerate(firsts)], {"inputs": []})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = range(task.params["first"], min(task.params["first"] + SHARD_ROWS, self.pairs))
        photos = task.whole(Photos.name).read(shard_id(0)).table("pairs").slice(rows.start, len(rows))
        texts = self.captions.texts
        random = np.random.default_rng(rows.start)
        table = metadata(rows)
        for name, column in {
            "caption": pa.array([texts[each] for each in random.integers(len(texts), size=len(rows))]),
            "shard": pa.array([shard_id(0)] * len(rows)),
            "offset": photos["image_offset"],
            "bytes": photos["image_bytes"],
        }.items():
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        vectors = random.standard_normal((len(rows), WIDTH), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for name in ("img_emb", "text_emb"):
            out.array(name, f"{name}_{{stem}}.npy", vectors.astype(np.float16))
        out.table("metadata", "metadata_{stem}.parquet", table)
        return Counts(len(rows), len(rows))


@dataclass(frozen=True)
class DrawnPatches(Stage[None]):
    """Patch tokens of every pair, as the stage that encodes pictures leaves them."""

    encoder: ImageEncoderConfig
    name, version = Patches.name, 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(Corpus.name, Need.WHOLE)]

    def settings(self) -> Mapping[str, Json]:
        return {"encoder": to_dict(self.encoder)}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        corpus = whole[Corpus.name]
        names = enumerate(corpus.shards)
        shards = [Shard(name, {"first_row_id": number * SHARD_ROWS}) for number, name in names]
        return Plan(shards, {"encoder": to_dict(self.encoder), "weights": "drawn", "rows": corpus.rows})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        rows = task.whole(Corpus.name).shards[task.id].rows_out
        random = np.random.default_rng(task.params["first_row_id"])
        shape = (rows, self.encoder.grid**2, self.encoder.width)
        out.array("patches", "patches_{stem}.npy", random.standard_normal(shape, np.float32).astype(np.float16))
        out.array("readable", "readable_{stem}.npy", np.ones(rows, np.bool_))
        return Counts(rows, rows)


@dataclass(frozen=True)
class OnDisk:
    """Pairs with their neighbours, and the cache of ViT-B/32's patch tokens."""

    root: str
    captions: Captions

    @classmethod
    @contextmanager
    def drawn(cls, pairs: int, captions: Captions) -> Iterator["OnDisk"]:
        with TemporaryDirectory(dir=".") as folder:
            root = str(Path(folder).absolute())
            _run(root, [Photos(pairs), PhotoPairs(pairs, captions), DrawnPatches(VIT_B_32)])
            _run(root, neighbor_stages(NeighborsRecipe(k=NEIGHBORS, engine="exact", device="cpu"), root))
            yield cls(root, captions)

    def opening(self, config: ReViLMConfig, given: Given) -> Opening:
        assert config.vision is not None, "of pretraining"
        patches = (self.root,) if given == "patch tokens" else ()
        source = SourceRecipe(corpus=self.root, neighbors=self.root, patches=patches)
        k = NEIGHBORS if config.retrieval.mode != "none" else 0
        return partial(open_sources, {SOURCE: source}, Reads(k, config.vision.encoder))

    def updates(self, config: ReViLMConfig, batch: int, given: Given) -> Updates:
        return _updates(self.opening(config, given), self.captions, config, batch)


def trainee(name: str, captions: Captions) -> ReViLM:
    """A model of random weights as pretraining freezes it, that ends a text as the captions' tokenizer does."""
    torch.manual_seed(0)
    model = ReViLM(preset(name, end_of_text=captions.tokenizer.end_of_text))
    freeze(model, "pretrain")
    return model


def ready(
    captions: Captions, config: ReViLMConfig, batch: int, given: Given, count: int, rank: Rank = ALONE
) -> list[Update]:
    """So many updates in memory, of random pictures; the batch is that of all ranks."""
    listed = Listed(list(_samples(captions, config, batch * count, given)))
    updates = _updates(partial(dict, {SOURCE: listed}), captions, config, batch, rank)
    return [updates[number] for number in range(count)]


def _updates(opening: Opening, captions: Captions, config: ReViLMConfig, batch: int, rank: Rank = ALONE) -> Updates:
    """A rank's samples are one micro-batch."""
    batching = Batching(micro_batch=-(-batch // rank.of))
    builder = SequenceBuilder(config, captions.tokenizer, text_tokens=TEXT_TOKENS)
    return Updates(opening, {SOURCE: Share(batch)}, builder, batching, rank=rank)


def _samples(captions: Captions, config: ReViLMConfig, count: int, given: Given) -> Iterator[Sample]:
    assert config.vision is not None, "of pretraining"
    tower, generator = config.vision.encoder, torch.Generator().manual_seed(0)
    drawn = torch.randint(len(captions.texts), (count, 1 + config.retrieval.neighbors), generator=generator)
    for number, places in enumerate(drawn.tolist()):
        if given == "pixels":
            size = (1, 3, tower.image_size, tower.image_size)
            image = torch.randint(256, size, generator=generator, dtype=torch.uint8)
        else:
            image = torch.randn(1, tower.grid**2, tower.width, generator=generator).half()
        text, *near = (captions.texts[place] for place in places)
        yield Sample(str(number), (Chunk(image=image, text=text, neighbors=near),))


def _run(root: str, stages: Sequence[Stage[Any]]) -> None:
    report = Run(root, stages).execute(LocalExecutor())
    assert report.exit_code == 0, str(report)
