"""Judged rows by hash partition of their pHash: whatever may show the same picture meets in one, whatever the size of
the run."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from pipeline.schemas import JUDGED
from stages.filter.positions import Integers, first_positions

MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads hashes that differ in few bits


def partition(judged: Whole, number: int, partitions: int, columns: Sequence[str]) -> pa.Table:
    """The judged rows (columns, phash among them, and position) of one hash partition, by pHash, then pair_id."""
    parts = [_with_positions(JUDGED.empty_table().select(columns), 0)]
    for shard, first in first_positions(judged).items():
        rows = _with_positions(judged.read(shard).table("judged", columns), first)
        mine = (rows["phash"].to_numpy() * MIXER >> np.uint64(32)) % np.uint64(partitions) == number
        parts.append(rows.filter(pa.array(mine)))
    return pa.concat_tables(parts).sort_by([("phash", "ascending"), ("pair_id", "ascending")])


def _with_positions(rows: pa.Table, first: int) -> pa.Table:
    return rows.append_column("position", pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64)))


def groups(*columns: pa.ChunkedArray) -> Integers:
    """(rows,) one number for equal texts in all columns, −1 where a text is null."""
    texts = pc.binary_join_element_wise(*columns, "\0").combine_chunks()
    numbers: Integers = texts.dictionary_encode().indices.cast(pa.int64()).fill_null(-1).to_numpy()
    return numbers


def spans(values: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Of sorted values, the first row of each value and the row after its last."""
    return pairwise([*np.flatnonzero(_differs_from_last(values)).tolist(), len(values)])


def repeated(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of sorted values, those that stand more than once."""
    differs = _differs_from_last(values)
    alone: npt.NDArray[np.bool_] = differs & np.append(differs[1:], [True])
    return ~alone


def _differs_from_last(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    differs = np.ones(len(values), np.bool_)
    differs[1:] = values[1:] != values[:-1]
    return differs
