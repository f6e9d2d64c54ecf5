"""Codes and ids by inverted list, whether they lie in the shards of index_add or in serving shards.

Shapes: n entries of a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.commits import Committed
from stages.index.vectors import Ids

Codes = npt.NDArray[np.uint8]


class Entries(Protocol):
    def entries(self, number: int) -> tuple[Codes, Ids]:
        """Of a list: codes (n, code size) and ids (n,), in order of id."""

    def ids(self, number: int) -> Ids:
        """(n,) of a list, in order."""

    def sizes(self) -> Ids:
        """(nlist,) entries of each list."""


@dataclass(frozen=True)
class AddedLists:
    """A shard of index_add."""

    shard: Committed
    nlist: int

    @cached_property
    def _bounds(self) -> Ids:
        bounds: Ids = np.searchsorted(self.shard.array("lists"), np.arange(self.nlist + 1))
        return bounds

    @cached_property
    def _arrays(self) -> tuple[Codes, Ids]:
        return self.shard.array("codes"), self.shard.array("ids")

    def entries(self, number: int) -> tuple[Codes, Ids]:
        codes, ids = self._arrays
        return codes[self._rows(number)], ids[self._rows(number)]

    def ids(self, number: int) -> Ids:
        return self._arrays[1][self._rows(number)]

    def _rows(self, number: int) -> slice:
        return slice(self._bounds[number], self._bounds[number + 1])

    def sizes(self) -> Ids:
        sizes: Ids = np.diff(self._bounds)
        return sizes


@dataclass(frozen=True)
class Merged:
    """Several sources whose ids follow each other, less what is not alive (alive: (N,) by id; None: all is)."""

    sources: Sequence[Entries]
    alive: npt.NDArray[np.bool_] | None

    def entries(self, number: int) -> tuple[Codes, Ids]:
        codes, ids = map(np.concatenate, zip(*(source.entries(number) for source in self.sources), strict=True))
        if self.alive is None:
            return codes, ids
        kept = self.alive[ids]
        return codes[kept], ids[kept]

    def ids(self, number: int) -> Ids:
        ids = np.concatenate([source.ids(number) for source in self.sources])
        return ids if self.alive is None else ids[self.alive[ids]]

    def sizes(self) -> Ids:
        total: Ids = np.sum([source.sizes() for source in self.sources], axis=0)
        return total if self.alive is None else np.array([len(self.ids(number)) for number in range(len(total))])
