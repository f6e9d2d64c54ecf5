"""The main job as people run it on a cluster: a real `ray start --head`, and `ray job submit` in both of its forms."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S = 90
SCRAPE_S = 30  # a process hands its numbers to its node every ten seconds


@dataclass(frozen=True)
class Head:
    address: str
    metrics: str  # the url that Prometheus scrapes
    environment: dict[str, str]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "ray"), "job", "submit", "--address", self.address, "--working-dir", ".", *entrypoint]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def tasks(self) -> dict[str, Any]:
        """Name → what Ray says of the tasks with that name: a line of `ray summary tasks`."""
        with urllib.request.urlopen(f"{self.address}/api/v0/tasks/summarize", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        summary: dict[str, Any] = found["node_id_to_summary"]["cluster"]["summary"]
        return summary

    def numbers(self, name: str) -> Counter[str]:
        """Stage → the sum over a metric's other labels."""
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        found: Counter[str] = Counter()
        for sample in (sample for family in families for sample in family.samples if sample.name == name):
            found[sample.labels["stage"]] += int(sample.value)
        return found


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Sockets' paths are limited to 107 characters, so the folder is short.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    # The head's own PATH decides which Python its jobs run.
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    options = [f"--{name}={port}" for name, port in ports.items()]
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait_until_up(address, process)
        yield Head(address, f"http://127.0.0.1:{ports['metrics-export-port']}/metrics", environment)
    finally:
        process.send_signal(signal.SIGTERM)  # a blocking `ray start` takes its own processes with it, and no others
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "ray start ended"
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(f"no dashboard after {START_S} s")


def demo(root: Path) -> list[str]:
    """The demo's recipe, made small."""
    return [
        "jobs/recipes/demo.yaml",
        f"root={root}",
        f"demo.folder={root}/lists",
        "demo.urls=200",
        f"demo.port={(port := free_ports(1)[0])}",
        f"download.allow=['127.0.0.1:{port}', '127.0.0.1:1']",
        "download.deadline_s=2",
        f"ingest.sources=[{{name: cc3m, preset: cc3m, files: ['{root}/lists/cc3m.tsv']}}]",
        "encoder.steps=2",
        "filter.defaults.min_clip_score=null",
        "index.min_recall=null",
    ]


@dataclass(frozen=True)
class Submitted:
    """The demo, made by a submitted job."""

    root: Path
    arguments: list[str]

    def records(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.root.glob("*/commits/*.json")}


@pytest.fixture(scope="module")
def submitted(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    root = tmp_path_factory.mktemp("submitted") / "root"
    job = head.submit("--", "python", "jobs/build_index.py", *(arguments := demo(root)))
    assert job.returncode == 0, job.stdout[-3000:]
    return Submitted(root, arguments)


@pytest.mark.timeout(600)
def test_the_demo_runs_as_a_submitted_job_in_both_forms(head: Head, submitted: Submitted) -> None:
    assert pl.read_parquet(submitted.root / "corpus" / "data" / "metadata" / "*.parquet").height > 50
    records = submitted.records()
    bare = head.submit("jobs/build_index.py", *submitted.arguments)
    assert bare.returncode == 0, bare.stdout[-3000:]
    assert submitted.records() == records


@pytest.mark.timeout(600)
def test_what_a_job_does_is_shown_by_stage(head: Head, submitted: Submitted) -> None:
    shards = Counter(path.parents[1].name for path in submitted.records())
    tasks = head.tasks()
    assert {stage: tasks[stage]["state_counts"] for stage in shards} == {s: {"FINISHED": n} for s, n in shards.items()}
    stats = {stage: pl.read_parquet(submitted.root / stage / "stats.parquet") for stage in shards}
    rows_in = Counter({stage: int(table["rows_in"].sum()) for stage, table in stats.items()})
    deadline = time.monotonic() + SCRAPE_S
    while head.numbers("ray_revilm_rows_in_total") != rows_in and time.monotonic() < deadline:
        time.sleep(0.5)
    assert head.numbers("ray_revilm_rows_in_total") == rows_in
    assert head.numbers("ray_revilm_rows_out_total") + head.numbers("ray_revilm_rejects_total") == rows_in
    assert head.numbers("ray_revilm_shards_total") == shards
    # A gauge may have gone with the driver that set it.
    assert set(head.numbers("ray_revilm_shards_in_flight").values()) <= {0}


def test_a_failing_driver_fails_the_submission_and_says_why(head: Head) -> None:
    failed = head.submit("--", "python", "jobs/build_index.py", "jobs/recipes/demo.yaml", "filter.min_clipscore=1")
    assert failed.returncode != 0
    assert "min_clipscore is not a setting" in failed.stdout


@pytest.mark.slow
def test_a_relative_root_is_refused_on_a_cluster(head: Head) -> None:
    failed = head.submit("--", "python", "jobs/build_index.py", "jobs/recipes/demo.yaml", "root=runs/somewhere")
    assert failed.returncode != 0
    assert "is relative" in failed.stdout
