"""The index at two sizes: what it takes, what it finds, how fast it answers and is built, beside FAISS and autofaiss.

Vectors are synthetic, with CLIP's statistics (vectors.py).
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.commits import Whole
from stages.index import IndexRecipe
from stages.index.factory import choose
from stages.index.size import index_bytes
from trials.benchmarks.built_index import BATCH, WIDTH, Built, build, serving_files, sized, vector_files
from trials.benchmarks.fresh_process import forget, measured
from trials.benchmarks.index_rivals import beside_autofaiss, beside_faiss

SIZES = (1_000_000, 5_000_000)
COYO_AND_CCS, PAPERS_BYTES = 119_000_000, 241e9  # rows, and what their index takes: Re-ViLM §4.3
SINGLE_QUERIES, COLD = 1000, 50
PROBES_MODELLED = (128, 256, 512)
REPETITIONS = 3
Line = tuple[str, str]


def index(sizes: Sequence[int] = SIZES, factory: str = "auto") -> Iterator[Line]:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        made = []
        for rows in sizes:
            built = build(rows, Path(folder, str(rows)), factory)
            made.append(built)
            for part in (found, resident, latencies, throughputs, beside_faiss, beside_autofaiss, peaks):
                for what, figure in part(built):
                    yield f"{rows:,}: {what}", figure
        yield from grown(made)


def found(built: Built) -> Iterator[Line]:
    """As the build's own report says it, with 1,000 held-out queries of each direction."""
    shard = Whole.open(built.root, "index_report").read("000000")
    report = shard.table("report").to_pylist()
    yield "factory, serving shards", f"{built.index.factory}, {sum(len(part.ranges) for part in built.index.serving)}"
    for direction, tuned in built.index.tuned.items():
        yield f"{direction} → image, tuned to", f"nprobe {tuned.nprobe}, depth {tuned.depth}"
    for row in report:
        tuned = built.index.tuned[row["direction"]]
        here = row["nprobe"] == tuned.nprobe and row["depth"] in (None, tuned.depth)
        if here and row["k"] in (2, 10):
            depth = f"depth {row['depth']}" if row["depth"] else "codes alone"
            target = " (target ≥ 0.95)" if row["direction"] == "image" and row["k"] == 2 and row["depth"] else ""
            yield (
                f"{row['direction']} → image, recall@{row['k']}, {depth}",
                f"{row['recall']:.3f} ({row['low']:.3f}–{row['high']:.3f}){target}; coverage {row['coverage']:.3f}; "
                f"{row['codes_scanned']:,.0f} codes scanned",
            )


def resident(built: Built) -> Iterator[Line]:
    """Read into memory whole, and memory-mapped, each in a fresh process."""
    size = sized(built.index, built.rows)
    whole = measured("memory", *serving_files(built))
    codes = (whole["bytes"] - (size.total - size.codes)) / built.rows
    yield "codes and ids in memory", f"{codes:.1f} bytes a vector (target ≤ 76 for PQ64, ≤ 82 for RaBitQ)"
    yield "apart from them", f"{(size.total - size.codes) / 1e6:.1f} MB: centroids, their graph, tables, lists"
    yield "all, measured / by the formula", f"{whole['bytes'] / 1e6:.1f} / {size.total / 1e6:.1f} MB"
    mapped = measured("mapped", built.root, built.queries)
    yield "memory-mapped, private bytes", f"{mapped['after'] / built.rows:.2f} a vector"
    disk = sum(path.stat().st_size for path in serving_files(built))
    vectors = sum(path.stat().st_size for path in vector_files(built))
    yield "files that are memory-mapped", f"index {disk / 1e9:.2f} GB, vectors for re-ranking {vectors / 1e9:.2f} GB"


def latencies(built: Built) -> Iterator[Line]:
    """One thread, one query at a time; cold: the first ones of a process after its files left the page cache."""
    warm = measured("latency", built.root, built.queries, SINGLE_QUERIES)["ms"][COLD:]
    forget([*serving_files(built), *vector_files(built)])
    cold = measured("latency", built.root, built.queries, COLD)["ms"]
    p50, p99 = np.percentile(warm, [50, 99])
    yield "one query, one thread, warm", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (target: p50 ≤ 10, goal 5)"
    yield "the same, cold", f"p50 {np.percentile(cold, 50):.1f} ms, p99 {np.percentile(cold, 99):.1f} ms"


def throughputs(built: Built) -> Iterator[Line]:
    """A batch in one process with one thread, and the same in two at once."""
    ratios, rates = [], []
    for _ in range(REPETITIONS):
        alone = throughput_of(built, 1)
        ratios.append(throughput_of(built, 2) / alone)
        rates.append(alone)
    yield "batch, one process, one thread", f"{statistics.median(rates):,.0f} queries/s"
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    yield "two such processes / one", f"{statistics.median(ratios):.2f} (target ≥ 1.7; {told})"


def throughput_of(built: Built, processes: int, warm_up_s: float = 30) -> float:
    """Queries a second of all processes together; all begin at the same time, after their warming up."""
    start_at = time.time() + warm_up_s
    with ThreadPoolExecutor(processes) as pool:
        asked = [pool.submit(measured, "throughput", built.root, built.queries, start_at) for _ in range(processes)]
        done = [process.result() for process in asked]
    if any(process["late"] for process in done):
        return throughput_of(built, processes, 2 * warm_up_s)
    return math.fsum(BATCH / process["seconds"] for process in done)


def peaks(built: Built) -> Iterator[Line]:
    """Of a process that makes one shard, at its highest."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for stage in ("index_add", "index"):
            peak = measured("shard", built.root, stage, 0, folder, threads=2)
            yield f"peak memory of a process of {stage}", f"{peak['bytes'] / 1e6:,.0f} MB ({peak['rows']:,} rows)"


def grown(made: Sequence[Built]) -> Iterator[Line]:
    """From the smallest to the largest: growth of memory and of latency, and the models at the paper's size."""
    small, large = made[0], made[-1]
    sizes = [sized(built.index, built.rows).total for built in (small, large)]
    read = [measured("memory", *serving_files(built))["bytes"] for built in (small, large)]
    if large is not small:
        by_formula, by_measure = sizes[1] - sizes[0], read[1] - read[0]
        yield "growth of memory, formula / measured", f"{by_formula / by_measure:.3f} (target 0.98–1.02)"
        yield from latency_model(small, large)
    factory = choose(IndexRecipe(), COYO_AND_CCS, WIDTH).factory
    size = index_bytes(factory, WIDTH, COYO_AND_CCS)
    total = size.total
    yield (
        f"119 M rows as {factory} in {size.shards} serving shards, by the formula",
        f"{total / 1e9:.2f} GB (target ≤ 10), 1/{PAPERS_BYTES / total:.0f} of the paper's 241 GB",
    )


def latency_model(small: Built, large: Built) -> Iterator[Line]:
    """A line through both sizes, by the codes that a query scans; how many lists 119 M rows need is not known."""
    codes = [scanned(built) for built in (small, large)]
    took = [
        float(np.median(measured("latency", built.root, built.queries, SINGLE_QUERIES)["ms"]))
        for built in (small, large)
    ]
    per_code = (took[1] - took[0]) / (codes[1] - codes[0])
    yield "a code scanned, from both sizes", f"{1e6 * per_code:.0f} ns"
    tuned = large.index.tuned["image"]
    imbalance = codes[1] / (tuned.nprobe * large.rows / large.index.nlist)
    nlist = int(choose(IndexRecipe(), COYO_AND_CCS, WIDTH).nlist)
    for nprobe in PROBES_MODELLED:
        more = imbalance * nprobe * COYO_AND_CCS / nlist - codes[1]
        yield (
            f"119 M rows, {nlist:,} lists, nprobe {nprobe}, by that line",
            f"{took[1] + per_code * more:.1f} ms (the paper: 50)",
        )


def scanned(built: Built) -> float:
    """Codes that a query by a picture scans at the tuned number of probes."""
    return float(next(row["codes_scanned"] for row in built.index.recall if row["direction"] == "image"))
