"""The pairs that may be supports, memory-mapped: vectors of record, and what tells equal pictures and captions.

Pairs count through the corpora in their order: the first one's row ids, then the second one's behind them.
Shapes: N pairs of all corpora, T of a tile, D width, rules as the leakage rules count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from stages.index import Vectors
from stages.interleave.supports import Half, Hashes, Ids, Queries
from stages.neighbors import RULES, Keys

INFINITE = 0x7C00  # the bits of float16 infinity; those of NaN are larger


@dataclass(frozen=True)
class Tile:
    ids: Ids  # (T,) ascending
    images: Half  # (T, D)
    captions: Half  # (T, D)
    hashes: Hashes  # (T, rules)


class Candidates(Protocol):
    """What an engine reads: the pairs that may be supports, their ids ascending from tile to tile."""

    @property
    def num_bytes(self) -> int: ...
    def queries(self, ids: Ids) -> Queries: ...
    def tiles(self, size: int) -> Iterator[Tile]: ...


@dataclass(frozen=True)
class Pairs:
    images: Vectors
    captions: Vectors
    keys: Keys
    wanted: npt.NDArray[np.bool_]  # (N,) whether a pair takes part

    @classmethod
    def open(cls, corpora: Sequence[Whole], keys: Whole, sources: Sequence[str]) -> "Pairs":
        """sources: whose pairs take part; none: all. Raises RecipeError where one has no pair."""
        opened = Keys.open(keys)
        wanted = _of_sources(opened, sources) if sources else np.ones(opened.starts[-1], np.bool_)
        return cls(Vectors(corpora, "image"), Vectors(corpora, "text"), opened, wanted)

    @property
    def width(self) -> int:
        return self.images.width

    @property
    def num_bytes(self) -> int:
        """Of all pairs that take part: vectors, ids, hashes, and these in order with their places."""
        return int(self.wanted.sum()) * (2 * 2 * self.width + 8 + 3 * 8 * len(RULES))

    def refuse_shared_ids(self) -> None:
        """Raises InputError where two pairs that take part have one pair_id, and would count as one picture and have
        one name."""
        ids = np.flatnonzero(self.wanted)
        hashes = np.concatenate([hashed[RULES.index("pair")] for hashed in self.keys.hashed])[ids]
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(np.diff(hashes[order]) == 0)
        if len(again):
            place = again[order[again].argmin()]  # that of the smallest row
            first, second = ids[order[place : place + 2]]
            pair_id = self.keys.rows(np.array([first]), ["pair_id"])["pair_id"][0]
            raise InputError(
                f"interleave: rows {first:,} and {second:,} of the corpora both bear the pair id {pair_id} "
                f"({len(again):,} such): sources of different lists, or of different splits of one list, need "
                "different names in ingest.sources"
            )

    def drawn(self, count: int, seed: int) -> Ids:
        """Ids of so many pairs that take part, or of all; ascending."""
        ids = np.flatnonzero(self.wanted)
        return np.sort(np.random.default_rng(seed).choice(ids, min(count, len(ids)), replace=False))

    def sample(self, count: int, seed: int) -> tuple[Half, Half]:
        """Image and caption vectors of the pairs drawn."""
        return self._vectors(self.drawn(count, seed))

    def queries(self, ids: Ids) -> Queries:
        return Queries(*self._vectors(ids), self.keys.hashes(ids))

    def _vectors(self, ids: Ids) -> tuple[Half, Half]:
        images, captions = self.images.gather(ids), self.captions.gather(ids)
        self._refuse_infinite(ids, images, captions)
        return images, captions

    def tiles(self, size: int) -> Iterator[Tile]:
        """All pairs that take part, in order, `size` at once."""
        ids = np.flatnonzero(self.wanted)
        for first in range(0, len(ids), size):
            some = ids[first : first + size]
            yield Tile(some, *self._vectors(some), self.keys.hashes(some).T.copy())

    def _refuse_infinite(self, ids: Ids, images: Half, captions: Half) -> None:
        """Raises InputError: what is not a number compares with nothing, and would be passed over."""
        largest = np.maximum(_largest_bits(images), _largest_bits(captions))
        if largest.max(initial=0) >= INFINITE:
            first = ids[largest >= INFINITE][:1]
            (pair_id,) = self.keys.rows(first, ["pair_id"])["pair_id"].to_pylist()
            raise InputError(
                f"row {first[0]:,} of the corpora, {pair_id}, holds a vector with values that are not finite; make the "
                "stages embed and corpus again"
            )


def _of_sources(keys: Keys, sources: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(N,)"""
    known = pa.chunked_array([batch["source"] for batch in keys.batches], pa.string())
    _refuse_unknown(sources, pc.unique(known).to_pylist())
    wanted: npt.NDArray[np.bool_] = pc.is_in(known, pa.array(sources, pa.string())).to_numpy()
    return wanted


def _refuse_unknown(sources: Sequence[str], known: Sequence[str]) -> None:
    strange = [source for source in sources if source not in known]
    if strange:
        raise RecipeError(
            f"interleave.sources names {', '.join(strange)}, of which the corpora hold no pair; they hold pairs of "
            f"{', '.join(sorted(known))}"
        )


def _largest_bits(vectors: Half) -> npt.NDArray[np.uint16]:
    """(n, D) → (n,) the largest magnitudes, as their bits: floats order as these do, and NumPy compares them faster."""
    bits: npt.NDArray[np.uint16] = (vectors.view(np.uint16) & 0x7FFF).max(axis=1)
    return bits
