"""The samples that a finished root holds, as a trainer reads them: tables, and pictures where they lie."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from pipeline.commits import Whole
from stages.filter import CorpusReader
from stages.interleave.corpora import opened_as_made
from stages.interleave.mine import InterleaveMine
from stages.interleave.samples import Interleaved, place_of, read_pictures


class SampleReader:
    """Raises InputError where the root's samples are not whole."""

    def __init__(self, root: str) -> None:
        self._whole = Whole.open(root, Interleaved.name)
        self._mined = Whole.open(root, InterleaveMine.name)

    @property
    def samples(self) -> int:
        """In all."""
        return self._whole.rows

    @property
    def identity(self) -> str:
        return self._whole.identity

    @property
    def shards(self) -> list[str]:
        return list(self._whole.shards)

    def rows(self, shard: str) -> int:
        return self._whole.shards[shard].rows_out

    @cached_property
    def corpora(self) -> list[CorpusReader]:
        """As SAMPLES.pairs.corpus counts them. Raises InputError where one was made anew since: its pictures lie
        elsewhere."""
        return opened_as_made(self._mined, "samples", self._whole.folder.root)

    def table(self, shard: str) -> pa.Table:
        """Schema SAMPLES."""
        return self._whole.read(shard).table("samples")

    def pictures(self, sample: Mapping[str, Any]) -> list[bytes]:
        """The JPEGs of a sample (a row of `table`) in its order, the query's last, read at their places in the tars."""
        pairs: Sequence[dict[str, Any]] = sample["pairs"]
        read = read_pictures(pairs, self.corpora)
        return [read[place_of(pair)] for pair in pairs]
