"""The serving shards, opened for search: read-only and memory-mapped, so that the processes of a node share them.

A search has two halves: `probe` finds the nearest lists, once a query, and whoever owns them scans their codes. The
owners are opened here (Serving), or live in other processes (fleet.py); both give the same answers.
Shapes: Q queries, D width, P lists probed, R candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from stages.index.faiss_index import before_lists, inverted_file
from stages.index.index_file import ListRange
from stages.index.vectors import Ids

Scores = npt.NDArray[np.float32]
Found = tuple[Ids, Scores]
LOOKED_AT, LEAST = 2, 64  # centroids of a graph: as many times the lists probed, and no fewer


@dataclass(frozen=True)
class Probe:
    """The lists nearest to each query. vectors: (Q, D′) as the inverted file gets them."""

    vectors: Scores
    lists: Ids  # (Q, P), nearest first; −1: none
    similarity: Scores  # (Q, P) to their centroids

    def within(self, held: ListRange) -> tuple[Ids, "Probe"]:
        """The queries that probe lists of a range, and their probe of these alone."""
        inside = (held.first_list <= self.lists) & (self.lists < held.end_list)
        counts = np.count_nonzero(inside, axis=1)
        asking = np.flatnonzero(counts)
        order = np.argsort(~inside[asking], axis=1, kind="stable")[:, : counts.max(initial=1)]  # its lists to the front
        lists = np.where(inside, self.lists, -1)[asking[:, None], order]
        return asking, Probe(self.vectors[asking], lists, self.similarity[asking[:, None], order])


@dataclass(frozen=True)
class ServedLists:
    """A serving shard: an IVF file whose lists of one range are filled.

    alive_bits: bit id % 8 of byte id // 8 says whether a row may be found; None: all may.
    """

    index: Any
    alive_bits: npt.NDArray[np.uint8] | None = None

    @classmethod
    def open(cls, path: Path, alive: npt.NDArray[np.bool_] | None = None) -> "ServedLists":
        import faiss

        bits = None if alive is None else np.packbits(alive, bitorder="little")
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY), bits)

    @cached_property
    def inverted(self) -> Any:
        return inverted_file(self.index)

    def probe(self, queries: Scores, count: int) -> Probe:
        """Every shard has all centroids, so any one can say which lists are nearest."""
        faiss: Any = import_module("faiss")
        ivf = self.inverted
        vectors = np.ascontiguousarray(before_lists(self.index, queries), np.float32)
        params = None
        if isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexHNSW):
            params = faiss.SearchParametersHNSW(efSearch=max(LOOKED_AT * count, LEAST))
        similarity, lists = ivf.quantizer.search(vectors, count, params=params)
        return Probe(vectors, lists, similarity)

    def scan(self, probe: Probe, count: int) -> Found:
        """The best codes of the probed lists: ids and scores (Q, count), padded with id −1 and score −inf."""
        faiss: Any = import_module("faiss")  # its stubs know neither the keywords nor the arrays of these classes
        queries, probes = probe.lists.shape
        params: Any = faiss.SearchParametersIVF(nprobe=probes)
        if self.alive_bits is not None:
            params.sel = selector = faiss.IDSelectorBitmap(self.alive_bits)  # noqa: F841 (FAISS keeps a bare pointer)
        vectors, lists, similarity = map(np.ascontiguousarray, (probe.vectors, probe.lists, probe.similarity))
        scores, ids = np.empty((queries, count), np.float32), np.empty((queries, count), np.int64)
        arrays = [faiss.swig_ptr(array) for array in (lists, similarity, scores, ids)]
        # The method of the Python interface takes no parameters, and the number of probes belongs to the call.
        self.inverted.search_preassigned_c(queries, faiss.swig_ptr(vectors), count, *arrays, False, params)  # noqa: FBT003
        scores[ids < 0] = -np.inf
        return ids, scores

    def entries(self, number: int) -> tuple[npt.NDArray[np.uint8], Ids]:
        """codes (n, code size) and ids (n,) of a list, as they lie in the file."""
        import faiss

        lists, ids = self.inverted.invlists, self.ids(number)
        if not ids.size:
            return np.empty((0, lists.code_size), np.uint8), ids
        codes = faiss.rev_swig_ptr(lists.get_codes(number), ids.size * lists.code_size)
        return codes.reshape(ids.size, lists.code_size), ids

    def ids(self, number: int) -> Ids:
        import faiss

        lists = self.inverted.invlists
        size = lists.list_size(number)
        ids: Ids = faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.empty(0, np.int64)
        return ids

    def sizes(self) -> Ids:
        """(nlist,) entries of each list."""
        lists = self.inverted.invlists
        return np.array([lists.list_size(number) for number in range(lists.nlist)], np.int64)


class Owners(Protocol):
    """Whoever holds the serving shards."""

    def probe(self, queries: Scores, count: int) -> Probe: ...

    def scan(self, probe: Probe, count: int) -> list[tuple[Ids, Found]]:
        """Of every shard that a query probes: which queries, and what they found there."""


@dataclass(frozen=True)
class Serving:
    """All shards in this process."""

    shards: Sequence[ServedLists]
    ranges: Sequence[ListRange]

    @classmethod
    def open(
        cls, parts: Sequence[tuple[Whole, Sequence[ListRange]]], alive: npt.NDArray[np.bool_] | None = None
    ) -> "Serving":
        """Raises InputError where a file is missing or has another size than was written."""
        held = [(whole.read(shard.shard).path("serving"), shard) for whole, ranges in parts for shard in ranges]
        return cls([ServedLists.open(path, alive) for path, _ in held], [shard for _, shard in held])

    def probe(self, queries: Scores, count: int) -> Probe:
        return self.shards[0].probe(queries, count)

    def scan(self, probe: Probe, count: int) -> list[tuple[Ids, Found]]:
        asked = [(shard, probe.within(held)) for shard, held in zip(self.shards, self.ranges, strict=True)]
        return [(asking, shard.scan(theirs, count)) for shard, (asking, theirs) in asked if len(asking)]


def candidates(owners: Owners, queries: Scores, count: int, nprobe: int, exclude: Sequence[Ids] | None = None) -> Found:
    """queries (Q, D) float32 → ids and scores (Q, count), best code first, less each query's own excluded ids.
    Padded with id −1 and score −inf. Which of several equal codes come in at the end is up to FAISS."""
    spare = max(map(len, exclude), default=0) if exclude is not None else 0
    found = owners.scan(owners.probe(queries, nprobe), count + spare)
    ids, scores = _side_by_side(found, len(queries), count + spare)
    if exclude is not None:
        ids[_among(ids, exclude)] = -1
        scores[ids < 0] = -np.inf
    order = np.lexsort((ids, -scores), axis=1)[:, :count]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _side_by_side(found: Sequence[tuple[Ids, Found]], queries: int, count: int) -> Found:
    """(Q, shards · count): what each query found in each shard."""
    ids = np.full((queries, max(len(found), 1) * count), -1, np.int64)
    scores = np.full(ids.shape, -np.inf, np.float32)
    for number, (asking, (some_ids, some_scores)) in enumerate(found):
        columns = slice(number * count, (number + 1) * count)
        ids[asking, columns], scores[asking, columns] = some_ids, some_scores
    return ids, scores


def _among(ids: Ids, exclude: Sequence[Ids]) -> npt.NDArray[np.bool_]:
    """(Q, R): is it one of its query's excluded ids?"""
    return np.stack([np.isin(row, barred) for row, barred in zip(ids, exclude, strict=True)])
