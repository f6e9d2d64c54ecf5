"""What is compared: arms, the budget that all of them have, and the experiments that they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trials.experiments.neighbors import Rules

Mode = Literal["none", "cross", "prefix"]
Condition = Literal["nowhere", "database", "redrawn database", "four supports"]
"""Where the name stands when a picture is to be captioned.

database          in captions of its neighbours, which are those of its own group or, by_index, what an index finds
redrawn database  the same, and every group has got another name since training
four supports     in four pairs of its group that stand before the picture
"""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train. The language model is the same for all arms of a seed."""

    name: str
    mode: Mode
    rules: Rules = "on"  # in retrofit and pretrain; asked is always with the rules on
    neighbor_token_dropout: float = 0.0  # in retrofit and pretrain
    by_index: bool = False  # neighbours by the encoder's embeddings in place of by truth
    interleaved: bool = False  # pairs and five-pair samples in place of pairs alone


@dataclass(frozen=True, kw_only=True)
class Course:
    """A stage's training. A batch is counted in captions: a five-pair sample has five."""

    updates: int
    batch: int
    learning_rate: float = 1e-3
    warm_up: int = 20


@dataclass(frozen=True, kw_only=True)
class Budget:
    training_groups: int = 256
    test_groups: int = 64
    captions: int = 14  # different ones of a group
    views: int = 3  # pictures under each of them
    asked: int = 8  # pictures of a test group that are to be captioned
    language: Course = Course(updates=600, batch=32)
    retrofit: Course = Course(updates=200, batch=64)
    pretrain: Course = Course(updates=3000, batch=32)


NONE = Arm(name="none", mode="none")
INTERLEAVED = Arm(name="none, interleaved", mode="none", interleaved=True)
PREFIX = Arm(name="prefix", mode="prefix")
CROSS = Arm(name="cross", mode="cross")
BY_INDEX = Arm(name="cross, by index", mode="cross", by_index=True)
RULES_OFF = Arm(name="cross, rules off", mode="cross", rules="off")
DROPOUT = Arm(name="cross, token dropout", mode="cross", rules="caption off", neighbor_token_dropout=0.2)

EXPERIMENTS: Mapping[str, Mapping[Arm, tuple[Condition, ...]]] = {
    "names": {NONE: ("nowhere",), CROSS: ("database", "redrawn database"), BY_INDEX: ("database",)},
    "leakage": {CROSS: ("database",), RULES_OFF: ("database",), DROPOUT: ("database",)},
    "prefix": {CROSS: ("database", "redrawn database"), PREFIX: ("database", "redrawn database")},
    "interleaved": {NONE: ("nowhere", "four supports"), INTERLEAVED: ("nowhere", "four supports")},
}
