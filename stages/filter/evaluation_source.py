"""A set of pictures that a model is to be measured on, as the recipe names it: a folder of picture files, or a parquet
of perceptual hashes and embeddings (`phash` uint64, `embedding` list of float, and `name`, if they have any)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.checksums import sha256_of_file, sha256_of_json
from pipeline.errors import InputError
from pipeline.folders import files_below
from pipeline.parquet import read_table


@dataclass(frozen=True)
class EvaluationSet:
    name: str
    path: Path
    checksum: str  # of the contents, and of the names below the folder; where it lies does not count
    width: int | None  # of a parquet's embeddings; None: a folder

    @classmethod
    def of(cls, name: str, path: Path) -> "EvaluationSet":
        """Raises InputError where there is no such set, or nothing in it."""
        where = f"filter.evaluation_sets.{name}: {path}"
        if path.is_dir():
            checksums = {str(file.relative_to(path)): sha256_of_file(file) for file in files_below(path)}
            if not checksums:
                raise InputError(f"{where} holds no file")
            return cls(name, path, sha256_of_json(checksums), None)
        if not path.is_file():
            raise InputError(f"{where} is neither a folder of pictures nor a parquet of phash and embedding")
        return cls(name, path, sha256_of_file(path), _width(path, where))

    def table(self) -> tuple[pa.Table, npt.NDArray[np.float32]]:
        """Of a parquet: name and phash of its pictures, and their embeddings (n, width), of norm 1."""
        with self.path.open("rb") as file:
            rows = read_table(file)
        values = _flat(rows["embedding"]).to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
        vectors = values / np.linalg.norm(values, axis=1, keepdims=True)
        names = rows["name"] if "name" in rows.column_names else pa.array([f"row {n}" for n in range(rows.num_rows)])
        return pa.table({"name": names, "phash": rows["phash"]}), vectors


def _width(path: Path, where: str) -> int:
    """Raises InputError where the file is not what the module says."""
    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise InputError(f"{where} is no parquet file: {error}") from None
    found = {name: str(schema.field(name).type) for name in ("phash", "embedding") if name in schema.names}
    if found.get("phash") != "uint64" or "list<" not in found.get("embedding", ""):
        raise InputError(f"{where} should have columns phash (uint64) and embedding (list of float), found {found}")
    with path.open("rb") as file:
        rows = read_table(file, ["phash", "embedding"])
    if not rows.num_rows:
        raise InputError(f"{where} has no row")
    widths = pc.unique(pc.list_value_length(rows["embedding"])).to_pylist()
    if len(widths) != 1 or not widths[0] or rows["phash"].null_count or not np.isfinite(_flat(rows["embedding"])).all():
        raise InputError(f"{where}: every row needs a phash and an embedding of one width, found widths {widths[:5]}")
    return int(widths[0])


def _flat(embeddings: pa.ChunkedArray) -> pa.Array:
    return pc.list_flatten(embeddings).cast(pa.float32()).combine_chunks()
