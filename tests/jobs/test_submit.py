"""The main job as people run it on a cluster: a real `ray start --head`, and `ray job submit` in both of its forms."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S = 90


@dataclass(frozen=True)
class Head:
    address: str
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
        yield Head(address, environment)
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


@pytest.mark.timeout(600)
def test_the_demo_runs_as_a_submitted_job_in_both_forms(head: Head, tmp_path: Path) -> None:
    arguments = demo(tmp_path / "root")
    submitted = head.submit("--", "python", "jobs/build_index.py", *arguments)
    assert submitted.returncode == 0, submitted.stdout[-3000:]
    kept = pl.read_parquet(tmp_path / "root" / "corpus" / "data" / "metadata" / "*.parquet").height
    assert kept > 50
    records = {path: path.read_bytes() for path in (tmp_path / "root").glob("*/commits/*.json")}
    bare = head.submit("jobs/build_index.py", *arguments)
    assert bare.returncode == 0, bare.stdout[-3000:]
    assert {path: path.read_bytes() for path in (tmp_path / "root").glob("*/commits/*.json")} == records


def test_a_failing_driver_fails_the_submission_and_says_why(head: Head) -> None:
    failed = head.submit("--", "python", "jobs/build_index.py", "jobs/recipes/demo.yaml", "filter.min_clipscore=1")
    assert failed.returncode != 0
    assert "min_clipscore is not a setting" in failed.stdout


def test_a_relative_root_is_refused_on_a_cluster(head: Head) -> None:
    failed = head.submit("--", "python", "jobs/build_index.py", "jobs/recipes/demo.yaml", "root=runs/somewhere")
    assert failed.returncode != 0
    assert "is relative" in failed.stdout
