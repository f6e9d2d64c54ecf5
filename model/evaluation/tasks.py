"""What is asked about pictures: for a caption, what a question about them asks, or which of some classes they show.

A task makes the questions of a set, and tells what stands behind an example's picture.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from model.evaluation.evaluation_set import Question, caption_questions, read_domains, some_of
from model.evaluation.recipe import EvaluationRecipe, VqaRecipe
from model.evaluation.vqa_files import Question as VqaQuestion
from model.evaluation.vqa_files import read_vqa
from pipeline.errors import InputError
from stages.filter import CorpusReader


class Task(Protocol):
    def questions(self, corpus: CorpusReader) -> list[Question]:
        """In the order of the set. Raises InputError where they do not go with its pictures."""

    def told(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Of a pair (a row of PAIRS) as an example: what stands behind its picture, and the answer."""


def task_of(recipe: EvaluationRecipe) -> Task:
    if recipe.vqa is not None:
        return Vqa(recipe, recipe.vqa)
    return Captions(recipe) if recipe.choices is None else Classes(recipe)


@dataclass(frozen=True)
class Captions:
    recipe: EvaluationRecipe

    def questions(self, corpus: CorpusReader) -> list[Question]:
        domains = read_domains(self.recipe.domains) if self.recipe.domains else None
        return caption_questions(corpus, self.recipe.prompt, domains)

    def told(self, row: Mapping[str, Any]) -> tuple[str, str]:
        return self.recipe.prompt, row["caption"]


class Classes(Captions):
    """A picture's caption is the name of its class."""

    def questions(self, corpus: CorpusReader) -> list[Question]:
        found = super().questions(corpus)
        classes = self.recipe.classes or tuple(sorted({name for question in found for name in question.references}))
        unknown = [question for question in found if not set(question.references) <= set(classes)]
        if unknown:
            told = some_of([f"{each.id} ({', '.join(each.references)})" for each in unknown])
            raise InputError(f"evaluation.classes lacks the class of {len(unknown):,} pictures: {told}")
        return [replace(question, choices=classes) for question in found]


@dataclass(frozen=True)
class Vqa:
    """Of an example's questions the first is shown, with the answer that most people gave."""

    recipe: EvaluationRecipe
    files: VqaRecipe

    def questions(self, corpus: CorpusReader) -> list[Question]:
        shown = caption_questions(corpus)
        pictures = {each.image_id: each for each in shown}
        asked = read_vqa(self.files.questions, self.files.annotations)
        _check_pictures(asked, pictures, self.files.questions, self.recipe.pictures)
        _check_told_apart(asked, shown, self.recipe.pictures)
        closed = self.recipe.choices is not None
        without = [each.question_id for each in asked if closed and not each.choices]
        if without:
            raise InputError(
                f"evaluation.choices ranks given answers, and {self.files.questions} has no multiple_choices of "
                f"{len(without):,} questions: {some_of(without)}"
            )
        return [self._question(each, pictures[each.image_id]) for each in asked]

    def told(self, row: Mapping[str, Any]) -> tuple[str, str]:
        asked = self._examples.get(row["image_id"])
        if asked is None:
            raise InputError(f"evaluation.vqa.example_questions asks nothing about {row['image_id']}, an example")
        return self._asked(asked), max(asked.answers, key=asked.answers.count)

    def check_examples(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Raises InputError where nothing is asked about some of them."""
        lacking = sorted({str(row["image_id"]) for row in rows if row["image_id"] not in self._examples})
        if lacking:
            raise InputError(
                f"{self.files.example_questions} asks nothing about {len(lacking):,} of the examples' pictures, "
                f"by image_id: {some_of(lacking)}"
            )

    @cached_property
    def _examples(self) -> dict[str | None, VqaQuestion]:
        questions, annotations = self.files.example_questions, self.files.example_annotations
        assert questions is not None, "checked with the recipe"
        assert annotations is not None, "likewise"
        found: dict[str | None, VqaQuestion] = {}
        for each in read_vqa(questions, annotations):
            found.setdefault(each.image_id, each)
        return found

    def _question(self, asked: VqaQuestion, picture: Question) -> Question:
        return replace(
            picture,
            id=asked.question_id,
            domain=asked.answer_type or None,
            asked=self._asked(asked),
            references=asked.answers,
            choices=asked.choices,
        )

    def _asked(self, asked: VqaQuestion) -> str:
        return self.files.template.replace("{question}", asked.question)


def _check_pictures(
    asked: Sequence[VqaQuestion], there: Mapping[str | None, Question], file: Path, pictures: str
) -> None:
    lacking = sorted({each.image_id for each in asked if each.image_id not in there})
    if lacking:
        raise InputError(
            f"{file} asks about {len(lacking):,} pictures that are not in {pictures}, by image_id: {some_of(lacking)}"
        )


def _check_told_apart(asked: Sequence[VqaQuestion], shown: Sequence[Question], pictures: str) -> None:
    times = Counter(picture.image_id for picture in shown)
    several = sorted({each.image_id for each in asked if times[each.image_id] > 1})
    if several:
        raise InputError(
            f"{pictures} holds several pictures of {len(several):,} image_ids that are asked about, from different "
            f"sources: {some_of(several)}. Name a run of the one source that the questions are about"
        )
