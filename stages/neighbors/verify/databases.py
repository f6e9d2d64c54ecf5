"""What was searched: the rows of all databases in one order, read where they lie.

place: a row's number over all databases, in the order of database and row_id. It is what ties are ordered by.
Shapes: N rows of all databases, D width, n rows asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.commits import Committed, Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from stages.neighbors.verify.rules import COLUMNS, Integers, Mask, Vectors, with_caption_keys

Key = Literal["image", "text", "mixed"]


class Said(BaseModel):
    """Of a plan; it may say more than is needed here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, said: Mapping[str, Json], where: str) -> Self:
        """where: the file. Raises InputError where it says too little."""
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            fault = error.errors()[0]
            raise InputError(f"{where}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


class CorpusSaid(Said):
    root: str
    identity: str
    first_id: int
    rows: int


class AliveSaid(Said):
    root: str
    stage: str
    shard: str
    name: str


class DatabaseSaid(Said):
    root: str
    corpora: tuple[CorpusSaid, ...]
    alive: AliveSaid | None


class SearchPlan(Said):
    """What the stage's plan resolved."""

    k: int
    corpus: str  # root of the corpus whose rows are the queries
    depth: int  # candidates that were looked at before giving up
    key: Key
    engine: Literal["exact", "index"]
    databases: tuple[DatabaseSaid, ...]

    @classmethod
    def of(cls, whole: Whole) -> "SearchPlan":
        """Raises InputError where the plan says too little."""
        return cls.read(whole.plan().resolved, f"{whole.folder.root}/{whole.folder.stage}/plan.json")


@dataclass(frozen=True)
class Span:
    """One corpus shard: rows first … first + rows − 1 of its corpus or database."""

    committed: Committed
    first: int
    alive: npt.NDArray[np.uint8] | None = None  # bit i: row i of the database may be found

    @property
    def rows(self) -> int:
        return self.committed.record.rows_out

    def pairs(self, rows: Integers | None = None, more: Sequence[str] = ()) -> pa.Table:
        """COLUMNS, more of the metadata's columns, and caption_key; of all rows or of some."""
        table = self.committed.table("metadata", [*COLUMNS, *more])
        return with_caption_keys(table if rows is None else table.take(pa.array(rows)))

    def images(self, rows: Integers | slice) -> Vectors:
        vectors: Vectors = self.committed.array("img_emb")[rows]
        return vectors

    def keys(self, rows: Integers | slice, key: Key) -> Vectors:
        """(n, D) what the database is searched by. mixed: image + text of norm 1, computed in float64."""
        if key == "image":
            return self.images(rows)
        texts: Vectors = self.committed.array("text_emb")[rows]
        if key == "text":
            return texts
        mixed = self.images(rows).astype(np.float64) + texts.astype(np.float64)
        normal: Vectors = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float16)
        return normal

    def may_be_found(self, rows: Integers) -> Mask:
        if self.alive is None:
            return np.ones(len(rows), np.bool_)
        ids = rows + self.first
        mask: Mask = (self.alive[ids >> 3] >> (ids & 7).astype(np.uint8) & 1).astype(np.bool_)
        return mask


@dataclass(frozen=True)
class Databases:
    spans: Sequence[Span]
    bases: Integers  # (databases + 1,) place of each database's first row, and N
    key: Key

    @classmethod
    def open(cls, plan: SearchPlan) -> "Databases":
        """Raises InputError where a corpus is not the one that was searched."""
        spans, sizes = [], []
        for database in plan.databases:
            found = _spans_of(database)
            spans += found
            sizes.append(sum(span.rows for span in found))
        return cls(spans, np.array([*accumulate(sizes, initial=0)], np.int64), plan.key)

    @classmethod
    def of_corpora(cls, roots: Sequence[str]) -> "Databases":
        """Each corpus as a database of its own."""
        found = [spans_of_corpus(root) for root in roots]
        sizes = (sum(span.rows for span in spans) for spans in found)
        bases = np.array([*accumulate(sizes, initial=0)], np.int64)
        return cls([span for spans in found for span in spans], bases, "image")

    @property
    def width(self) -> int:
        return int(self.spans[0].images(slice(0)).shape[1])

    @cached_property
    def starts(self) -> Integers:
        """(spans + 1,) place of each span's first row, and N."""
        return np.array([*accumulate((span.rows for span in self.spans), initial=0)], np.int64)

    @property
    def rows(self) -> int:
        return int(self.bases[-1])

    def places(self, database: npt.NDArray[np.integer], row_id: Integers) -> Integers:
        """(n,) and (n,) as listed → (n,); −1 where there is no such row."""
        known = (database >= 0) & (database < len(self.bases) - 1)
        number = np.where(known, database, 0)
        inside = known & (row_id >= 0) & (row_id < np.diff(self.bases)[number])
        return np.where(inside, self.bases[number] + row_id, -1)

    def pair_id(self, place: int) -> str:
        ((span, _, rows),) = self.by_span(np.array([place]))
        return str(span.pairs(rows)["pair_id"][0])

    def by_span(self, places: Integers) -> Iterator[tuple[Span, Integers, Integers]]:
        """Each span that holds some of the places: which ones of them, and their rows in the span."""
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], self.starts)
        for number in np.flatnonzero(np.diff(bounds)):
            some = order[bounds[number] : bounds[number + 1]]
            yield self.spans[int(number)], some, places[some] - self.starts[number]


def spans_of_corpus(root: str) -> list[Span]:
    whole = Whole.open(root, "corpus")
    shards = [whole.read(shard) for shard in whole.shards]
    firsts = accumulate((shard.record.rows_out for shard in shards), initial=0)
    return [Span(shard, first) for shard, first in zip(shards, firsts, strict=False)]


def _spans_of(database: DatabaseSaid) -> list[Span]:
    spans: list[Span] = []
    alive = _alive(database)
    for said in database.corpora:
        whole = Whole.open(said.root, "corpus")
        before = sum(span.rows for span in spans)
        found = (whole.identity, before, whole.rows)
        if found != (said.identity, said.first_id, said.rows):
            raise InputError(
                f"{said.root}/corpus is not the one that was searched: identity, first id and rows were "
                f"{said.identity[:12]}, {said.first_id:,}, {said.rows:,} and are {found[0][:12]}, {before:,}, "
                f"{whole.rows:,}. Neighbours of another corpus cannot be verified; make them anew."
            )
        spans += [Span(span.committed, before + span.first, alive) for span in spans_of_corpus(said.root)]
    return spans


def _alive(database: DatabaseSaid) -> npt.NDArray[np.uint8] | None:
    if database.alive is None:
        return None
    where = database.alive
    bits: npt.NDArray[np.uint8] = Whole.open(where.root, where.stage).read(where.shard).array(where.name)
    rows = sum(said.rows for said in database.corpora)
    if bits.dtype != np.uint8 or bits.shape != (-(-rows // 8),):
        raise InputError(
            f"{where.root}/{where.stage} {where.shard}: {where.name} is {bits.dtype} {bits.shape}, and {rows:,} rows "
            f"need uint8 ({-(-rows // 8)},), a bit a row"
        )
    return bits
