"""What has to be measured in a process of its own: memory, latencies with one thread, and FAISS as it comes.

python -m trials.benchmarks.fresh_process WHAT ARGUMENT…    prints one JSON object
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.threads import set_threads

K = 2


def measured(
    what: str, *arguments: object, python: str = sys.executable, threads: int = 1, limit_s: float = 7200
) -> Any:
    """Raises subprocess.TimeoutExpired or CalledProcessError."""
    command = [python, "-m", __name__, what, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(*paths: str) -> Any:
    """Bytes that reading serving files (not memory-mapped) adds to what the process holds."""
    import faiss

    before = _anonymous_bytes()
    indexes = [faiss.read_index(path) for path in paths]
    return {"bytes": _anonymous_bytes() - before, "rows": sum(index.ntotal for index in indexes)}


def mapped(root: str, queries: str) -> Any:
    """Bytes of its own that a process holds that serves memory-mapped, after some queries."""
    from stages.index import Retriever

    Retriever(root).search(np.load(queries)[:1].astype(np.float32), K)
    before = _anonymous_bytes()
    retriever = Retriever(root)
    opened = _anonymous_bytes()
    retriever.search(np.load(queries)[:100].astype(np.float32), K)
    return {"opened": opened - before, "after": _anonymous_bytes() - before}


def latency(root: str, queries: str, count: str) -> Any:
    """Milliseconds of single queries, vector in, re-ranked ids out. The first ones meet a cold cache, if it is."""
    from stages.index import Retriever

    set_threads(1)
    retriever = Retriever(root)
    took = []
    for vector in np.load(queries).astype(np.float32)[: int(count)]:
        started = time.perf_counter()
        retriever.search(vector[None], K)
        took.append(1000 * (time.perf_counter() - started))
    return {"ms": took}


def throughput(root: str, queries: str, start_at: str) -> Any:
    """Seconds that one thread needs for all queries in one batch; it begins at a time of day, so that several do. late:
    that time had passed before it was ready, and it may have run beside no other."""
    from stages.index import Retriever

    set_threads(1)
    retriever, vectors = Retriever(root), np.load(queries).astype(np.float32)
    retriever.search(vectors, K)  # warms up
    late = time.time() > float(start_at)
    time.sleep(max(float(start_at) - time.time(), 0))
    started = time.perf_counter()
    retriever.search(vectors, K)
    return {"seconds": time.perf_counter() - started, "late": late}


def plain_faiss(factory: str, vectors: str, sample: str, into: str) -> Any:
    """FAISS as it comes, in one process: train on the sample, add all, write. vectors: a folder of .npy files."""
    import faiss

    started = time.perf_counter()
    files = [np.load(path, mmap_mode="r") for path in sorted(Path(vectors).glob("*.npy"))]
    index = faiss.index_factory(files[0].shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(np.concatenate(_chosen(files, np.load(sample))).astype(np.float32))
    trained = time.perf_counter()
    for file in files:
        for first in range(0, len(file), 65_536):
            index.add(file[first : first + 65_536].astype(np.float32))
    faiss.write_index(index, into)
    return {"train": trained - started, "seconds": time.perf_counter() - started}


def shard(root: str, stage: str, number: str, into: str) -> Any:
    """Bytes of its own (without memory-mapped files) that a process holds at its highest that makes one shard of a
    finished stage again, into another folder."""
    from pipeline.commits import StageFolder
    from pipeline.stage import Shard
    from pipeline.writer import Job, make_shard
    from stages.index import IndexRecipe, index_stages

    made = next(made for made in index_stages(IndexRecipe()) if made.name == stage)
    plan = StageFolder(root, stage).plan()
    assert plan is not None
    sources = {source.key: StageFolder(root, source.stage) for source in made.inputs}
    job = Job(made, StageFolder(into, stage), sources, plan.fingerprint, plan.resolved)
    name, params = plan.shards[int(number)]
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make_shard, job, Shard(name, params), None)
        peak = 0
        while not making.done():
            peak = max(peak, _anonymous_bytes())
            time.sleep(0.01)
    return {"bytes": peak, "rows": making.result().rows_out}


def forget(paths: Sequence[Path]) -> None:
    """Drop files from the page cache, as far as no process has them mapped."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _chosen(files: Sequence[Any], rows: Any) -> list[Any]:
    starts = np.cumsum([0, *map(len, files)])
    bounds = np.searchsorted(rows, starts)
    return [file[rows[a:b] - first] for file, first, a, b in zip(files, starts, bounds, bounds[1:], strict=False)]


def _anonymous_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


PARTS: dict[str, Callable[..., Any]] = {
    part.__name__: part for part in (memory, mapped, latency, throughput, plain_faiss, shard)
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))  # noqa: T201
