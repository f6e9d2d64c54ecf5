"""VQAv2's soft accuracy: how many of ten people gave the answer, three being enough.

Source: Antol et al. 2015, §3, and its evaluation (GT-Vision-Lab/VQA, vqaEval.py of a013f00), figure by figure: what it
does beside its own description is done here too, for published scores are made of it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from model.evaluation.bootstrap import Figure, clustered
from model.evaluation.vqa_files import Question

ENOUGH = 3  # people who gave an answer
ALL = ""
"""The type of answer under which the figure of all questions is told."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_SPACED: dict[int, str] = dict.fromkeys(map(ord, _PUNCTUATION), " ")
_COMMA_IN_NUMBER = re.compile(r"\d,\d", re.ASCII)
_PERIOD = re.compile(r"\.(?!\d)", re.ASCII)
_MOST_PERIODS = 32  # that are removed: the evaluation hands re.UNICODE over as the count

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_MENDED = {
    written[:place] + written[place + 1 :]: written
    for written in _CONTRACTIONS.split()
    for place, character in enumerate(written)
    if character == "'"
} | {"somebody'd": "somebodyd"}
"""A contraction that lacks one apostrophe → with it. The last one goes the other way there, too."""


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """answers: of people, one at least → min(equal ÷ 3, 1), the mean over all ways to leave one of the people out.

    Nothing is normalised where all people wrote the same: such answers are often read off the picture."""
    given, true = _one_line(answer), [_one_line(each) for each in answers]
    if len(set(true)) > 1:
        given, true = normalised(given), [normalised(each) for each in true]
    equal = true.count(given)
    others = len(true) - equal
    return (equal * min((equal - 1) / ENOUGH, 1.0) + others * min(equal / ENOUGH, 1.0)) / len(true)


@lru_cache(maxsize=1 << 16)  # people's answers repeat
def normalised(answer: str) -> str:
    """Without punctuation, periods, articles and capitals; number words as digits, contractions with apostrophes.

    A mark becomes a space, but nothing where the same mark stands beside a space somewhere, and all marks nothing where
    a comma stands between digits. A period stays before a digit. Apostrophes and colons stay."""
    in_number = _COMMA_IN_NUMBER.search(answer)
    joined = [mark for mark in _PUNCTUATION if in_number or f"{mark} " in answer or f" {mark}" in answer]
    spaced = answer.translate(_SPACED | dict.fromkeys(map(ord, joined), ""))
    words = _PERIOD.sub("", spaced, count=_MOST_PERIODS).lower().split()
    digits = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_MENDED.get(word, word) for word in digits if word not in _ARTICLES)


def vqa_accuracy(*, answers: Mapping[str, str], questions: Sequence[Question], seed: int = 0) -> dict[str, Figure]:
    """answers: the one to judge of every question, by its id → 0…1 by type of answer ("yes/no", "number", "other"), and
    of ALL. The intervals are bootstraps over pictures.

    Raises ValueError where the answers are not those of the questions, and where there is none.
    """
    asked = {question.question_id for question in questions}
    if not asked or asked != answers.keys():
        raise ValueError(
            f"{len(answers):,} answers to {len(asked):,} questions: {len(asked - answers.keys()):,} have none, "
            f"{len(answers.keys() - asked):,} are to others"
        )
    accuracy = np.array([soft_accuracy(answers[each.question_id], each.answers) for each in questions])
    pictures = np.array([each.image_id for each in questions])
    kinds = np.array([each.answer_type for each in questions])
    parts = {ALL: np.ones(len(kinds), np.bool_)} | {str(kind): kinds == kind for kind in np.unique(kinds) if kind}
    return {kind: clustered(accuracy[part], pictures[part], seed=seed) for kind, part in parts.items()}


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
