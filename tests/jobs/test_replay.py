"""Part of the CC3M validation list against the recorded answer of every url: each row ends as its record says."""

import gzip
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.executor import LocalExecutor
from pipeline.ray_executor import RayExecutor
from pipeline.reasons import Reason
from pipeline.run import Run
from stages.download import Download, DownloadRecipe
from stages.ingest import IngestRecipe, ingest_stages
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
    assert Run(str(tmp_path), [*ingest_stages(ingest), Download(download)]).execute(LocalExecutor()).exit_code == 0
    with gzip.open(real_data / "cc3m" / "val_index.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = {f"cc3m-{record['row']:010d}": record for record in map(json.loads, lines) if record["row"] < ROWS}
    found = pl.read_parquet(tmp_path / "download" / "data" / "*.parquet").select("key", "reason").rows()
    assert len(found) == ROWS
    assert [(key, reason) for key, reason in found if reason not in expected(records[key])] == []


class Crowd(ThreadingHTTPServer):
    """Knows how many requests it answers at once to each host that it stands for, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Crowd

    def do_GET(self) -> None:
        host = self.headers["Host"]
        with self.server.lock:
            self.server.now[host] += 1
            self.server.most[host] = max(self.server.most[host], self.server.now[host])
        time.sleep(0.03)
        with self.server.lock:
            self.server.now[host] -= 1
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_no_host_of_the_list_has_more_requests_at_once_than_its_limit_over_all_shards(
    real_data: Path, tmp_path: Path
) -> None:
    with gzip.open(real_data / "cc3m" / "val_index.jsonl.gz", "rt", encoding="utf-8") as lines:
        urls = [json.loads(line)["url"].replace("https://", "http://") for line in islice(lines, 2400)]
    (tmp_path / "urls.tsv").write_text("".join(f"a caption\t{url}\n" for url in urls))
    source = {"name": "cc3m", "preset": "cc3m", "files": [str(tmp_path / "urls.tsv")]}
    ingest = IngestRecipe.model_validate({"shard_size": 400, "sources": [source]})
    with Crowd() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        download = DownloadRecipe(
            connect_to=f"127.0.0.1:{server.server_address[1]}", connections_per_host=2, workers=2, min_success=0
        )
        stages = [*ingest_stages(ingest), Download(download)]
        assert Run(str(tmp_path / "root"), stages).execute(RayExecutor()).exit_code == 0
        server.shutdown()
    assert len(server.most) > 400
    assert server.most.most_common(1)[0][1] == 2
