"""Ranges of the lists' rows, read and checked: what ingest_keys and ingest_rows share."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from pipeline.commits import Whole
from pipeline.errors import InputError
from pipeline.recipe import Json
from stages.ingest.checks import fault_of
from stages.ingest.count import describe, read_counts
from stages.ingest.lists import ListFile, sizes_now
from stages.ingest.presets import PRESETS
from stages.ingest.recipe import IngestRecipe, SourceRecipe
from stages.ingest.records import Fault, Raw

Lists = Sequence[tuple[SourceRecipe, ListFile]]
Part = TypeVar("Part")


def settings_of(recipe: IngestRecipe, lists: Lists) -> dict[str, Json]:
    """What decides which rows pass the checks, and what is stored of them."""
    return {
        "shard_size": recipe.shard_size,
        "order": [source.name for source in recipe.lists],
        "sources": {
            source.name: describe(source, lists)
            | {"columns": source.all_columns(), "prefilter": source.prefilter.given()}
            | {"pictures": _picture_places(source, lists)}
            for source in recipe.lists
        },
    }


def _picture_places(source: SourceRecipe, lists: Lists) -> list[str]:
    """Rows of local pictures say where these lie, so here a path does decide the result. Empty: urls."""
    files = [file for owner, file in lists if owner.name == source.name]
    folders = {file.folder for file in files if file.folder}
    return sorted(folders or {path for file in files if file.suffix == ".tar" for path in file.paths})


def ranges_of(counted: Whole, shard_size: int, shards: int = 1) -> Iterator[dict[str, Json]]:
    """All rows in order, a range so many url shards of one list, as ingest_count marked where each begins."""
    rows_before: Counter[str] = Counter()  # of the source
    position = 0
    for number, count in enumerate(read_counts(counted)):
        at = {"list": number, "first": rows_before[count["source"]], "position": position}
        yield from _ranges(count, at, shard_size * shards, shards)
        rows_before[count["source"]] += count["rows"]
        position += count["rows"]


def _ranges(count: Mapping[str, Json], at: Mapping[str, Json], size: int, every: int) -> Iterator[dict[str, Json]]:
    """at: where the list begins; size: rows of a range; every: url shards in it, each of which has a mark."""
    for row, mark in zip(range(0, count["rows"], size), count["marks"][::every], strict=True):
        yield {
            "source": count["source"],
            "file": count["file"],
            "list": at["list"],
            "first": at["first"] + row,  # row number in the source
            "position": at["position"] + row,  # row number over all lists
            "rows": min(size, count["rows"] - row),
            "mark": mark,
        }


def grouped(parts: Iterable[tuple[Part, int]], most: int) -> Iterator[list[Part]]:
    """Consecutive parts with no more rows together, or one that alone has more. parts: each with its rows."""
    group: list[Part] = []
    size = 0
    for part, rows in parts:
        if group and size + rows > most:
            yield group
            group, size = [], 0
        group.append(part)
        size += rows
    if group:
        yield group


def checked_rows(lists: Lists, params: Mapping[str, Json]) -> Iterator[Raw | Fault]:
    """Every row of a range, or why it cannot be used. Raises InputError where the list is not what was counted."""
    source, file = lists[params["list"]]
    if sizes_now(file) != file.sizes:
        raise _changed(file)
    bounds, read = source.prefilter.given(), 0
    for _, raw in islice(PRESETS[source.preset].reader(file).rows(file, params["mark"]), params["rows"]):
        yield raw if isinstance(raw, Fault) else fault_of(raw, bounds) or raw
        read += 1
    if read != params["rows"]:
        raise _changed(file)


def _changed(file: ListFile) -> InputError:
    return InputError(f"{file.name} changed after its rows were counted; restore it, or start a new root")
