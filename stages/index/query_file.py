"""Queries as vectors in a file, read block by block: .npy (n, D), or parquet with a column of lists of floats.

Shapes: n vectors of a block, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from stages.index.serving import Scores

BLOCK = 256  # vectors that are read, and searched, at once
VECTOR, ID = ("vector", "embedding"), "id"
NORM_SLACK = 0.01  # rounding to float16 takes less than a tenth of it

Block = tuple[Sequence[str | int] | None, npt.NDArray[Any]]  # ids, where the file has some, and vectors


@dataclass(frozen=True)
class Queries:
    """names (n): what a person calls a query: its text, its id, or its place among all. vectors (n, D), of norm 1."""

    names: Sequence[str | int]
    vectors: Scores


def read_queries(path: Path, width: int) -> Iterator[Queries]:
    """Raises InputError where the file cannot be read, and where a vector is not `width` wide, finite and of norm 1;
    the blocks before that one are handed out."""
    kinds = {".npy": _npy_blocks, ".parquet": _parquet_blocks}
    if path.suffix not in kinds:
        raise InputError(f"{path}: vectors are read from .npy and .parquet files")
    first = 0
    try:
        for names, vectors in kinds[path.suffix](path, width):
            yield Queries(names or range(first, first + len(vectors)), _checked(path, vectors, first))
            first += len(vectors)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _npy_blocks(path: Path, width: int) -> Iterator[Block]:
    try:
        vectors = np.lib.format.open_memmap(path, mode="r")  # np.load takes other formats by the same name too
    except ValueError as error:
        raise InputError(f"{path} is no .npy file of numbers: {error}") from None
    floats = vectors.dtype.kind == "f" and vectors.dtype.itemsize <= 8
    if vectors.ndim != 2 or vectors.shape[1] != width or not floats:
        raise InputError(
            f"{path} holds {vectors.dtype} of shape {vectors.shape}, and should hold floats of shape (n, {width})"
        )
    for first in range(0, len(vectors), BLOCK):
        yield None, vectors[first : first + BLOCK]


def _parquet_blocks(path: Path, width: int) -> Iterator[Block]:
    with pq.ParquetFile(path) as file:
        column, has_ids = _vector_column(path, file.schema_arrow), _has_ids(path, file.schema_arrow)
        first = 0
        for batch in file.iter_batches(BLOCK, columns=[column, *([ID] if has_ids else [])], use_threads=False):
            yield batch[ID].to_pylist() if has_ids else None, _matrix(path, batch[column], width, first)
            first += len(batch)


def _vector_column(path: Path, schema: pa.Schema) -> str:
    found: list[str] = [name for name in schema.names if name in VECTOR]
    if len(found) != 1:
        raise InputError(
            f"{path} has the columns {', '.join(schema.names)}; vectors should be in one called {' or '.join(VECTOR)}"
        )
    kind = schema.field(found[0]).type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{path}: column {found[0]} holds {kind}, and should hold lists of floats")
    return found[0]


def _has_ids(path: Path, schema: pa.Schema) -> bool:
    if ID not in schema.names:
        return False
    kind = schema.field(ID).type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"{path}: column {ID} holds {kind}, and should hold strings or integers")
    return True


def _matrix(path: Path, lists: pa.Array, width: int, first: int) -> npt.NDArray[Any]:
    """(n, D). A missing value comes out as not a number, a missing list as one that is 0 wide."""
    widths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    wrong = np.flatnonzero(widths != width)
    if wrong.size:
        raise InputError(f"{path}: vector {first + wrong[0]} is {widths[wrong[0]]} wide, and the index is {width} wide")
    values: npt.NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return values


def _checked(path: Path, vectors: npt.NDArray[Any], first: int) -> Scores:
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    wrong = np.flatnonzero(~(abs(norms - 1) <= NORM_SLACK))
    if wrong.size:
        norm = norms[wrong[0]]
        found = f"has norm {norm:.4g}" if np.isfinite(norm) else "holds values that are not finite"
        raise InputError(f"{path}: vector {first + wrong[0]} {found}; vectors should be finite and of norm 1")
    return vectors.astype(np.float32)
