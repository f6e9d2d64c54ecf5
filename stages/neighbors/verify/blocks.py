"""The stage's files, block by block of query rows, each row beside its pair of the corpus."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.checksums import sha256_of_file
from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.schemas import NEIGHBORS
from stages.neighbors.verify.databases import Databases, Span
from stages.neighbors.verify.findings import Check, Findings
from stages.neighbors.verify.rules import Integers, Vectors

Holders = Mapping[str, Sequence[Committed]]
"""File name → the shards that hold such a file."""

BLOCK_ROWS = 100_000
"""Query rows of a block. The metadata of all databases are read once a block, and its vectors are 100 MiB at width 512.
"""


@dataclass(frozen=True)
class Block:
    """B rows of the corpus, and what is listed for them."""

    pairs: pa.Table  # (B,) COLUMNS, caption_key, and row and shard: where in the corpus
    images: Vectors  # (B, D)
    listed: pa.Table  # (B,) NEIGHBORS

    @property
    def rows(self) -> int:
        return int(self.pairs.num_rows)

    def name(self, row: int) -> str:
        return f"{self.pairs['shard'][row]} {self.pairs['pair_id'][row]}"

    @property
    def lists(self) -> pa.ListArray:
        """(B,)"""
        return self.listed["neighbors"].combine_chunks()

    def take(self, rows: Integers) -> "Block":
        return Block(self.pairs.take(rows), self.images[rows], self.listed.take(rows))

    @classmethod
    def joined(cls, parts: Sequence["Block"]) -> "Block":
        pairs, listed = ([getattr(part, name) for part in parts] for name in ("pairs", "listed"))
        images = np.concatenate([part.images for part in parts])
        return cls(pa.concat_tables(pairs).combine_chunks(), images, pa.concat_tables(listed).combine_chunks())


@dataclass(frozen=True)
class Listed:
    """n neighbours as listed, in order. query: (n,) row of the block. place: (n,) −1 where there is no such row."""

    query: Integers
    place: Integers
    entries: pa.Table  # (n,) the fields of a neighbour

    @classmethod
    def of(cls, lists: pa.ListArray, databases: Databases) -> "Listed":
        """lists (B,): the neighbours of each row."""
        entries = pa.Table.from_struct_array(pc.list_flatten(lists))
        query = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
        place = databases.places(entries["database"].to_numpy(), entries["row_id"].to_numpy())
        return cls(query, place, entries)

    def take(self, chosen: Integers) -> "Listed":
        return Listed(self.query[chosen], self.place[chosen], self.entries.take(chosen))


def read_blocks(holders: Holders, corpus: Sequence[Span], findings: Findings) -> Iterator[Block]:
    """All rows that can be read; what cannot is among the findings."""
    parts: list[Block] = []
    for span in corpus:
        parts += _read(span, holders, findings)
        if sum(part.rows for part in parts) >= BLOCK_ROWS:
            yield Block.joined(parts)
            parts = []
    if parts:
        yield Block.joined(parts)


def holders_of(whole: Whole, findings: Findings) -> Holders:
    holders = defaultdict(list)
    for shard in whole.shards:
        try:
            committed = whole.read(shard)
        except (InputError, FileNotFoundError) as error:
            findings.refuse(Check.FILES, f"shard {shard}: its commit record cannot be read: {error}")
            continue
        for name in committed.record.files:
            holders[name].append(committed)
    return holders


def _read(span: Span, holders: Holders, findings: Findings) -> list[Block]:
    """One, or none where the corpus shard has no whole file."""
    shard = span.committed.shard
    try:
        listed = _table(f"neighbors_{shard}", holders)
    except InputError as error:
        findings.refuse(Check.FILES, f"{shard}: {error}")
        return []
    findings.accept(Check.FILES)
    pairs = span.pairs()
    position = pc.index_in(pairs["pair_id"], listed["pair_id"].combine_chunks()).fill_null(-1).to_numpy()
    _check_places(shard, pairs, listed, position, findings)
    there = np.flatnonzero(position >= 0)
    if not len(there):
        return []
    pairs = pairs.append_column("row", pa.array(span.first + np.arange(span.rows)))
    pairs = pairs.append_column("shard", pa.array([shard] * span.rows))
    return [Block(pairs.take(there), span.images(there), listed.take(position[there]))]


def _table(name: str, holders: Holders) -> pa.Table:
    """Raises InputError where there is not one whole file of the right columns."""
    if len(holders[name]) != 1:
        raise InputError(f"{len(holders[name])} shards hold a file {name} instead of one")
    table = whole_table(holders[name][0], name, NEIGHBORS, "NEIGHBORS")
    if pc.list_flatten(table["neighbors"]).null_count:
        raise InputError(f"{holders[name][0].entry(name).path} lists a neighbour that is null")
    return table


def whole_table(committed: Committed, name: str, schema: pa.Schema, schema_name: str) -> pa.Table:
    """Raises InputError where the file is not the one that was committed, or has other columns."""
    entry = committed.entry(name)
    if sha256_of_file(committed.path(name)) != entry.sha256:
        raise InputError(f"{entry.path} is not what was committed: its sha256 is another")
    table = committed.table(name)
    if table.schema != schema:
        columns = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        raise InputError(f"{entry.path} has other columns than {schema_name}: {columns}")
    return table


def _check_places(
    shard: str, pairs: pa.Table, listed: pa.Table, position: npt.NDArray[np.integer], findings: Findings
) -> None:
    """position: (corpus rows,) at which row of the file each pair stands first; −1: at none."""
    beyond = max(listed.num_rows - len(position), 0)
    wrong = np.append(position != np.arange(len(position)), np.ones(beyond, np.bool_))

    def tell(row: int) -> str:
        if row >= len(position):
            return f"{shard} {listed['pair_id'][row]}: row {row:,}, where the corpus shard has {len(position):,}"
        where = "has no row" if position[row] < 0 else f"stands at row {position[row]:,} instead of {row:,}"
        return f"{shard} {pairs['pair_id'][row]}: {where}"

    findings.judge(Check.ROWS, wrong, tell)
