"""What a stage declares. The frame does the rest: skipping what is committed, chaining, retries, counting, resume."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from pipeline.recipe import Json

if TYPE_CHECKING:
    from pipeline.commits import CommitRecord, Whole
    from pipeline.writer import ShardWriter, Task

State = TypeVar("State")


class Need(Enum):
    SAME_SHARD = "same shard"  # shard i starts when shard i of the input is committed
    WHOLE = "whole"  # the stage is planned when the whole input is there


@dataclass(frozen=True)
class Input:
    stage: str
    need: Need = Need.SAME_SHARD
    root: str | None = None  # another run's root; its stage must be whole
    label: str = ""  # what the stage calls it; the input's name unless several runs are read

    @property
    def key(self) -> str:
        return self.label or self.stage


@dataclass(frozen=True)
class Resources:
    """Of one process. threads: what numeric libraries may use; declared, so that a result is the same everywhere."""

    cpus: float = 1
    gpus: float = 0
    memory_gib: float = 1
    threads: int = 1
    workers: int | None = None  # processes of a stateful or sharing stage; None: as many as the cluster holds


@dataclass(frozen=True)
class Share:
    """Which of the equal parts of what a stage's shards at work share is this shard's: `number` of `of`, from 0."""

    number: int = 0
    of: int = 1


ALL = Share()
"""Of a shard that works alone."""


@dataclass(frozen=True)
class Shard:
    """The unit of work and of commitment. params are what the plan says of it."""

    id: str
    params: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """resolved: what was `auto` in the recipe, decided once and obeyed by every later resume."""

    shards: Sequence[Shard]
    resolved: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """rows_in = rows_out + rejects, which the frame checks. metrics: numbers for the statistics."""

    rows_in: int
    rows_out: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Stage(ABC, Generic[State]):
    """A frozen dataclass that names itself and makes one shard at a time.

    State is what `open` returns and a process keeps between shards (a model, say); None for most.
    """

    name: ClassVar[str]
    version: ClassVar[int]  # raised when the same input gives another output
    stateful: ClassVar[bool] = False  # True: `open` is dear, so long-lived workers serve many shards
    # True: shards at work share what no executor knows of (the patience of web servers), so each is told its share
    sharing: ClassVar[bool] = False

    @property
    def inputs(self) -> Sequence[Input]:
        return ()

    @property
    def resources(self) -> Resources:
        return Resources()

    @abstractmethod
    def settings(self) -> Mapping[str, Json]:
        """Whatever decides the bytes of the result, and nothing else: it is the stage's fingerprint."""

    def conditions(self) -> Mapping[str, Json]:
        """Settings that may change between resumes; each commit record states those it was made under."""
        return {}

    def plan(self, whole: Mapping[str, "Whole"]) -> Plan:
        """The shards to make, from the inputs needed whole; one, unless a stage says otherwise. A stage with a
        SAME_SHARD input of its own run is never asked: its shards are that input's."""
        return Plan([Shard(shard_id(0))])

    def pair_ids(self, task: "Task") -> Sequence[str] | None:
        """The pairs that enter a shard, told without making it: `accept_failed` makes them rejects where the shard
        fails for good. None: the run cannot do without a shard of this stage."""
        return None

    def news(self, whole: "Whole") -> str:
        """What whoever watches the run is told when the stage has become whole; empty: nothing."""
        return ""

    def alarm(self, ended: "Sequence[CommitRecord | Exception]") -> str:
        """Why no more shards should be begun, told by those that this driver saw end last: records, and what was
        raised; empty: there is no reason."""
        return ""

    def open(self, task: "Task") -> State:
        """Once per process, before its first shard."""
        return None  # type: ignore[return-value]

    @abstractmethod
    def process(self, task: "Task", out: "ShardWriter", state: State) -> Counts:
        """Make one shard. Called again after a crash, so everything it leaves behind goes through `out`."""


def shard_id(number: int) -> str:
    return f"{number:06d}"
