"""Pairs to look at: some that were kept, and some of every reason for which others left.

The choice is that of a hash of the pair_id: the same in every report of a root, and any size of run will do.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from PIL import Image

from pipeline.commits import Committed
from pipeline.tars import read_picture
from stages.report.root import RunRoot

KEPT, PER_REASON = 12, 4
SEED = 1
THUMBNAIL_PX = 200
WITH_PICTURE = ("filter_judge", "filter_duplicates")
"""The stages whose rejects have a stored picture that can be decoded."""

CHOSEN = {"stage": pl.String, "pair_id": pl.String, "reason": pl.String, "detail": pl.String}
DRAWN = pl.col("pair_id").hash(SEED)


@dataclass(frozen=True)
class Example:
    stage: str
    pair_id: str
    reason: str  # why it left; empty: it was kept
    detail: str
    url: str | None
    caption: str | None  # None: it left before its caption was read
    clip_score: float | None
    picture: bytes | None  # a small JPEG


def kept(run: RunRoot) -> list[Example]:
    rows = run.table("corpus").bottom_k(KEPT, by=DRAWN).select("pair_id").collect()
    return examples_of(run, rows.with_columns(stage=pl.lit("corpus"), reason=pl.lit(""), detail=pl.lit("")))


def left(run: RunRoot) -> list[Example]:
    """Up to PER_REASON of every stage and reason, the commonest first. A query that starved has left no corpus."""
    found = [pl.DataFrame(schema=CHOSEN)]
    for stage, files in run.stages.items():
        if stage == "interleaved":
            continue
        drawn = pl.col("pair_id", "detail").bottom_k_by(DRAWN, PER_REASON)
        by_reason = files.rejects().group_by("reason").agg(drawn, rows=pl.len()).explode("pair_id", "detail")
        rows = by_reason.sort("rows", "reason", "pair_id", descending=[True, False, False])
        found.append(rows.with_columns(stage=pl.lit(stage)).select(list(CHOSEN)).collect(engine="streaming"))
    return examples_of(run, pl.concat(found))


def examples_of(run: RunRoot, chosen: pl.DataFrame, thumbnail_px: int = THUMBNAIL_PX) -> list[Example]:
    """With what download and embed know of them. chosen: columns CHOSEN; stage `corpus`: there is a picture."""
    places = {path: shard for crawl in run.crawls for path, shard in crawl.shards_by_path("download").items()}
    known = _downloaded(run, chosen["pair_id"], list(places)).join(
        run.table("embed").filter(pl.col("pair_id").is_in(chosen["pair_id"].implode())).collect(),
        on="pair_id",
        how="left",
        suffix=" as embedded",
    )
    known = known.with_columns(caption=pl.coalesce("caption as embedded", "caption"))
    # A second crawl of what a first one failed to fetch has the same pairs: the picture counts.
    known = known.sort("image_offset", nulls_last=True).unique("pair_id", keep="first", maintain_order=True)
    rows = chosen.join(known, on="pair_id", how="left", maintain_order="left")
    return [_example(row, places, thumbnail_px) for row in rows.iter_rows(named=True)]


def _downloaded(run: RunRoot, pair_ids: pl.Series, paths: list[str]) -> pl.DataFrame:
    """download's rows of the pairs, and the path of the table that each stands in."""
    rows = pl.scan_parquet(paths, include_file_paths="path") if paths else run.table("download").with_columns(path=None)
    columns = ("url", "caption", "image_offset", "image_bytes", "path")
    found = rows.filter(pl.col("key").is_in(pair_ids.implode())).select(pl.col("key").alias("pair_id"), *columns)
    return found.collect()


def _example(row: Mapping[str, Any], places: Mapping[str, Committed], thumbnail_px: int) -> Example:
    told = {name: row[name] for name in ("stage", "pair_id", "reason", "detail", "url", "caption", "clip_score")}
    shown = row["path"] is not None and (row["stage"] in WITH_PICTURE or row["stage"] == "corpus")
    return Example(**told, picture=_thumbnail(places[row["path"]], row, thumbnail_px) if shown else None)


def _thumbnail(shard: Committed, row: Mapping[str, Any], side_px: int) -> bytes:
    with shard.open("images") as tar:
        picture = Image.open(io.BytesIO(read_picture(tar, row["image_offset"], row["image_bytes"])))
    picture.thumbnail((side_px, side_px))
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=80)
    return small.getvalue()
