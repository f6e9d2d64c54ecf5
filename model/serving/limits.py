"""How much a request may ask for, and how many there may be."""

from dataclasses import dataclass

PER_REPLICA = 32  # requests at once: a batch at work and one that waits


@dataclass(frozen=True, kw_only=True)
class Limits:
    body_bytes: int = 20_000_000
    requests: int = PER_REPLICA  # at once, those that wait included
    deadline_s: float = 30.0  # for all of a request, the reading of its body too
    beams: int = 8
    new_tokens: int = 50
    hits: int = 50
    text_chars: int = 1_000
