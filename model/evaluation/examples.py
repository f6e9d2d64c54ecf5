"""What stands in front of a question: pairs of the train split, or the words of some."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, Literal, Protocol

from model.evaluation.evaluation_set import Question
from model.evaluation.recipe import EvaluationRecipe
from pipeline.errors import InputError
from stages.filter import CorpusReader
from stages.interleave import FewshotReader

TEXT_ALONE = 2  # examples without a picture, in a zero-shot prompt (Flamingo §3.3)

Selection = Literal["none", "text alone", "rices", "random", "paper (leaks)"]
"""How examples were chosen; `paper` by the caption that is asked for."""


Told = Callable[[Mapping[str, Any]], tuple[str, str]]
"""A pair of the train split (a row of PAIRS) → what stands behind its picture, and the answer."""


@dataclass(frozen=True)
class Example:
    asked: str  # as Question.asked
    answer: str
    corpus: CorpusReader | None = None  # None: it has no picture
    row: Mapping[str, Any] | None = None  # of PAIRS, in that corpus


class Examples(Protocol):
    @property
    def selection(self) -> Selection: ...

    def of(self, question: Question) -> Sequence[Example] | None:
        """In prompt order. None: there are fewer than asked for."""


class NoExamples:
    selection: Selection = "none"

    def of(self, question: Question) -> Sequence[Example]:
        return ()


@dataclass(frozen=True)
class TextExamples:
    """Captions of a train split, drawn for every question by its id, the same on every machine. matches: as Examiner
    has them; none of these captions is drawn."""

    corpus: CorpusReader
    seed: int
    told: Told
    matches: Mapping[str, Set[str]] = field(default_factory=dict)
    selection: Selection = "text alone"

    def of(self, question: Question) -> Sequence[Example] | None:
        barred, rows = self.matches.get(question.pair_id, frozenset()), self.corpus.rows
        drawn = Random(f"{self.seed}/{question.id}").sample(range(rows), min(TEXT_ALONE + len(barred), rows))
        others = [row for row in map(self.corpus.row, drawn) if row["pair_id"] not in barred]
        return [Example(*self.told(row)) for row in others[:TEXT_ALONE]] if len(others) >= TEXT_ALONE else None


@dataclass(frozen=True)
class FewShot:
    reader: FewshotReader
    shots: int
    told: Told

    @property
    def selection(self) -> Selection:
        if self.reader.leaks:
            return "paper (leaks)"
        return "rices" if self.reader.selection == "rices" else "random"

    def of(self, question: Question) -> Sequence[Example] | None:
        supports = self._supports.get(question.pair_id)
        if supports is None or len(supports) < self.shots:
            return None
        corpora = [self.reader.corpora[support["corpus"]] for support in supports]
        rows = [corpus.row(support["row_id"]) for corpus, support in zip(corpora, supports, strict=True)]
        return [Example(*self.told(row), corpus, row) for corpus, row in zip(corpora, rows, strict=True)]

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Every pair that is an example of some question, once."""
        for corpus, row_id in {(s["corpus"], s["row_id"]) for some in self._supports.values() for s in some}:
            yield self.reader.corpora[corpus].row(row_id)

    @cached_property
    def _supports(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return self.reader.supports(self.shots)


def examples_of(
    recipe: EvaluationRecipe, shots: int, told: Told, matches: Mapping[str, Set[str]] | None = None
) -> Examples:
    """matches: as TextExamples has them.

    Raises InputError where they are not there, or are not of the set's pictures.
    """
    if shots == 0:
        if recipe.text_examples is None:
            return NoExamples()
        return TextExamples(_of_another_set(recipe.text_examples, recipe.pictures), recipe.seed, told, matches or {})
    assert recipe.examples is not None, "checked with the recipe"
    reader = FewshotReader(recipe.examples)
    if shots not in reader.shots:
        raise InputError(
            f"evaluation.shots asks for {shots}, and {recipe.examples} holds {', '.join(map(str, reader.shots))}: set "
            "fewshot.shots there, or evaluation.shots here"
        )
    queries, pictures = reader.corpora[-1].identity, CorpusReader(recipe.pictures).identity
    if queries != pictures:
        raise InputError(
            f"evaluation.examples: {recipe.examples} holds examples for the pictures of {reader.queries}, and "
            f"evaluation.pictures is {recipe.pictures}: make them for these"
        )
    return FewShot(reader, shots, told)


def _of_another_set(text_examples: str, pictures: str) -> CorpusReader:
    """Raises InputError where it is the set that is asked about."""
    corpus = CorpusReader(text_examples)
    if corpus.identity == CorpusReader(pictures).identity:
        raise InputError(
            f"evaluation.text_examples is {text_examples}, which holds the pictures that are asked about: their own "
            "captions would stand in the prompts. Name a run of the train split"
        )
    return corpus
