"""The corpus as everything after `filter` reads it: by shard, by row id, and picture by picture."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Committed, Whole
from pipeline.tars import read_picture
from stages.filter.corpus import IN_THIS_CORPUS, Corpus
from stages.filter.recipe import THIS_RUN

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class CorpusShard:
    """Rows first_row_id … first_row_id + rows − 1."""

    committed: Committed
    first_row_id: int

    @property
    def id(self) -> str:
        return self.committed.shard

    @property
    def rows(self) -> int:
        return self.committed.record.rows_out

    @cached_property
    def metadata(self) -> pa.Table:
        """Schema PAIRS."""
        return self.committed.table("metadata")

    @cached_property
    def img_emb(self) -> Vectors:
        """(rows, width) float16, memory-mapped; row i belongs to row i of the metadata."""
        return self.committed.array("img_emb")

    @cached_property
    def text_emb(self) -> Vectors:
        """(rows, width) float16, memory-mapped; row i belongs to row i of the metadata."""
        return self.committed.array("text_emb")


class CorpusReader:
    """Of a run's root, also where its corpus was taken from a base. Raises InputError where the corpus is not whole."""

    def __init__(self, root: str) -> None:
        self._whole = Whole.open(root, Corpus.name)
        self._shard_ids = list(self._whole.shards)
        sizes = [summary.rows_out for summary in self._whole.shards.values()]
        self._first_row_ids = list(accumulate(sizes, initial=0))
        # Rows and pictures are asked for in any order, mostly near the last one.
        self._shard_of = lru_cache(maxsize=8)(self._shard)
        self._pictures_of = lru_cache(maxsize=64)(self._pictures)

    @property
    def rows(self) -> int:
        """N: row ids are 0 … N−1."""
        return self._first_row_ids[-1]

    @cached_property
    def width(self) -> int:
        """Of the embeddings."""
        return int(self._shard_of(0).img_emb.shape[1])

    @property
    def identity(self) -> str:
        return self._whole.identity

    @cached_property
    def roots(self) -> list[str]:
        """The roots whose download tars hold the pictures, as PAIRS.input counts them."""
        inputs = self._whole.plan().resolved["inputs"] or [THIS_RUN]
        return [self._whole.folder.root if root == THIS_RUN else root for root in inputs]

    def shards(self) -> Iterator[CorpusShard]:
        """All rows, in the order of their row ids."""
        return map(self._shard, range(len(self._shard_ids)))

    def row(self, row_id: int) -> dict[str, Any]:
        """A row of PAIRS by column. Raises IndexError where the corpus has no such row."""
        if not 0 <= row_id < self.rows:
            raise IndexError(f"row id {row_id} is not in the corpus, which has {self.rows:,} rows")
        shard = self._shard_of(bisect_right(self._first_row_ids, row_id) - 1)
        found: dict[str, Any] = shard.metadata.slice(row_id - shard.first_row_id, 1).to_pylist()[0]
        return found

    def picture(self, row: Mapping[str, Any]) -> bytes:
        """The JPEG of a row (as `row` gives it: input, shard, offset and bytes count), read at its place in the tar."""
        with self._pictures_of(row["input"], row["shard"]).open("images") as file:
            return read_picture(file, row["offset"], row["bytes"])

    def tar_of(self, row: Mapping[str, Any]) -> str:
        """Path or url of the tar that holds a row's picture: `bytes` of it at `offset`."""
        pictures = self._pictures_of(row["input"], row["shard"])
        return f"{pictures.folder.store.root}/{pictures.entry('images').path}"

    def _shard(self, number: int) -> CorpusShard:
        return CorpusShard(self._whole.read(self._shard_ids[number]), self._first_row_ids[number])

    def _pictures(self, number: int, shard: str) -> Committed:
        if number == IN_THIS_CORPUS:
            return self._whole.read(shard)
        return Whole.open(self.roots[number], "download").read(shard)
