"""Reader of parquet lists. A mark is a row number: row groups before it are skipped, and other columns."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from pipeline.errors import InputError
from stages.ingest.lists import ListFile, open_list
from stages.ingest.readers import Reader, require_columns
from stages.ingest.records import NUMBERS, Fault, Mark, Raw, number

BATCH_ROWS = 4096
READ_BYTES = 1 << 20  # of a column


class Parquet(Reader):
    def check(self, file: ListFile) -> None:
        with _opened(file) as parquet:
            schema = parquet.schema_arrow
        require_columns(schema.names, file)
        for field, column in _present(file, schema).items():
            found, wanted = schema.field(column).type, "numbers" if field in NUMBERS else "text"
            if not (_numeric(found) if field in NUMBERS else _textual(found)):
                raise InputError(f"{file.name}: column {column} should be {wanted} ({field}), but is {found}")

    def rows(self, file: ListFile, start: Mark | None = None) -> Iterator[tuple[Mark, Raw | Fault]]:
        first = start[0] if start else 0
        with _opened(file) as parquet:
            columns = _present(file, parquet.schema_arrow)
            groups, at = _groups_from(parquet.metadata, first)
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(set(columns.values()))):
                wanted = batch.slice(max(0, first - at))
                at += batch.num_rows
                for row, raw in enumerate(_raws(wanted, columns), at - wanted.num_rows):
                    yield [row], raw

    def count(self, file: ListFile, every: int) -> tuple[int, list[Mark]]:
        with _opened(file) as parquet:
            rows = parquet.metadata.num_rows
        return rows, [[row] for row in range(0, rows, every)]


@contextmanager
def _opened(file: ListFile) -> Iterator[pq.ParquetFile]:
    with open_list(file.paths[0]) as stream:
        try:
            # Either default would hold a column's chunk of a row group whole, and that may be most of a file.
            yield pq.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BYTES)
        except pa.ArrowInvalid as error:
            raise InputError(f"{file.name} cannot be read as parquet: {str(error)[:120]}") from None


def _groups_from(metadata: pq.FileMetaData, first: int) -> tuple[list[int], int]:
    """The row groups from the one that holds row `first`, and the number of that group's first row."""
    at = 0
    for group in range(metadata.num_row_groups):
        if at + metadata.row_group(group).num_rows > first:
            return list(range(group, metadata.num_row_groups)), at
        at += metadata.row_group(group).num_rows
    return [], at


def _present(file: ListFile, schema: pa.Schema) -> dict[str, str]:
    return {field: column for field, column in file.columns.items() if column in schema.names}


def _raws(batch: pa.RecordBatch, columns: dict[str, str]) -> Iterator[Raw]:
    # Text as bytes: parquet does not promise that its strings are UTF-8.
    caption, url = (batch.column(columns[field]).cast(pa.large_binary()).to_pylist() for field in ("caption", "url"))
    numbers = {field: batch.column(column).to_pylist() for field, column in columns.items() if field in NUMBERS}
    for row in range(batch.num_rows):
        yield Raw(caption[row], url[row], numbers={field: number(values[row]) for field, values in numbers.items()})


def _numeric(found: pa.DataType) -> bool:
    return bool(types.is_integer(found) or types.is_floating(found) or types.is_decimal(found))


def _textual(found: pa.DataType) -> bool:
    inner = found.value_type if types.is_dictionary(found) else found
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(kind(inner) for kind in kinds)
