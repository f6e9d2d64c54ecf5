"""The recorded crawl of the CC3M list, replayed on loopback, by our download stage and by img2dataset."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials.benchmarks.crawl_rival import THREADS, Crawl, NoRival, img2dataset, ours, rival_python

DATA = Path(os.environ.get("REVILM_DATA", "../shared/data"))
REPLAY = DATA.parent / "tools" / "serve_bodies.py"
ROWS, LATENCY_MS = 3000, 40
Line = tuple[str, str]


def crawl(rows: int = ROWS) -> Iterator[Line]:
    """Both with as many connections, and all hosts one, for img2dataset cannot be sent to another server than its urls
    name; then ours with the list's own hosts and their limits."""
    try:
        python = rival_python()
    except NoRival as fault:
        yield "beside img2dataset", f"not run: {fault}"
        return
    if not REPLAY.is_file():
        yield "replay of the CC3M crawl", f"not run: no {REPLAY} (REVILM_DATA)"
        return
    with tempfile.TemporaryDirectory(dir=".") as made, _replayed() as port:
        urls, true_urls = (_listed(Path(made), port, rows, options) for options in ([], ["--true-hosts"]))
        recipe = {"allow": [f"127.0.0.1:{port}"], "connections": THREADS, "connections_per_host": THREADS}
        yield _line("ours", ours(urls, Path(made, "ours"), recipe), rows)
        yield _line("img2dataset", img2dataset(python, urls, Path(made, "theirs"), {}, {}), rows)
        polite = {"connect_to": f"127.0.0.1:{port}", "connections": THREADS}
        yield _line("ours, 8 connections a host", ours(true_urls, Path(made, "polite"), polite), rows)


def _line(who: str, crawl: Crawl, rows: int) -> Line:
    told = f"{crawl.wall_s:.0f} s, {crawl.good / rows:.1%} of the rows stored, {crawl.cpu_s:.0f} s CPU"
    return f"{rows:,} rows of CC3M at {LATENCY_MS} ms, {THREADS} connections: {who}", told


def _listed(folder: Path, port: int, rows: int, options: list[str]) -> list[str]:
    command = [*_tool(port), "--write-tsv", str(folder / "list.tsv"), "--rows", str(rows), *options]
    subprocess.run(command, check=True)
    lines = (folder / "list.tsv").read_text(encoding="utf-8").splitlines()
    return [line.partition("\t")[2] for line in lines]


@contextmanager
def _replayed() -> Iterator[int]:
    """The server's port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    delays = ["--latency-ms", str(LATENCY_MS), "--jitter", "0.5", "--pad"]
    server = subprocess.Popen([*_tool(port), *delays], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None, "it is piped"
        server.stdout.readline()  # it listens
        yield port
    finally:
        server.terminate()
        server.wait()


def _tool(port: int) -> list[str]:
    return [sys.executable, str(REPLAY), "--data", str(DATA), "--port", str(port)]
