"""Lists to url shards: every row is numbered, checked for structural faults, and written in one schema.

Reads   the files of the recipe's sources from the marks of ingest_count, a shard at most shard_size rows of one file
Writes  urls: schemas.URLS, rows in the list's order
Rejects malformed_row, not_utf8, null_caption, oversized_caption, bad_url, bad_path, prefilter_*
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar

import pyarrow as pa

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.schemas import URLS
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.ingest.checks import fault_of, stripped
from stages.ingest.count import Count, describe, read_counts
from stages.ingest.lists import ListFile, sizes_now
from stages.ingest.presets import PRESETS
from stages.ingest.recipe import IngestRecipe, SourceRecipe
from stages.ingest.records import Fault, Raw


@dataclass(frozen=True)
class Rows(Stage[None]):
    recipe: IngestRecipe

    name: ClassVar[str] = "ingest_rows"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return (Input(Count.name, Need.WHOLE),)

    @cached_property
    def lists(self) -> Sequence[tuple[SourceRecipe, ListFile]]:
        return Count(self.recipe).lists

    def settings(self) -> Mapping[str, Json]:
        return {
            "shard_size": self.recipe.shard_size,
            "order": [source.name for source in self.recipe.sources],
            "sources": {
                source.name: describe(source, self.lists)
                | {"columns": source.all_columns(), "prefilter": source.prefilter.given()}
                | {"pictures": self._picture_places(source)}
                for source in self.recipe.sources
            },
        }

    def _picture_places(self, source: SourceRecipe) -> list[str]:
        """Rows of local pictures say where these lie, so here a path does decide the result. Empty: urls."""
        files = [file for owner, file in self.lists if owner.name == source.name]
        folders = {file.folder for file in files if file.folder}
        return sorted(folders or {path for file in files if file.suffix == ".tar" for path in file.paths})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        counted, ranges = whole[Count.name], []
        rows_before: Counter[str] = Counter()  # of the source
        for number, count in enumerate(read_counts(counted)):
            ranges += list(self._ranges(count, number, rows_before[count["source"]]))
            rows_before[count["source"]] += count["rows"]
        return Plan([Shard(shard_id(n), params) for n, params in enumerate(ranges)])

    def _ranges(self, count: Mapping[str, Json], number: int, rows_before: int) -> Iterator[dict[str, Json]]:
        size = self.recipe.shard_size
        for first, mark in zip(range(0, count["rows"], size), count["marks"], strict=True):
            yield {
                "source": count["source"],
                "file": count["file"],
                "list": number,
                "first": rows_before + first,  # row number in the source
                "rows": min(size, count["rows"] - first),
                "mark": mark,
            }

    def pair_ids(self, task: Task) -> list[str]:
        return [_pair_id(task, row) for row in range(task.params["rows"])]

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        source, file = self.lists[task.params["list"]]
        bounds, kept, read = source.prefilter.given(), [], 0
        if sizes_now(file) != file.sizes:
            raise _changed(file)
        for raw in _raws(source, file, task.params):
            pair_id = _pair_id(task, read)
            row = raw if isinstance(raw, Fault) else fault_of(raw, bounds) or url_row(pair_id, source.name, file, raw)
            if isinstance(row, Fault):
                out.reject(pair_id, *row)
            else:
                kept.append(row)
            read += 1
        if read != task.params["rows"]:
            raise _changed(file)
        out.table("urls", "{stem}.parquet", pa.Table.from_pylist(kept, schema=URLS))
        return Counts(read, len(kept))


def _pair_id(task: Task, row: int) -> str:
    """row: of the shard."""
    return f"{task.params['source']}-{task.params['first'] + row:010d}"


def _raws(source: SourceRecipe, file: ListFile, params: Mapping[str, Json]) -> Iterator[Raw | Fault]:
    rows = PRESETS[source.preset].reader(file).rows(file, params["mark"])
    return (raw for _, raw in islice(rows, params["rows"]))


def _changed(file: ListFile) -> InputError:
    return InputError(f"{file.name} changed after its rows were counted; restore it, or start a new root")


def url_row(pair_id: str, source: str, file: ListFile, raw: Raw) -> dict[str, Json]:
    """A row of schemas.URLS from texts that passed the checks."""
    row = {
        "pair_id": pair_id,
        "source": source,
        "image_id": raw.image_id.decode() if raw.image_id else None,
        "caption": (raw.caption or b"").decode(),
        "nsfw": raw.numbers.get("nsfw"),
        "watermark": raw.numbers.get("watermark"),
    }
    if raw.offset is not None:
        return row | {"local_path": file.paths[0], "local_offset": raw.offset, "local_bytes": raw.size}
    if raw.path is not None:
        return row | {"local_path": f"{file.folder}/{raw.path.decode()}"}
    return row | {"url": stripped(raw.url or b"")}
