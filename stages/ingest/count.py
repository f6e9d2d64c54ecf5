"""Count the rows of every list, and pin its content.

Reads   the files of the recipe's sources, a shard a file
Writes  count: {source, file, files: [{name, bytes, sha256}], rows, marks}; marks[i] is where a reader starts for row
        i · shard_size of the file
Rejects nothing: a file that is not what its preset says raises InputError
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.stage import Counts, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.ingest.lists import ListFile, read_chunks, sha256_of_ends
from stages.ingest.presets import PRESETS
from stages.ingest.recipe import IngestRecipe, SourceRecipe
from stages.ingest.sources import lists_of


@dataclass(frozen=True)
class Count(Stage[None]):
    recipe: IngestRecipe

    name: ClassVar[str] = "ingest_count"
    version: ClassVar[int] = 1

    @cached_property
    def lists(self) -> Sequence[tuple[SourceRecipe, ListFile]]:
        """Found once, by the driver; workers are sent what it found."""
        return [(source, file) for source in self.recipe.lists for file in lists_of(source)]

    def settings(self) -> Mapping[str, Json]:
        return {
            "shard_size": self.recipe.shard_size,
            "order": [source.name for source in self.recipe.lists],
            "sources": {source.name: describe(source, self.lists) for source in self.recipe.lists},
        }

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(n), {"list": n, "file": file.name}) for n, (_, file) in enumerate(self.lists)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        source, file = self.lists[task.params["list"]]
        rows, marks = PRESETS[source.preset].reader(file).count(file, self.recipe.shard_size)
        files = [
            {"name": name, "bytes": size, "sha256": _sha256(path)}
            for path, name, size in zip(file.paths, file.names, file.sizes, strict=True)
        ]
        content = {"source": source.name, "file": file.name, "files": files, "rows": rows, "marks": marks}
        out.json("count", "{stem}.json", content)
        return Counts(rows, rows)


def read_counts(counted: Whole) -> Iterator[Mapping[str, Json]]:
    """What was written of every list, in the recipe's order."""
    for shard in counted.shards:
        with counted.read(shard).open("count") as file:
            yield json.load(file)


def describe(source: SourceRecipe, lists: Sequence[tuple[SourceRecipe, ListFile]]) -> dict[str, Json]:
    """What decides a source's rows, for a fingerprint: never a path or a time. Of a list's content its size and ends,
    so that a start need not read all of it; ingest_count pins the rest."""
    files = [file for owner, file in lists if owner.name == source.name]
    version = PRESETS[source.preset].version
    return {
        "preset": source.preset,
        **({"version": version} if version > 1 else {}),
        "split": source.split,
        "files": [
            [name, size, sha256_of_ends(path, size)]
            for file in files
            for path, name, size in zip(file.paths, file.names, file.sizes, strict=True)
        ],
    }


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    for chunk in read_chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
