"""Pairs of each source by their score, so that a person can choose its threshold by eye: what a threshold keeps, and
the pictures at both ends and at the border.

Every scored pair counts, whatever another rule made of it. Scores are read twice, some shards at a time, and only what
is shown is held, so any size of run will do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import polars as pl

from stages.report.counts import source_of
from stages.report.examples import WITH_PICTURE, Example, examples_of
from stages.report.root import RunRoot
from stages.report.scores import thresholds

SOURCES = 12  # shown, those with the most pairs
PER_STRIP = 12
THUMBNAIL_PX = 160
FILES = 256  # 2.5 M pairs, about 100 MB
LOST = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
"""About these shares of the pairs leave at the thresholds of the table."""
BORDERS = (0.05, 0.1, 0.2)  # the same, of the pictures that are shown where no threshold is set
FINE = 1000  # bins a unit of score, in which those shares are found

SCORE = pl.col("clip_score").cast(pl.Float64)  # as the filter compares it
ORDER = ("clip_score", "pair_id")


@dataclass(frozen=True)
class Place:
    """The pairs nearest to a limit on one side of it. least: the limit is a lower one."""

    limit: float
    least: bool
    num: int

    def nearest(self, rows: pl.DataFrame) -> pl.DataFrame:
        """By score; of equal scores the smaller pair_id."""
        if self.least:
            return rows.filter(self.limit <= SCORE).bottom_k(self.num, by=ORDER).sort(ORDER)
        return rows.filter(self.limit > SCORE).top_k(self.num, by=ORDER, reverse=[False, True]).sort(ORDER)


@dataclass
class Strip:
    title: str
    places: Sequence[Place]
    found: list[pl.DataFrame] = field(default_factory=list)  # of each place

    def add(self, rows: pl.DataFrame) -> None:
        before = self.found or [rows.clear() for _ in self.places]
        self.found = [
            place.nearest(pl.concat([so_far, rows])) for place, so_far in zip(self.places, before, strict=True)
        ]

    @property
    def pair_ids(self) -> list[str]:
        """By score, each once."""
        return pl.concat(self.found).unique("pair_id").sort(ORDER)["pair_id"].to_list() if self.found else []


@dataclass
class Sheet:
    """What is shown of a source. limit: its threshold; None: it has none."""

    source: str
    limit: float | None
    strips: Sequence[Strip]
    kept: dict[float, int]  # threshold → pairs that reach it
    pairs: int = 0

    def add(self, rows: pl.DataFrame) -> None:
        self.pairs += rows.height
        for step in self.kept:
            self.kept[step] += rows.select((step <= SCORE).sum()).item()
        for strip in self.strips:
            strip.add(rows)

    def table(self) -> pl.DataFrame:
        """A row a threshold: what it keeps if only the score is asked."""
        rows = [
            (step, kept, kept / self.pairs, "as set" if step == self.limit else "")
            for step, kept in sorted(self.kept.items())
        ]
        columns = {"min_clip_score": pl.Float64, "pairs": pl.Int64, "share_kept": pl.Float64, " ": pl.String}
        return pl.DataFrame(rows, schema=columns, orient="row")


def sheets(run: RunRoot, files: int = FILES) -> list[tuple[Sheet, list[tuple[str, list[Example]]]]]:
    """Of the largest sources by name: the sheet, and its strips' titles and pairs. files: shards read at once."""
    made = {sheet.source: sheet for sheet in _planned(run)}
    for batch in _scored(run, files):
        for (source,), rows in batch.group_by("source"):
            if source in made:
                made[str(source)].add(rows)
    pair_ids = sorted({*chain.from_iterable(strip.pair_ids for sheet in made.values() for strip in sheet.strips)})
    shown = _examples(run, pair_ids)
    return [
        (sheet, [(strip.title, [shown[pair_id] for pair_id in strip.pair_ids]) for strip in sheet.strips])
        for sheet in made.values()
    ]


def _planned(run: RunRoot) -> Iterator[Sheet]:
    limits = thresholds(run)
    for (source,), counted in _fine_histogram(run).group_by("source", maintain_order=True):
        limit = limits.get(str(source))
        kept = dict.fromkeys([_score_at(counted, share) for share in LOST], 0)
        strips = [
            Strip("The worst", [Place(-np.inf, least=True, num=PER_STRIP)]),
            _borderline(limit, counted),
            Strip("The best", [Place(np.inf, least=False, num=PER_STRIP)]),
        ]
        yield Sheet(str(source), limit, strips, kept if limit is None else kept | {limit: 0})


def _borderline(limit: float | None, counted: pl.DataFrame) -> Strip:
    if limit is not None:
        sides = [Place(limit, least=least, num=PER_STRIP // 2) for least in (False, True)]
        return Strip(f"On both sides of the threshold, {limit:g}", sides)
    scores = [_score_at(counted, share) for share in BORDERS]
    told = ", ".join(f"{score:g} ({share:.0%})" for share, score in zip(BORDERS, scores, strict=True))
    places = [Place(score, least=True, num=PER_STRIP // len(BORDERS)) for score in scores]
    return Strip(f"No threshold is set: pairs that just reach a score that this share does not: {told}", places)


def _fine_histogram(run: RunRoot) -> pl.DataFrame:
    """source, bin and rows, of the largest sources, by source and bin."""
    bins = (SCORE * FINE).floor().cast(pl.Int64).alias("bin")
    scored = run.table("embed").filter(pl.col("clip_score").is_not_nan())
    counted = scored.group_by(source_of("pair_id"), bins).agg(pl.len().alias("rows")).collect(engine="streaming")
    sizes = counted.group_by("source").agg(pl.col("rows").sum()).sort("rows", "source", descending=[True, False])
    return counted.filter(pl.col("source").is_in(sizes["source"].head(SOURCES).implode())).sort("source", "bin")


def _score_at(counted: pl.DataFrame, share: float) -> float:
    """The lower edge of the bin in which the share of the pairs is reached. counted: by bin."""
    reached = counted["rows"].cum_sum() >= share * int(counted["rows"].sum())
    return int(counted["bin"][int(reached.arg_max() or 0)]) / FINE


def _scored(run: RunRoot, files: int) -> Iterator[pl.DataFrame]:
    """source, pair_id and clip_score of all pairs, some shards at a time."""
    paths = [path for crawl in run.crawls for path in crawl.shards_by_path("embed")]
    for start in range(0, len(paths), files):
        rows = pl.scan_parquet(paths[start : start + files]).select(source_of("pair_id"), *ORDER)
        yield rows.filter(pl.col("clip_score").is_not_nan()).collect()


def _examples(run: RunRoot, pair_ids: Sequence[str]) -> Mapping[str, Example]:
    """With what the filter made of each: the reason for which it left, or that it was kept, if it was judged."""
    asked = pl.LazyFrame({"pair_id": pair_ids}, schema={"pair_id": pl.String})
    judged = run.table("filter_judge").select("pair_id", reason=pl.lit(""), detail=pl.lit("kept"))
    gone = [run.stages[name].rejects() for name in WITH_PICTURE if name in run.stages]
    fates = pl.concat([judged, *(rows.select("pair_id", "reason", detail="reason") for rows in gone)])
    last = fates.join(asked, on="pair_id", how="semi").unique("pair_id", keep="last", maintain_order=True)
    chosen = asked.join(last, on="pair_id", how="left", maintain_order="left").with_columns(
        pl.col("reason", "detail").fill_null(""), stage=pl.lit("corpus")
    )
    return {example.pair_id: example for example in examples_of(run, chosen.collect(), THUMBNAIL_PX)}
