"""Whose pairs are mined, and what is refused before anything starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.schemas import INTERLEAVE_KEYS
from pipeline.stage import Input, Need
from pipeline.storage import absolute_root
from stages.filter import Corpus, CorpusReader
from stages.index import model_conflicts
from stages.neighbors import PairKeys


@dataclass(frozen=True)
class Corpora:
    """Roots of runs; their pairs count through them in this order."""

    roots: tuple[str, ...]

    @classmethod
    def of(cls, roots: Sequence[str]) -> "Corpora":
        return cls(tuple(map(absolute_root, roots)))

    @property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(Input(Corpus.name, Need.WHOLE, root, f"corpus {n}") for n, root in enumerate(self.roots))


class InterleaveKeys(PairKeys):
    """What tells equal pictures and captions, and what is told of a pair in a sample."""

    name, version, schema = "interleave_keys", 1, INTERLEAVE_KEYS


def opened_as_made(made: Whole, what: str, root: str) -> list[CorpusReader]:
    """The corpora of a stage's plan, in its order. what, root: what was made of them, and where it lies.

    Raises InputError where one was made anew since: its row ids mean other pairs, and its pictures lie elsewhere."""
    readers = []
    for number, place in enumerate(made.plan().resolved["corpora"]):
        corpus, made_of = CorpusReader(place), made.manifest.inputs[f"corpus {number}"]
        if corpus.identity != made_of:
            raise InputError(
                f"{place}/corpus is not the one that the {what} in {root} were made of: its identity was "
                f"{made_of[:12]} and is {corpus.identity[:12]}. Make the {what} anew."
            )
        readers.append(corpus)
    return readers


def check(corpora: Corpora, supports: int) -> None:
    """Raises InputError or RecipeError: a corpus that is not finished or named twice, vectors that do not compare,
    fewer pairs than a sample needs."""
    readers = [CorpusReader(root) for root in corpora.roots]
    faults = [*_held_twice(readers, corpora.roots), *_other_widths(readers, corpora.roots)]
    faults += model_conflicts(corpora.roots)
    if faults:
        raise InputError("\n".join(f"interleave: {fault}" for fault in faults))
    rows = sum(reader.rows for reader in readers)
    if rows <= supports:
        raise RecipeError(
            f"interleave.supports is {supports}, and the corpora hold {rows:,} pairs, of which a query may be given "
            f"{max(rows - 1, 0):,}: set interleave.supports to no more, or name more corpora"
        )


def _held_twice(readers: Sequence[CorpusReader], roots: Sequence[str]) -> Iterator[str]:
    holders: dict[str, str] = {}
    for reader, root in zip(readers, roots, strict=True):
        if reader.identity in holders:
            yield f"{root} and {holders[reader.identity]} hold the same corpus: name one of them"
        holders[reader.identity] = root


def _other_widths(readers: Sequence[CorpusReader], roots: Sequence[str]) -> Iterator[str]:
    for reader, root in zip(readers[1:], roots[1:], strict=True):
        if reader.width != readers[0].width:
            yield (
                f"the vectors of {root} are {reader.width} wide, and those of {roots[0]} {readers[0].width}: both have "
                "to come from one embedding model"
            )
