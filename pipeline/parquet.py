"""Parquet read in the calling thread."""

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


def read_table(file: BinaryIO, columns: Sequence[str] | None = None) -> pa.Table:
    """Of a file of Python's own.

    pq.read_table leaves buffers of such a file to threads of its own, which give them back later. Where the interpreter
    ends meanwhile, the process aborts ("terminate called without an active exception"; in about 1 of 150 short runs).
    """
    return pq.ParquetFile(file, pre_buffer=False).read(None if columns is None else list(columns), use_threads=False)
