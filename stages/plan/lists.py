"""How many rows the recipe's lists have, as well as can be told in a second: by the root's own count, by the footers of
parquet, by a text's head and size, or as the recipe states. Heads tell of the urls' hosts and the prefilter, too."""

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commits import Whole, resolve_folder
from pipeline.errors import RecipeError
from stages.filter import THIS_RUN
from stages.ingest import Count, IngestRecipe, check_sources, read_counts
from stages.plan.figures import Figure, measured, stated
from stages.plan.job import Job

HEAD_BYTES = 4 << 20
SAMPLE_ROWS, SAMPLE_FILES = 20_000, 4
OF_LINES = ("cc3m", "cc12m", "table")  # presets whose rows are lines, where they are no parquet
HOST = re.compile(rb"https?://([^/\s\"'?#:]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Head:
    """What was seen of a source's lists; None: they are not on this machine, or do not show it.

    largest_host: its share of the urls. passed: the share of the rows that the prefilter lets pass.
    """

    rows: Figure | None = None
    shards: Figure | None = None  # of ingest_rows
    lists: int | None = None
    largest_host: Figure | None = None
    passed: Figure | None = None


@dataclass(frozen=True)
class SourceRows:
    rows: Figure
    shards: Figure  # of ingest_rows
    lists: Figure
    largest_host: Figure | None = None
    passed: Figure | None = None


def rows_of_sources(job: Job) -> dict[str, SourceRows]:
    """By source. Raises RecipeError where a list is not what its preset says, or its rows cannot be told in advance."""
    if job.ingest is None:
        return _rows_of_inputs(job)
    if job.ingest.second_pass or THIS_RUN in job.filter.inputs:
        raise RecipeError("a run whose pairs are partly another one's, such as a second pass, is not planned here")
    sources = {source.name: source for source in job.ingest.lists}
    for section in ("rows", "survival", "largest_host"):
        unknown = sorted(getattr(job.plan, section).keys() - sources.keys())
        if unknown:
            raise RecipeError(f"plan.{section}.{unknown[0]} is no source; ingest.sources has {', '.join(sources)}")
    counted = _counted(job.root, job.ingest.shard_size)
    heads = {name: Head() for name in sources}
    present = [source for name, source in sources.items() if _is_here(source.files, rows_stated=name in job.plan.rows)]
    if present:
        faults = check_sources(IngestRecipe(sources=tuple(present), shard_size=job.ingest.shard_size))
        if faults:
            raise RecipeError("\n".join(faults))
    heads |= {source.name: _head(source, job.ingest.shard_size) for source in present}
    return {name: _best(name, head, counted.get(name), job) for name, head in heads.items()}


def _best(name: str, head: Head, counted: tuple[int, int] | None, job: Job) -> SourceRows:
    """By the root's own count, else by the list itself, else as stated."""
    host = job.plan.largest_host.get(name)
    largest = stated(host, "plan.largest_host") if host else head.largest_host
    lists = Figure(head.lists) if head.lists else stated(1, "the list is not on this machine")
    if counted:
        return SourceRows(Figure(counted[0]), Figure(counted[1]), lists, largest, head.passed)
    if head.rows and head.shards:
        return SourceRows(head.rows, head.shards, lists, largest, head.passed)
    assert job.ingest is not None, "it names the sources"
    if name not in job.plan.rows:
        files = next(source.files for source in job.ingest.lists if source.name == name)
        raise RecipeError(
            f"the rows of source {name} cannot be told in advance: {', '.join(files)} is not on this machine, or is of "
            f"a kind that has to be read whole. State them: plan.rows.{name}=N"
        )
    rows = stated(job.plan.rows[name], "plan.rows")
    return SourceRows(rows, _rounded_up(rows / job.ingest.shard_size), lists, largest, head.passed)


def _rows_of_inputs(job: Job) -> dict[str, SourceRows]:
    """Of finished runs: the pairs that are judged, and a judge shard for each of theirs."""
    wholes = [Whole.open(root, "embed") for root in job.filter.inputs]
    rows = Figure(sum(whole.rows for whole in wholes))
    return {"": SourceRows(rows, Figure(sum(len(whole.shards) for whole in wholes)), Figure(0))}


def _counted(root: str, shard_size: int) -> dict[str, tuple[int, int]]:
    """Source → rows, shards: of a root whose lists are counted."""
    if resolve_folder(root, Count.name).manifest() is None:
        return {}
    found: dict[str, tuple[int, int]] = {}
    for count in read_counts(Whole.open(root, Count.name)):
        rows, shards = found.get(count["source"], (0, 0))
        found[count["source"]] = rows + count["rows"], shards - (-count["rows"] // shard_size)
    return found


def _head(source: Any, shard_size: int) -> Head:
    """source: a SourceRecipe."""
    lists = Count(IngestRecipe(sources=(source,), shard_size=shard_size)).lists
    files = [file for _, file in lists]
    if files[0].suffix == ".parquet":
        return _head_of_parquet(files, source.prefilter.given(), shard_size)
    if source.preset not in OF_LINES:
        return Head(lists=len(files))
    return _head_of_lines([(file.paths[0], file.sizes[0]) for file in files], shard_size)


def _head_of_lines(files: list[tuple[str, int]], shard_size: int) -> Head:
    """Rows of all files at the first one's bytes a line."""
    path, size = files[0]
    stored, text = _start_of(path)
    lines = text.count(b"\n") + (stored >= size and not text.endswith(b"\n"))
    origin = f"the first {stored:,} bytes of {path.rpartition('/')[2]}"
    per_byte = lines / stored
    rows = measured(sum(n * per_byte for _, n in files), origin)
    shards = measured(sum(-(-n * per_byte // shard_size) for _, n in files), origin)
    return Head(rows, shards, len(files), _largest_host(Counter(HOST.findall(text.lower())), origin))


def _start_of(path: str) -> tuple[int, bytes]:
    """Bytes as stored, and as text, of a list's first MiBs, cut after a line where it goes on."""
    with _opened(path) as file:
        data = file.read(HEAD_BYTES)
    text = zlib.decompressobj(wbits=31).decompress(data) if path.endswith(".gz") else data
    return len(data), text


def _head_of_parquet(files: list[Any], bounds: Mapping[str, float], shard_size: int) -> Head:
    """files: ListFiles."""
    rows = [_num_rows(file.paths[0]) for file in files]
    sampled = files[:: max(1, len(files) // SAMPLE_FILES)][:SAMPLE_FILES]
    hosts: Counter[bytes] = Counter()
    seen = passed = 0
    for file in sampled:
        head = _first_rows(file, {"url", *(bound.partition("_")[2] for bound in bounds)})
        hosts.update(match[1] for url in head["url"].to_pylist() if (match := HOST.match((url or "").lower().encode())))
        seen += head.num_rows
        passed += pc.sum(_within(head, bounds)).as_py() or 0
    origin = f"the first {seen:,} rows of {len(sampled)} files"
    return Head(
        Figure(sum(rows)),
        Figure(sum(-(-n // shard_size) for n in rows)),
        len(files),
        _largest_host(hosts, origin),
        measured(passed / seen, origin) if bounds and passed else None,
    )


def _num_rows(path: str) -> int:
    with _opened(path) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _first_rows(file: Any, wanted: set[str]) -> pa.Table:
    """Columns by the names of their fields."""
    columns = {field: column for field, column in file.columns.items() if field in wanted}
    with _opened(file.paths[0]) as stream:
        parquet = pq.ParquetFile(stream)
        first = next(parquet.iter_batches(SAMPLE_ROWS, columns=list(set(columns.values()))), None)
        if first is None:
            first = parquet.schema_arrow.empty_table()
    return pa.table({field: first.column(column) for field, column in columns.items()})


def _within(rows: pa.Table, bounds: Mapping[str, float]) -> pa.ChunkedArray:
    """Which rows the prefilter keeps: a value on the bound, and a row without one, too."""
    kept = pa.chunked_array([pa.repeat(pa.scalar(value=True), rows.num_rows)])
    for bound, value in bounds.items():
        side, _, field = bound.partition("_")
        numbers = rows[field].cast(pa.float64())
        out = pc.less(numbers, value) if side == "min" else pc.greater(numbers, value)
        kept = pc.and_(kept, pc.invert(pc.fill_null(out, fill_value=False)))
    return kept


def _largest_host(hosts: Counter[bytes], origin: str) -> Figure | None:
    """Its share."""
    if not hosts:
        return None
    ((host, urls),) = hosts.most_common(1)
    return measured(urls / hosts.total(), f"{host.decode('ascii', 'replace')} in {origin}")


def _rounded_up(number: Figure) -> Figure:
    return Figure(-(-number.value // 1), number.basis, number.origin)


def _is_here(patterns: Sequence[str], *, rows_stated: bool) -> bool:
    """Whether this machine has the list; a part of it will do only where it must."""
    found = [_exists(pattern) for pattern in patterns]
    return all(found) if rows_stated else any(found)


def _exists(pattern: str) -> bool:
    import fsspec

    fs, inner = fsspec.core.url_to_fs(pattern)
    return bool(fs.isfile(inner) or fs.glob(inner))


def _opened(path: str) -> Any:
    import fsspec

    return fsspec.open(path, "rb")
