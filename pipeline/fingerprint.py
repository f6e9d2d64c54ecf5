"""What a stage's result depends on, in a form that can be compared field by field."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.checksums import sha256_of_json
from pipeline.errors import FingerprintMismatch
from pipeline.recipe import Json
from pipeline.stage import Stage


def parts_of(stage: Stage[Any], inputs: Mapping[str, str]) -> dict[str, Json]:
    """inputs: key → the input's fingerprint where shards are chained, its identity where it is needed whole."""
    parts = {"version": stage.version, "settings": dict(stage.settings()), "inputs": dict(inputs)}
    read_back: dict[str, Json] = json.loads(json.dumps(parts))  # as a stored plan has them: lists, no tuples
    return read_back


def fingerprint_of(parts: Mapping[str, Json]) -> str:
    return sha256_of_json(parts)


def refuse_other(root: str, stage: str, made: Json, wanted: Json) -> None:
    """Raises FingerprintMismatch, naming every field that differs and both values."""
    if fields := told(differences(made, wanted)):
        raise FingerprintMismatch(
            f"{root}/{stage} was made with other settings: {fields}. Restore them, or give a new root "
            f"(with base.root={root} it takes over every stage that is the same). What was made is untouched."
        )


def told(found: Iterable[tuple[str, Json, Json]]) -> str:
    return "; ".join(f"{field} is {theirs!r} there and {ours!r} here" for field, theirs, ours in found)


def differences(made: Json, wanted: Json, where: str = "") -> Iterator[tuple[str, Json, Json]]:
    if isinstance(made, dict) and isinstance(wanted, dict):
        for key in sorted(made.keys() | wanted.keys()):
            yield from differences(made.get(key), wanted.get(key), f"{where}.{key}".removeprefix("."))
    elif made != wanted:
        yield where.removeprefix("settings."), made, wanted
