"""What goes to and fro between the process that speaks HTTP and the replicas."""

from dataclasses import dataclass
from typing import Any, NamedTuple

Record = dict[str, Any]
"""As JSON."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a replica has opened."""

    checkpoint: str
    index: str | None
    pairs: int  # of the index
    neighbors: int  # that the model may be shown
    device: str


class Wish(NamedTuple):
    """Of captions that can be made together."""

    beams: int
    new_tokens: int
    neighbors: int  # at most
