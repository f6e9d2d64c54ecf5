"""Files that hold a model: read with errors that name them, and written whole or not at all."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Shapes = Mapping[str, Sequence[int]]
"""Name of a tensor → its shape."""


def read_json(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError, or ValueError naming the file."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}; it should be a JSON object")
    return found


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to. What was written takes the place of `path` at the end of the block, whole; an error or a
    kill before that leaves `path` as it was."""
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def tensor_faults(due: Shapes, found: Shapes) -> list[str]:
    """Every tensor that is missing, extra or misshapen, in words."""
    missing = [f"{name} is missing" for name in due if name not in found]
    extra = [f"{name} is extra" for name in found if name not in due]
    misshapen = [
        f"{name} is {list(found[name])} and should be {list(shape)}"
        for name, shape in due.items()
        if name in found and list(found[name]) != list(shape)
    ]
    return missing + extra + misshapen
