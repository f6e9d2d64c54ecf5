"""Measure the index with held-out queries, tune it to the target recall, and refuse one that does not reach its floor.

Reads   corpus, index_train (held-out rows), index_add (the list of every row), index (what is searched)
Writes  index: index.json (IndexFile), which makes the index usable; report: a row per direction, k, nprobe and depth;
        plot: the same as a picture
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from pipeline.commits import Whole
from pipeline.errors import ShardFailed
from pipeline.recipe import Json
from pipeline.schemas import RECALL
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage
from pipeline.writer import ShardWriter, Task
from stages.index.index_file import CorpusPart, IndexFile, ListRange
from stages.index.lists import Lists
from stages.index.plot import save_plot
from stages.index.recall import Point, Queries, measure, prepare
from stages.index.recipe import IndexRecipe
from stages.index.serving import Serving
from stages.index.train import ONLY, read_template
from stages.index.tuning import TUNED_K, tune
from stages.index.vectors import Ids, Vectors


@dataclass(frozen=True)
class IndexReport(Stage[None]):
    recipe: IndexRecipe
    name, version = "index_report", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(stage, Need.WHOLE) for stage in ("corpus", "index_train", "index_add", "index")]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=4)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"target_recall"})

    def conditions(self) -> Mapping[str, Json]:
        """The floor decides whether there is a result, and no byte of it: it may be lowered on the same root."""
        return self.recipe.model_dump(include={"min_recall"})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(ONLY)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        corpus, train, index = task.whole("corpus"), task.whole("index_train"), task.whole("index")
        lists = Lists.read(read_template(train), task.whole("index_add"))
        images, serving = Vectors(corpus, "img_emb"), Serving.open(index)
        queries = held_out_queries(corpus, images, train.read(ONLY).array("queries"), lists)
        points, chosen = tune(
            lambda nprobe: [p for q in queries for p in measure(q, serving, images, nprobe)],
            len(lists.sizes),
            self.recipe.target_recall,
        )
        self._refuse_below_floor(chosen, len(queries[0].vectors), len(lists.sizes))
        found = _index_file(corpus, train, index, points, chosen)
        out.json("index", "index_{stem}.json", found.model_dump(mode="json"))
        out.table("report", "report_{stem}.parquet", pa.Table.from_pylist([*map(asdict, points)], schema=RECALL))
        save_plot(points, chosen, self.recipe.target_recall, out.file("plot", "report_{stem}.png"))
        return Counts(corpus.rows, corpus.rows, {"recall": chosen.recall, "nprobe": chosen.nprobe})

    def _refuse_below_floor(self, chosen: Point, num_queries: int, nlist: int) -> None:
        floor = self.recipe.min_recall
        if floor is not None and chosen.recall < floor:
            raise ShardFailed(
                f"index: recall@{TUNED_K} of {num_queries:,} image queries is at best {chosen.recall:.4f} "
                f"({chosen.low:.3f} to {chosen.high:.3f}), at nprobe {chosen.nprobe} of {nlist} and re-rank depth "
                f"{chosen.depth}, below index.min_recall {floor}; coverage there is {chosen.coverage:.4f}. Give "
                "index.factory longer codes (IVF…,PQ128 or IVF…,SQ8), or lower index.min_recall (null: no floor)."
            )


def held_out_queries(corpus: Whole, images: Vectors, rows: Ids, lists: Lists) -> list[Queries]:
    """rows (Q,): the held-out ones. By their images, and by their captions."""
    from stages.index.same_image import same_image_rows  # with it comes polars

    same = same_image_rows(corpus, images, rows)
    captions = Vectors(corpus, "text_emb")
    return [
        prepare("image", images.gather(rows), images, same, lists),
        prepare("text", captions.gather(rows), images, same, lists),
    ]


def _index_file(corpus: Whole, train: Whole, index: Whole, points: Sequence[Point], chosen: Point) -> IndexFile:
    """The tuned numbers, with the recall of both directions at them."""
    assert chosen.depth is not None, "only re-ranked points are chosen from"
    resolved, trained = train.plan().resolved, train.read(ONLY)
    at_these = [point for point in points if (point.nprobe, point.depth) == (chosen.nprobe, chosen.depth)]
    return IndexFile(
        factory=resolved["factory"],
        nlist=resolved["nlist"],
        metric="inner_product",
        rows=corpus.rows,
        template_sha256=trained.record.files["template"].sha256,
        index_identity=index.identity,
        list_ranges=tuple(ListRange(shard=shard, **params) for shard, params in index.plan().shards),
        nprobe=chosen.nprobe,
        depth=chosen.depth,
        recall=tuple(asdict(point) for point in at_these),
        corpora=(CorpusPart(root=".", identity=corpus.identity, first_id=0, rows=corpus.rows),),
    )
