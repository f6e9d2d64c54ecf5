"""Lists to url shards: every row is numbered, checked for structural faults, and written in one schema.

Reads   the files of the recipe's sources from the marks of ingest_count, a shard at most shard_size rows of one file;
        ingest_duplicates where exact duplicates are dropped
Writes  urls: schemas.URLS, rows in the list's order
Rejects malformed_row, not_utf8, null_caption, oversized_caption, bad_url, bad_path, prefilter_*, duplicate_row
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyarrow as pa

from pipeline.commits import Whole
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import URLS
from pipeline.stage import Counts, Input, Need, Plan, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.ingest.checks import stripped
from stages.ingest.count import Count
from stages.ingest.duplicates import Duplicates, dropped_rows
from stages.ingest.lists import ListFile
from stages.ingest.ranges import Lists, checked_rows, ranges_of, settings_of
from stages.ingest.recipe import IngestRecipe
from stages.ingest.records import Fault, Raw


@dataclass(frozen=True)
class Rows(Stage[None]):
    recipe: IngestRecipe

    name: ClassVar[str] = "ingest_rows"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        counted = Input(Count.name, Need.WHOLE)
        return (counted, Input(Duplicates.name, Need.WHOLE)) if self._drops else (counted,)

    @property
    def _drops(self) -> bool:
        return self.recipe.duplicates == "drop"

    @cached_property
    def lists(self) -> Lists:
        return Count(self.recipe).lists

    def settings(self) -> Mapping[str, Json]:
        return settings_of(self.recipe, self.lists) | ({"duplicates": "drop"} if self._drops else {})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        ranges = ranges_of(whole[Count.name], self.recipe.shard_size)
        return Plan([Shard(shard_id(n), params) for n, params in enumerate(ranges)])

    def pair_ids(self, task: Task) -> list[str]:
        return [_pair_id(task, row) for row in range(task.params["rows"])]

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        source, file = self.lists[task.params["list"]]
        dropped, kept = self._dropped(task), []
        for number, row in enumerate(checked_rows(self.lists, task.params)):
            pair_id = _pair_id(task, number)
            if isinstance(row, Fault):
                out.reject(pair_id, *row)
            elif number in dropped:
                out.reject(pair_id, Reason.DUPLICATE_ROW, "same url and caption as an earlier row")
            else:
                kept.append(url_row(pair_id, source.name, file, row))
        out.table("urls", "{stem}.parquet", pa.Table.from_pylist(kept, schema=URLS))
        return Counts(task.params["rows"], len(kept))

    def _dropped(self, task: Task) -> set[int]:
        if not self._drops:
            return set()
        return dropped_rows(task.whole(Duplicates.name), task.params["position"], task.params["rows"])


def _pair_id(task: Task, row: int) -> str:
    """row: of the shard."""
    return f"{task.params['source']}-{task.params['first'] + row:010d}"


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
