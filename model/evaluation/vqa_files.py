"""Questions about pictures, in the form of VQAv2's two files (visualqa.org, "Input Questions Format" and "Annotation
Format"): the questions, and what people answered. OK-VQA and others have the same form."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import InputError

SHOWN = 5  # ids, of a fault


@dataclass(frozen=True)
class Question:
    question_id: str
    image_id: str  # as PAIRS.image_id of a captioning set with the same pictures
    question: str
    answers: tuple[str, ...]  # of people: ten, in VQAv2
    answer_type: str  # yes/no, number, other; empty: the file does not say
    choices: tuple[str, ...]  # what may be answered, of a closed-ended task; else none


class _Part(BaseModel):
    """Other keys are not looked at."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


class _Asked(_Part):
    question_id: str
    image_id: str
    question: str
    multiple_choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:  # two million in VQAv2's validation split; as a model each took 400 bytes more
    answer: str


class _Answered(_Part):
    question_id: str
    image_id: str
    answers: tuple[_Answer, ...]
    answer_type: str = ""


class _Questions(_Part):
    questions: tuple[_Asked, ...]


class _Annotations(_Part):
    annotations: tuple[_Answered, ...]


def read_vqa(questions: Path, annotations: Path) -> list[Question]:
    """In the order of the questions' file.

    Raises InputError, with every fault: a file that cannot be read or is not of this form, that names a question twice
    or none at all; questions in one file alone, about another picture in the other one, or without an answer.
    """
    asked = _read(_Questions, questions).questions
    answered = _read(_Annotations, annotations).annotations
    faults = [*_faults(asked, questions), *_faults(answered, annotations)]
    faults += _unlike(asked, answered, questions, annotations)
    if faults:
        raise InputError("\n".join(faults))
    answers = {each.question_id: each for each in answered}
    return [_question(each, answers[each.question_id]) for each in asked]


_File = TypeVar("_File", bound=_Part)


def _read(kind: type[_File], path: Path) -> _File:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in error.errors()]
        raise InputError(
            f"{path} is not of VQAv2's form ({', '.join(kind.model_fields)}): {_some(found, 'fault')}"
        ) from None


def _faults(entries: Sequence[_Asked] | Sequence[_Answered], path: Path) -> Iterator[str]:
    if not entries:
        yield f"{path} holds no question"
    times = Counter(each.question_id for each in entries)
    twice = [question for question, number in times.items() if number > 1]
    if twice:
        yield f"{path} names questions more than once: {_some(twice)}"


def _unlike(
    asked: Sequence[_Asked], answered: Sequence[_Answered], questions: Path, annotations: Path
) -> Iterator[str]:
    shown = {each.question_id: each.image_id for each in asked}
    told = {each.question_id: each for each in answered}
    if alone := [each for each in shown if each not in told]:
        yield f"{annotations} answers not all of {questions}: {_some(alone)} of {len(shown):,} are missing"
    if unasked := [each for each in told if each not in shown]:
        yield f"{annotations} answers what {questions} does not ask: {_some(unasked)} of {len(told):,}"
    both = [each for each in shown if each in told]
    if moved := [each for each in both if told[each].image_id != shown[each]]:
        yield f"{questions} and {annotations} name different pictures: {_some(moved)}"
    if empty := [each for each in both if not told[each].answers]:
        yield f"{annotations} holds no answer: {_some(empty)}"


def _some(names: Iterable[str], what: str = "question") -> str:
    every = list(names)
    more = ", …" if len(every) > SHOWN else ""
    return f"{len(every):,} {what}{'s' if len(every) > 1 else ''} ({', '.join(every[:SHOWN])}{more})"


def _question(asked: _Asked, answered: _Answered) -> Question:
    return Question(
        question_id=asked.question_id,
        image_id=asked.image_id,
        question=asked.question,
        answers=tuple(each.answer for each in answered.answers),
        answer_type=answered.answer_type,
        choices=asked.multiple_choices,
    )
