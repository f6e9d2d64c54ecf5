"""Part of the CC3M validation list against the recorded answer of every url: each row ends as its record says."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.executor import LocalExecutor
from pipeline.reasons import Reason
from pipeline.run import Run
from stages.download import Download, DownloadRecipe
from stages.ingest import Count, IngestRecipe, Rows
from tests.ports import free_ports

ROWS = 1200


@pytest.fixture(scope="module")
def server(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """host:port, and the list as it is, of true hosts."""
    tool = real_data.parent / "tools" / "serve_bodies.py"
    if not tool.is_file():
        pytest.skip(f"no replay server at {tool}")
    (port,) = free_ports(1)
    command = [sys.executable, str(tool), "--data", str(real_data), "--port", str(port)]
    urls = tmp_path_factory.mktemp("replay") / "urls.tsv"
    subprocess.run([*command, "--true-hosts", "--rows", str(ROWS), "--write-tsv", str(urls)], check=True)
    with subprocess.Popen([*command, "--hang", "0.5"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        yield f"127.0.0.1:{port}", urls
        process.kill()


def expected(record: dict[str, Any]) -> set[str | None]:
    status, mime = record["status"], record["mime"] or ""
    if status == 408:  # the recorded crawler's own time limit: the server keeps silent, then hangs up
        return {Reason.CONNECTION.value, Reason.DEADLINE.value}
    if status != 200:
        of_class = {2: Reason.HTTP_UNEXPECTED, 4: Reason.HTTP_CLIENT_ERROR, 5: Reason.HTTP_SERVER_ERROR}
        return {of_class[status // 100]}
    if "noindex" in record["headers"].get("X-Robots-Tag", ""):
        return {Reason.OPTED_OUT}
    if mime == "inode/x-empty":
        return {Reason.EMPTY_BODY}
    if not mime.startswith("image/"):
        return {Reason.NOT_AN_IMAGE}
    return {Reason.ANIMATED if mime == "image/gif" else None}


def test_every_row_ends_as_recorded(server: tuple[str, Path], real_data: Path, tmp_path: Path) -> None:
    endpoint, urls = server
    sources = [{"name": "cc3m", "preset": "cc3m", "files": [str(urls)]}]
    ingest = IngestRecipe.model_validate({"shard_size": 400, "sources": sources})
    download = DownloadRecipe(deadline_s=4, backoff_s=0.1, connect_to=endpoint)
    assert Run(str(tmp_path), [Count(ingest), Rows(ingest), Download(download)]).execute(LocalExecutor()).exit_code == 0
    with gzip.open(real_data / "cc3m" / "val_index.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = {f"cc3m-{record['row']:010d}": record for record in map(json.loads, lines) if record["row"] < ROWS}
    found = pl.read_parquet(tmp_path / "download" / "data" / "*.parquet").select("key", "reason").rows()
    assert len(found) == ROWS
    assert [(key, reason) for key, reason in found if reason not in expected(records[key])] == []
