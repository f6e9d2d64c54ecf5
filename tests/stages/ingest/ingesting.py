"""Runs both stages of ingest in this process and gathers what they wrote; writes a list in the form of each preset."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import CommitRecord, Whole
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Run
from pipeline.stage import Stage
from stages.ingest import IngestRecipe, ingest_stages

Pairs = Sequence[tuple[str, str]]  # url, caption


@dataclass(frozen=True)
class Ingested:
    urls: list[dict[str, Any]]
    rejects: list[tuple[str, str, str]]  # pair_id, reason, detail
    records: list[CommitRecord]
    params: list[dict[str, Json]]
    counts: list[dict[str, Json]]
    identity: str

    @property
    def reasons(self) -> dict[str, str]:
        return {pair_id: reason for pair_id, reason, _ in self.rejects}


def recipe_of(*sources: Mapping[str, Json], **settings: Json) -> IngestRecipe:
    """Every row is kept, unless told: most tests are about one row."""
    given = {"sources": [dict(source) for source in sources], "duplicates": "keep", **settings}
    return IngestRecipe.model_validate(given)


def ingest(root: Path, *sources: Mapping[str, Json], **settings: Json) -> Ingested:
    return ingest_by(root, ingest_stages(recipe_of(*sources, **settings)))


def ingest_by(root: Path, stages: Sequence[Stage[Any]]) -> Ingested:
    report = Run(str(root), stages).execute(LocalExecutor())
    assert report.exit_code == 0, report.failed
    count, rows = Whole.open(str(root), "ingest_count"), Whole.open(str(root), "ingest_rows")
    shards = [rows.read(shard) for shard in rows.shards]
    return Ingested(
        urls=[row for shard in shards for row in shard.table("urls").to_pylist()],
        rejects=[row for shard in shards for row in _rejects(root, shard.record)],
        records=[shard.record for shard in shards],
        params=[params for _, params in rows.plan().shards],
        counts=[json.loads(count.read(shard).path("count").read_text(encoding="utf-8")) for shard in count.shards],
        identity=rows.identity,
    )


def _rejects(root: Path, record: CommitRecord) -> list[tuple[str, str, str]]:
    if record.rejects_file is None:
        return []
    rows = pq.read_table(root / record.stage / record.rejects_file.path).to_pylist()
    return [(row["pair_id"], row["reason"], row["detail"]) for row in rows]


def write_text(path: Path, data: str | bytes) -> str:
    content = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def write_json(path: Path, value: Json) -> str:
    return write_text(path, json.dumps(value))


def write_parquet(path: Path, columns: Mapping[str, Any], row_group_size: int | None = None) -> str:
    pq.write_table(pa.table(dict(columns)), path, row_group_size=row_group_size)
    return str(path)


def write_tar(path: Path, files: Sequence[tuple[str, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def tsv(pairs: Pairs, *, caption_first: bool = True) -> str:
    return "".join(f"{caption}\t{url}\n" if caption_first else f"{url}\t{caption}\n" for url, caption in pairs)
