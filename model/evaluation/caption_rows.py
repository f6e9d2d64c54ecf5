"""Captions as they are written: for people, as JSON lines, as rows of CAPTIONS."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.evaluation.captioner import Caption
from model.files import replacing
from pipeline.recipe import Json
from pipeline.schemas import CAPTIONS

ROW_GROUP = 1024


def lines(captions: Iterable[Caption]) -> Iterator[str]:
    for each in captions:
        yield f"{each.picture}\n  {each.caption if each.caption is not None else f'no caption: {each.error}'}"
        for neighbor in each.neighbors:
            yield f"    {neighbor.similarity:.3f}  {neighbor.caption}  ({neighbor.pair['pair_id']})"
        took = ", ".join(f"{what} {1000 * seconds:.0f} ms" for what, seconds in each.seconds.items())
        yield f"    {took}; {each.removed} hits of the same picture removed\n" if took else ""


def json_lines(captions: Iterable[Caption]) -> Iterator[str]:
    for each in captions:
        yield json.dumps(record(each), ensure_ascii=False)


def record(caption: Caption) -> dict[str, Json]:
    """A row of CAPTIONS; of `seconds` only what there is."""
    neighbors = [
        {"row_id": each.pair["row_id"], "pair_id": each.pair["pair_id"]}
        | {"similarity": each.similarity, "caption": each.caption}
        for each in caption.neighbors
    ]
    return {
        "picture": caption.picture,
        "caption": caption.caption,
        "error": caption.error or None,
        "neighbors": neighbors,
        "removed": caption.removed,
        "seconds": dict(caption.seconds) or None,
    }


def caption_table(captions: Iterable[Caption]) -> pa.Table:
    """Schema CAPTIONS."""
    return pa.Table.from_pylist([record(each) for each in captions], schema=CAPTIONS)


def write_parquet(path: Path, captions: Iterator[Caption]) -> None:
    """Whole or not at all."""
    with replacing(path) as scratch, pq.ParquetWriter(scratch, CAPTIONS, compression="zstd") as writer:
        while some := list(islice(captions, ROW_GROUP)):
            writer.write_table(caption_table(some))
