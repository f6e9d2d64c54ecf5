"""Closed-ended tasks: of given answers the one that a model holds most probable, by several orders of its examples.

Source: Alayrac et al. 2022 (Flamingo), evaluation of closed-ended tasks: log-likelihoods of the answers, averaged over
six random permutations of the few-shot examples ("prompt ensembling").
Shapes: P permutations, C choices.
"""

from collections.abc import Sequence
from itertools import permutations
from math import factorial
from random import Random
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline.recipe import Section

Example = TypeVar("Example")


class ChoicesRecipe(Section):
    permutations: int = Field(6, ge=1)  # of the examples, of which every answer's log-likelihood is the mean
    per_token: bool = False  # True: log-likelihoods are divided by the answer's tokens, so that long ones lose nothing
    seed: int = Field(0, ge=0)  # of the permutations


def permuted(examples: Sequence[Example], query_id: str, count: int, seed: int = 0) -> list[tuple[Example, ...]]:
    """`count` different orders of the examples' places; all of them where there are no more. They depend on nothing but
    the number of examples, the query and the seed."""
    places = range(len(examples))
    if factorial(len(examples)) <= count:
        orders = list(permutations(places))
    else:
        random, drawn = Random(f"{seed}/{query_id}"), dict[tuple[int, ...], None]()
        while len(drawn) < count:
            drawn[tuple(random.sample(places, len(places)))] = None
        orders = list(drawn)
    return [tuple(examples[place] for place in order) for order in orders]


def chosen(log_likelihoods: npt.ArrayLike, tokens: Sequence[int] | None = None) -> int:
    """log_likelihoods (P, C) in nats; tokens (C): of every choice, where they are to be divided by them → the number of
    the choice whose mean over permutations is largest; of equal ones the first.

    Raises ValueError where there is no choice, one of no token is to be divided, or a value is not a number.
    """
    values = np.asarray(log_likelihoods, np.float64)
    if values.ndim != 2 or not values.size or np.isnan(values).any():
        raise ValueError(f"log-likelihoods should be (permutations, choices) numbers, one at least; found {values}")
    mean = values.mean(0)
    if tokens is not None:
        lengths = np.asarray(tokens)
        if lengths.shape != mean.shape or lengths.min() < 1:
            raise ValueError(f"{len(mean)} choices need a token or more each, found {lengths.tolist()}")
        mean = mean / lengths
    return int(mean.argmax())
