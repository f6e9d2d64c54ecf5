"""Checksums (sha256, hexadecimal) of files, and of JSON values in one canonical spelling."""

import hashlib
import json
from pathlib import Path

from pipeline.recipe import Json


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Json) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
