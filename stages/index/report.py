"""Measure the index with held-out queries and tune it to the target recall.

Reads   the parts of the index: corpora, training sample, serving shards, and which rows are alive
Writes  tuned: TUNED, what the gate decides on; report: a row per direction, k, nprobe and depth; plot: the same as a
        picture
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.recipe import Json, Section
from pipeline.schemas import RECALL
from pipeline.stage import Counts, Input, Resources, Stage
from pipeline.writer import ShardWriter, Task
from stages.index.database import ONLY
from stages.index.factory import QUERY_SHARE
from stages.index.index_file import Setting
from stages.index.lists import Lists
from stages.index.parts import Parts, Wholes
from stages.index.plot import save_plot
from stages.index.recall import Queries, measure, prepare
from stages.index.recipe import IndexRecipe
from stages.index.train import read_template
from stages.index.tuning import tune
from stages.index.vectors import Direction, Half, Ids, Vectors


class Tuned(Section):
    """What was measured, and tuned to what."""

    factory: str
    nlist: int
    rows: int  # that can be found
    most_probes: int  # that could be chosen
    queries: int
    chosen: dict[Direction, dict[str, Json]]  # the points that were tuned: rows of the report
    recall: tuple[dict[str, Json], ...]  # all rows of the report at these

    def setting(self, direction: Direction) -> Setting:
        return Setting(nprobe=self.chosen[direction]["nprobe"], depth=self.chosen[direction]["depth"])


@dataclass(frozen=True)
class IndexReport(Stage[None]):
    recipe: IndexRecipe
    parts: Parts = Parts()
    name, version = "index_report", 2

    @property
    def inputs(self) -> Sequence[Input]:
        return self.parts.inputs

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.recipe.train_cpus, memory_gib=4, threads=self.recipe.train_cpus)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"target_recall", "queries", "seed", "key"})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        whole: Wholes = {source.key: task.whole(source.key) for source in self.inputs}
        vectors, alive = self.parts.vectors(whole, self.recipe.key), self.parts.alive_rows(whole)
        serving = self.parts.opened(whole)
        template = read_template(whole[self.parts.template.key])
        lists = Lists.read(template, serving, vectors.rows, alive)
        queries = self._queries(whole, vectors, alive)
        points, chosen = tune(
            lambda nprobe: [point for asked in queries for point in measure(asked, lists, vectors, nprobe)],
            lists.most_probes,
            self.recipe.target_recall,
        )
        tuned_to = {(point.direction, point.nprobe, point.depth) for point in chosen.values()}
        trained = whole[self.parts.template.key].plan().resolved
        tuned = Tuned(
            factory=trained["factory"],
            nlist=trained["nlist"],
            rows=vectors.rows if alive is None else int(alive.sum()),
            most_probes=lists.most_probes,
            queries=len(queries[0].vectors),
            chosen={direction: asdict(point) for direction, point in chosen.items()},
            recall=tuple(asdict(p) for p in points if (p.direction, p.nprobe, p.depth) in tuned_to),
        )
        out.json("tuned", "tuned_{stem}.json", tuned.model_dump(mode="json"))
        out.table("report", "report_{stem}.parquet", pa.Table.from_pylist([*map(asdict, points)], schema=RECALL))
        save_plot(points, [*chosen.values()], self.recipe.target_recall, out.file("plot", "report_{stem}.png"))
        return Counts(tuned.rows, tuned.rows)

    def _queries(self, whole: Wholes, vectors: Vectors, alive: npt.NDArray[np.bool_] | None) -> list[Queries]:
        """By the images, and by the captions, of rows that were kept out of the training sample."""
        from stages.index.same_image import same_image_rows  # with it comes polars

        sample = whole[self.parts.template.key].read(ONLY).array("sample")
        held_out = draw_queries(vectors.rows, sample, alive, self.recipe.queries, self.recipe.seed)
        images, captions = self.parts.vectors(whole, "image"), self.parts.vectors(whole, "text")
        same = same_image_rows([whole[source.key] for source in self.parts.corpora], images, held_out)
        asked: dict[Direction, Half] = {"image": images.gather(held_out), "text": captions.gather(held_out)}
        return prepare(asked, vectors, same, alive)


def draw_queries(rows: int, sample: Ids, alive: npt.NDArray[np.bool_] | None, wanted: int, seed: int) -> Ids:
    """Ids that are alive and were not trained on: at most a tenth of all, in order.

    Raises InputError where there is none.
    """
    free = np.ones(rows, np.bool_) if alive is None else alive.copy()
    free[sample] = False
    left = np.flatnonzero(free)
    if not left.size:
        raise InputError("index: no row is left to measure recall with: all that are alive were trained on")
    wanted = min(wanted, max(rows // QUERY_SHARE, 1), len(left))
    return np.sort(np.random.default_rng(seed).choice(left, wanted, replace=False))
