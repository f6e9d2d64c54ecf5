"""A driver's state, in a file, for those who watch it: it outlasts a kill."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class DriverState:
    """Of one driver since it was called; times in seconds."""

    done: dict[str, int] = field(default_factory=Counter)  # stage → shards
    deaths: int = 0
    raised: int = 0
    first_shard_s: float = 0  # from the call of the process to the first shard submitted
    join_s: float = 0  # of these, joining Ray
    frame_s: float = 0  # of these, from the start of the run on: neither imports nor joining Ray

    @classmethod
    def read(cls, path: Path) -> "DriverState":
        return cls(**json.loads(path.read_bytes())) if path.exists() else cls()

    def write(self, path: Path) -> None:
        written = path.with_suffix(".new")
        written.write_text(json.dumps(vars(self)))
        written.replace(path)
