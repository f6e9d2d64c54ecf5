"""What became of all queries: figures, plots, and samples to judge by eye.

Reads   interleaved, interleave_mine, interleave_gate (what the probe had seen), interleave_keys; the corpora, for
        pictures
Writes  figures (FIGURES) · histograms (SUPPORT_HISTOGRAMS) and uses (SUPPORT_USES) of the supports in samples · hubs
        (HUBS): the pairs that are one most often · plot: the same as a picture · contact_sheet: samples drawn by chance
Memory  some 30 bytes a pair, and the supports of a shard
Shapes: N pairs of all corpora, k supports, n supports of some samples, one after another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.schemas import FIGURES, HUBS, SUPPORT_HISTOGRAMS, SUPPORT_USES
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.writer import ShardWriter, Task
from stages.filter import CorpusReader
from stages.interleave.band import Band
from stages.interleave.contact_sheet import draw_samples, save_contact_sheet
from stages.interleave.corpora import Corpora, InterleaveKeys
from stages.interleave.gate import InterleaveGate
from stages.interleave.mine import InterleaveMine
from stages.interleave.plot import save_supports_plot
from stages.interleave.recipe import InterleaveRecipe
from stages.interleave.samples import Interleaved
from stages.interleave.seen import Seen
from stages.interleave.supports import Floats, Ids
from stages.neighbors import RULES, Keys

SIMILARITY_BINS, DISTANCE_BINS = 200, 50  # of captions from −1 to 1, of images over the band
MOST_USED = 20  # pairs in the table of hubs
SHOWN = 12  # samples on the contact sheet
CAPTION = RULES.index("caption")

Figure = tuple[str, str | None, float | None, float | None, float | None]  # a row of FIGURES


@dataclass(frozen=True)
class InterleaveReport(Stage[None]):
    corpora: Corpora
    recipe: InterleaveRecipe
    name, version = "interleave_report", 1

    @property
    def inputs(self) -> Sequence[Input]:
        read = (Interleaved, InterleaveMine, InterleaveGate, InterleaveKeys)
        return [*(Input(stage.name, Need.WHOLE) for stage in read), *self.corpora.inputs]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"metric", "lo", "hi", "supports", "on_starved", "seed"})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        mined, keys = task.whole(InterleaveMine.name), Keys.open(task.whole(InterleaveKeys.name))
        tally = Tally(keys, self.recipe)
        for shard in mined.shards:
            tally.add(mined.read(shard).table("supports"))
        seen = Seen.read(task.whole(InterleaveGate.name))
        out.table("figures", "figures_{stem}.parquet", _rows(figures(tally, seen), FIGURES))
        out.table("histograms", "histograms_{stem}.parquet", tally.histograms())
        uses = np.bincount(tally.uses[tally.asked])
        there = np.flatnonzero(uses)
        out.table("uses", "uses_{stem}.parquet", pa.table([there, uses[there]], schema=SUPPORT_USES))
        out.table("hubs", "hubs_{stem}.parquet", hubs(tally))
        plot = out.file("plot", "report_{stem}.png")
        save_supports_plot(tally.similarities, tally.distances, uses, self.recipe.band, plot)
        self._show_samples(task.whole(Interleaved.name), out)
        return Counts(mined.rows, mined.rows)

    def _show_samples(self, samples: Whole, out: ShardWriter) -> None:
        drawn = draw_samples(samples, SHOWN, self.recipe.seed)
        heading = (
            f"{len(drawn)} of {samples.rows:,} samples, drawn by chance. First the query, then its supports: how far "
            f"the images are apart ({self.recipe.metric}), cosine of the captions"
        )
        corpora = [CorpusReader(root) for root in self.corpora.roots]
        save_contact_sheet(heading, drawn, corpora, out.file("contact_sheet", "contact_sheet_{stem}.png"))


@dataclass(frozen=True)
class Chosen:
    """The supports of some samples, (n,) each."""

    query: Ids
    row: Ids
    rank: Ids  # 0 … k−1
    similarity: Floats
    distance: Floats

    @classmethod
    def of(cls, mined: pa.Table, band: Band) -> "Chosen":
        """mined: rows of SUPPORTS."""
        found = pc.list_value_length(mined["supports"]).to_numpy().astype(np.int64)
        row, images, captions = (
            pc.list_flatten(mined[name]).to_numpy() for name in ("supports", "image_cosines", "caption_cosines")
        )
        first = np.repeat(np.cumsum(found) - found, found)
        query = np.repeat(mined["row_id"].to_numpy(), found)
        return cls(query, row, np.arange(len(row)) - first, captions, band.distances(images))


class Tally:
    """What is counted shard by shard."""

    def __init__(self, keys: Keys, recipe: InterleaveRecipe) -> None:
        rows, k = int(keys.starts[-1]), recipe.supports
        self.keys, self.recipe = keys, recipe
        self.asked, self.starved = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)  # (N,)
        self.uses = np.zeros(rows, np.int32)  # (N,) samples that a pair supports
        self.samples = self.own_caption = self.samples_with_own_caption = 0
        self.similarities = np.zeros((k, SIMILARITY_BINS), np.int64)
        self.distances = np.zeros((k, DISTANCE_BINS), np.int64)
        self.sum_of_similarities, self.sum_of_distances = np.zeros(k), np.zeros(k)

    def add(self, mined: pa.Table) -> None:
        """mined: rows of SUPPORTS."""
        ids = mined["row_id"].to_numpy()
        starved = pc.less(pc.list_value_length(mined["supports"]), self.recipe.supports)
        self.asked[ids] = True
        self.starved[ids] = starved.to_numpy()
        written = mined.filter(pc.invert(starved)) if self.recipe.on_starved == "skip" else mined
        self.samples += written.num_rows
        self._count(Chosen.of(written, self.recipe.band))

    def _count(self, chosen: Chosen) -> None:
        band = self.recipe.band
        np.add.at(self.uses, chosen.row, 1)
        _add_to(self.similarities, chosen.rank, (chosen.similarity + 1) / 2)
        _add_to(self.distances, chosen.rank, (chosen.distance - band.lo) / (band.hi - band.lo))
        np.add.at(self.sum_of_similarities, chosen.rank, chosen.similarity)
        np.add.at(self.sum_of_distances, chosen.rank, chosen.distance)
        own = self.keys.hashes(chosen.query)[CAPTION] == self.keys.hashes(chosen.row)[CAPTION]
        self.own_caption += int(own.sum())
        self.samples_with_own_caption += len(np.unique(chosen.query[own]))

    @property
    def supports(self) -> Ids:
        """(k,) how many of each rank."""
        counted: Ids = self.similarities.sum(axis=1)
        return counted

    def by_source(self) -> Iterator[tuple[str, int, int]]:
        """source, queries, and how many of them starved; by name."""
        counted: dict[str, npt.NDArray[np.int64]] = {}
        for batch, first in zip(self.keys.batches, self.keys.starts.tolist(), strict=False):
            here = slice(first, first + batch.num_rows)
            sources = batch["source"].dictionary_encode()
            names, codes = sources.dictionary.to_pylist(), sources.indices.to_numpy()
            for row, marks in enumerate((self.asked[here], self.starved[here])):
                for name, count in zip(names, np.bincount(codes[marks], minlength=len(names)), strict=True):
                    counted.setdefault(name, np.zeros(2, np.int64))[row] += count
        return ((name, int(asked), int(starved)) for name, (asked, starved) in sorted(counted.items()) if asked)

    def histograms(self) -> pa.Table:
        """Schema SUPPORT_HISTOGRAMS."""
        band = self.recipe.band
        return pa.concat_tables(
            [
                _histogram("caption_similarity", self.similarities, -1, 1),
                _histogram("distance", self.distances, band.lo, band.hi),
            ]
        )


def _add_to(counts: npt.NDArray[np.int64], rank: Ids, place: Floats) -> None:
    """counts: (k, bins). place: from 0 to 1 over the bins; what rounding puts outside belongs to the last ones."""
    bins = counts.shape[1]
    np.add.at(counts, (rank, np.clip(place * bins, 0, bins - 1).astype(np.int64)), 1)


def _histogram(measure: str, counts: npt.NDArray[np.int64], low: float, high: float) -> pa.Table:
    k, bins = counts.shape
    edges = np.tile(np.linspace(low, high, bins + 1)[:-1], k)
    ranks = np.repeat(np.arange(1, k + 1, dtype=np.int32), bins)
    return pa.table([[measure] * k * bins, ranks, edges, counts.ravel()], schema=SUPPORT_HISTOGRAMS)


def figures(tally: Tally, seen: Seen) -> Iterator[Figure]:
    queries, supports = int(tally.asked.sum()), int(tally.supports.sum())
    yield _exact("queries", queries)
    yield _exact("samples", tally.samples)
    yield _exact("supports", supports)
    yield _exact("share of the queries that starved", _ratio(tally.starved.sum(), queries))
    for source, asked, starved in tally.by_source():
        yield _exact("share of the queries that starved", _ratio(starved, asked), source)
    probed = seen.starved
    yield "share of the queries that starved, by the probe", None, probed.value, probed.low, probed.high
    for rank, (total, count) in enumerate(zip(tally.sum_of_similarities, tally.supports, strict=True), start=1):
        yield _exact(f"mean caption similarity of support {rank}", _ratio(total, count))
    yield _exact("mean caption similarity of all supports", _ratio(tally.sum_of_similarities.sum(), supports))
    yield _exact("mean distance of all supports", _ratio(tally.sum_of_distances.sum(), supports))
    yield _exact("share of the supports with the query's own caption", _ratio(tally.own_caption, supports))
    yield _exact("share of the samples with such a support", _ratio(tally.samples_with_own_caption, tally.samples))
    yield from _figures_of_uses(np.sort(tally.uses[tally.asked])[::-1])


def _figures_of_uses(uses: npt.NDArray[np.int32]) -> Iterator[Figure]:
    """uses: of every pair that takes part, the most used first."""
    supports = int(uses.sum(dtype=np.int64))
    most_used = uses[: -(-len(uses) // 100)].sum(dtype=np.int64)
    yield _exact("share of the pairs that support no sample", float((uses == 0).mean()))
    for share, value in zip((0.5, 0.95, 0.99), np.quantile(uses, (0.5, 0.95, 0.99)), strict=True):
        yield _exact(f"samples that a pair supports: {share:.0%} of the pairs at most", float(value))
    yield _exact("samples that a pair supports: the most used one", float(uses[0]))
    yield _exact("share of the supports that are the 1 % most used pairs", _ratio(most_used, supports))


def _exact(figure: str, value: float | None, source: str | None = None) -> Figure:
    return figure, source, value, None, None


def _ratio(some: float, of: float) -> float | None:
    return float(some / of) if of else None


def hubs(tally: Tally) -> pa.Table:
    """Schema HUBS: the most used first, of equal ones the smaller row."""
    rows = np.argsort(-tally.uses, kind="stable")[:MOST_USED]
    rows = rows[tally.uses[rows] > 0]
    told = tally.keys.rows(rows, ["pair_id", "caption"])
    captions = told["caption"].cast(pa.string())
    return pa.table([rows, told["pair_id"].cast(pa.string()), captions, tally.uses[rows].astype(np.int64)], schema=HUBS)


def _rows(rows: Iterator[Figure], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
