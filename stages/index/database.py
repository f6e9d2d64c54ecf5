"""The pairs that can be retrieved from a root, by id: those of its index, or of its corpus where it has no index."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import StageFolder, Whole
from pipeline.stage import shard_id
from stages.filter import CorpusReader
from stages.index.index_file import HERE, CorpusPart, IndexFile
from stages.index.vectors import Key, Vectors

GATE, ALIVE, CORPUS = "index_gate", "index_alive", "corpus"
ONLY = shard_id(0)  # of a stage that has one shard


@dataclass(frozen=True)
class Database:
    """ids 0 … size − 1 count through the corpora. index: None where there is only a corpus."""

    root: str  # that of the index, if it was taken from a base
    corpora: tuple[CorpusPart, ...]
    index: IndexFile | None

    @classmethod
    def open(cls, root: str) -> "Database":
        """Raises InputError where neither an index nor a corpus is finished."""
        if StageFolder(root, GATE).taken() or StageFolder(root, GATE).manifest():
            return cls.of_index(root)
        corpus = Whole.open(root, CORPUS)
        part = CorpusPart(root=HERE, identity=corpus.identity, first_id=0, rows=corpus.rows)
        return cls(corpus.folder.root, (part,), None)

    @classmethod
    def of_index(cls, root: str) -> "Database":
        """Raises InputError where the index is not finished."""
        gate = Whole.open(root, GATE)
        with gate.read(ONLY).open("index") as file:
            index = IndexFile.model_validate_json(file.read())
        return cls(gate.folder.root, index.corpora, index)

    @property
    def size(self) -> int:
        """The next id that is free: deleted rows keep theirs."""
        return sum(part.rows for part in self.corpora)

    @cached_property
    def wholes(self) -> list[Whole]:
        """The corpora. Raises InputError where one is not the one that the index was made of."""
        return [part.open(self.root, CORPUS) for part in self.corpora]

    def vectors(self, key: Key | None = None) -> Vectors:
        """Those that the index searches (images, where there is none), or of another key."""
        return Vectors(self.wholes, key or (self.index.key if self.index else "image"))

    @cached_property
    def alive(self) -> npt.NDArray[np.bool_] | None:
        """(size,): may the row be found? None: all may."""
        if self.index is None or self.index.alive is None:
            return None
        return read_alive(self.index.alive.open(self.root, ALIVE))

    @cached_property
    def readers(self) -> list[CorpusReader]:
        return [CorpusReader(part.found(self.root)) for part in self.corpora]

    def pair(self, row_id: int) -> dict[str, Any]:
        """A row of the corpus' metadata (schema PAIRS), its row_id the id asked for and `corpus` the number of its
        corpus. Raises IndexError where an id is no row (−1, say)."""
        if not 0 <= row_id < self.size:
            raise IndexError(f"id {row_id} is not in the index, which has {self.size:,} rows")
        number = bisect_right(self.corpora, row_id, key=lambda part: part.first_id) - 1
        row = self.readers[number].row(row_id - self.corpora[number].first_id)
        return row | {"row_id": row_id, "corpus": number}

    def picture(self, pair: Mapping[str, Any]) -> bytes:
        """The JPEG of a pair."""
        reader: CorpusReader = self.readers[pair["corpus"]]
        return reader.picture(pair)

    def tar_of(self, pair: Mapping[str, Any]) -> str:
        """Path or url of the tar that holds a pair's picture: `bytes` of it at `offset`."""
        reader: CorpusReader = self.readers[pair["corpus"]]
        return reader.tar_of(pair)


def read_alive(whole: Whole) -> npt.NDArray[np.bool_]:
    """(N,) by id, of the stage index_alive."""
    bits = whole.read(ONLY).array("alive")
    return np.unpackbits(bits, count=whole.plan().resolved["size"], bitorder="little").astype(np.bool_)
