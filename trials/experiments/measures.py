"""What a model says of pictures that it is asked about, and how much of it is right.

A caption is generated greedily, of 20 tokens at most. It names, numbers or colours a picture with the one word that it
has of the closed set; one with two different words of a set, or none, is wrong. Chance is a word drawn evenly from the
set and, of the loss, a caption drawn evenly from all that the world can say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.named import NAMES, NUMBERS, PHRASINGS, Group, NamedPair
from demo.scenes import COLOURS
from model.revilm import ReViLM
from model.sequence import SequenceBuilder
from model.tokenizer import Tokenizer
from model.training.held_out import HeldOut, evaluating
from model.training.samples import Sample
from stages.filter import normalised

LONGEST = 20  # tokens; the world's longest caption has 11
AT_A_TIME = 128  # questions


@dataclass(frozen=True)
class Scores:
    """Shares of the questions, and the loss."""

    name: float
    number: float
    colour: float
    loss: float  # nats a token of the true caption and its end
    copied: float  # answers that are a neighbour's caption, word by word
    old_name: float | None = None  # answers with the name from before the redrawing


def ask(
    model: ReViLM,
    tokenizer: Tokenizer,
    questions: Sequence[Sample],
    pairs: Sequence[NamedPair],
    names: Mapping[Group, str] | None = None,
) -> Scores:
    """pairs: what the questions are of, in their order; names: other names of their groups."""
    bounds = range(0, len(questions), AT_A_TIME)
    batches = [range(first, min(first + AT_A_TIME, len(questions))) for first in bounds]
    held_out = HeldOut(model, SequenceBuilder(model.config, tokenizer), "cpu", batches)
    with evaluating(model):
        nats, tokens = held_out.losses(questions)
        answers = held_out.captions(questions, max_new_tokens=LONGEST, beams=1)
    words = [normalised(answer).split() for answer in answers]
    told = [pair.group.name if names is None else names[pair.group] for pair in pairs]
    neighbors = [[normalised(each) for each in question.chunks[-1].neighbors] for question in questions]
    return Scores(
        name=share_said(words, told, NAMES),
        number=share_said(words, [pair.number for pair in pairs], NUMBERS),
        colour=share_said(words, [pair.scene.colour for pair in pairs], COLOURS),
        loss=float(nats.sum() / tokens.sum()),
        copied=_mean([" ".join(said) in seen for said, seen in zip(words, neighbors, strict=True)]),
        old_name=None if names is None else share_said(words, [pair.group.name for pair in pairs], NAMES),
    )


def share_said(answers: Sequence[Sequence[str]], due: Sequence[str], closed_set: Sequence[str]) -> float:
    """Share of answers, each in words, whose one word of the closed set is the one that is due."""
    return _mean([set(words) & set(closed_set) == {word} for words, word in zip(answers, due, strict=True)])


def chance(tokenizer: Tokenizer, pairs: Sequence[NamedPair]) -> Scores:
    captions = len(NAMES) * len(NUMBERS) * len(COLOURS) * len(PHRASINGS)
    tokens = sum(len(tokenizer.encode(pair.caption)) + 1 for pair in pairs)
    loss = math.log(captions) * len(pairs) / tokens
    return Scores(1 / len(NAMES), 1 / len(NUMBERS), 1 / len(COLOURS), loss, copied=0.0)


def _mean(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
