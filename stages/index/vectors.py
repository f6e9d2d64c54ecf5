"""The vectors of one corpus or several by id, memory-mapped where they lie.

An id counts through the corpora in their order: the first one's row ids, then the second one's behind them.
Shapes: N rows of all corpora, D width, n rows asked for.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.errors import InputError

Key = Literal["image", "text", "mixed"]
Direction = Literal["image", "text"]  # of a query: by a picture, or by a caption
Ids = npt.NDArray[np.int64]
Half = npt.NDArray[np.float16]
BLOCK = 8192  # rows that are handed out at once
FILES: dict[Key, tuple[str, ...]] = {"image": ("img_emb",), "text": ("text_emb",), "mixed": ("img_emb", "text_emb")}


class Vectors:
    """The matrix (N, D) float16 that is searched: the images' vectors of record, the captions', or `mixed`, the mean of
    a pair's two, brought to norm 1 and rounded to float16 (RA-CM3 §3.1).

    Raises InputError where a file is missing or truncated, or holds something else than the manifest says.
    """

    def __init__(self, corpora: Sequence[Whole], key: Key, shards: Sequence[str] | None = None) -> None:
        """shards: of one corpus alone, these; they count from 0 then."""
        self.key = key
        self._places = [(corpus, shard) for corpus in corpora for shard in shards or corpus.shards]
        rows = [corpus.shards[shard].rows_out for corpus, shard in self._places]
        self._starts: Ids = np.cumsum([0, *rows])
        self._opened: dict[int, list[Half]] = {}

    @property
    def rows(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def width(self) -> int:
        corpus, shard = self._places[0]
        return int(corpus.read(shard).array(FILES[self.key][0]).shape[1])

    def blocks(self) -> Iterator[tuple[int, Half]]:
        """All rows in order: the first one's id, and at most BLOCK of them."""
        for number, start in enumerate(self._starts[:-1]):
            parts = self._open(number)
            for first in range(0, len(parts[0]), BLOCK):
                yield int(start) + first, _joined([part[first : first + BLOCK] for part in parts])

    def gather(self, ids: Ids) -> Half:
        """(n,) ids in any order → (n, D). Raises IndexError where an id is no row."""
        if ids.size and not 0 <= ids.min() <= ids.max() < self.rows:
            raise IndexError(f"row ids {ids.min()} to {ids.max()} of {self.rows:,} rows")
        found = np.empty((len(ids), self.width), np.float16)
        for number, places, rows in by_shard(self._starts, ids):
            if number not in self._opened:
                # as plain arrays: NumPy's memmap class makes each small read several times as long
                self._opened[number] = [np.asarray(part) for part in self._open(number)]
            found[places] = _joined([part.take(rows, axis=0) for part in self._opened[number]])
        return found

    def _open(self, number: int) -> list[Half]:
        corpus, name = self._places[number]
        shard, wanted = corpus.read(name), (corpus.shards[name].rows_out, self.width)
        parts = [shard.array(file) for file in FILES[self.key]]
        for file, part in zip(FILES[self.key], parts, strict=True):
            if part.shape != wanted or part.dtype != np.float16:
                raise InputError(
                    f"{corpus.folder.root}/{corpus.folder.stage}/{shard.record.files[file].path} holds {part.dtype} of "
                    f"shape {part.shape}, and should hold float16 of shape {wanted}; make the corpus again"
                )
        return parts


def by_shard(starts: Ids, ids: Ids) -> Iterator[tuple[int, Ids, Ids]]:
    """Each shard that holds some of the ids: its number, their places in `ids`, and their rows in the shard.

    starts: (shards + 1,) the first id of every shard, and N.
    """
    order = np.argsort(ids, kind="stable")
    numbers = np.searchsorted(starts, ids[order], side="right") - 1
    rows = ids[order] - starts[numbers]
    cuts = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(ids)]
    for first, end in pairwise(cuts):
        yield int(numbers[first]), order[first:end], rows[first:end]


def _joined(parts: Sequence[Half]) -> Half:
    """The vectors of record, or of two of them the normal mean. Computed in float64 from the stored values, so that a
    row has the same bytes in every block."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0].astype(np.float64) + parts[1]
    norms = np.sqrt(np.einsum("nd,nd->n", total, total))
    mean: Half = (total / np.maximum(norms, np.finfo(np.float64).tiny)[:, None]).astype(np.float16)
    return mean
