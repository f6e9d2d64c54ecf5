"""Of which finished stages an index is made, here or in other roots: what those who measure and describe it read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.stage import Input, Need
from stages.index.database import read_alive
from stages.index.index_file import HERE, CorpusPart, ListRange, Part, ServingPart
from stages.index.serving import Serving
from stages.index.vectors import Key, Vectors

Wholes = Mapping[str, Whole]  # by input


@dataclass(frozen=True)
class Parts:
    """corpora: in the order of their ids. serving: in the order in which they were made. By default, those of a run
    that makes all of them itself."""

    corpora: Sequence[Input] = (Input("corpus", Need.WHOLE),)
    template: Input = Input("index_train", Need.WHOLE)
    serving: Sequence[Input] = field(default=(Input("index", Need.WHOLE),))
    alive: Input | None = None

    @property
    def inputs(self) -> list[Input]:
        return [*self.corpora, self.template, *self.serving, *([self.alive] if self.alive else [])]

    def vectors(self, whole: Wholes, key: Key) -> Vectors:
        return Vectors([whole[source.key] for source in self.corpora], key)

    def alive_rows(self, whole: Wholes) -> npt.NDArray[np.bool_] | None:
        """(N,) by id; None: all are."""
        return read_alive(whole[self.alive.key]) if self.alive else None

    def opened(self, whole: Wholes) -> Serving:
        parts = [(whole[source.key], ranges_of(whole[source.key])) for source in self.serving]
        return Serving.open(parts, self.alive_rows(whole))

    def corpus_parts(self, whole: Wholes) -> tuple[CorpusPart, ...]:
        found, first_id = [], 0
        for source in self.corpora:
            part, rows = described(source, whole), whole[source.key].rows
            found.append(CorpusPart(root=part.root, identity=part.identity, first_id=first_id, rows=rows))
            first_id += rows
        return tuple(found)

    def serving_parts(self, whole: Wholes) -> tuple[ServingPart, ...]:
        return tuple(
            ServingPart(**described(source, whole).model_dump(), ranges=ranges_of(whole[source.key]))
            for source in self.serving
        )


def described(source: Input, whole: Wholes) -> Part:
    return Part(root=source.root or HERE, identity=whole[source.key].identity)


def ranges_of(served: Whole) -> tuple[ListRange, ...]:
    return tuple(ListRange(shard=shard, **params) for shard, params in served.plan().shards)
