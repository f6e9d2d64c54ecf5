"""What mining takes of memory as the pairs grow, with their vectors and keys memory-mapped from a corpus' files.

A size is measured in a fresh process:    python -m trials.benchmarks.interleave_memory CORPUS KEYS QUERIES
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.threads import set_threads
from stages.interleave.corpora import Corpora, InterleaveKeys
from stages.interleave.pairs import Pairs
from stages.interleave.recipe import InterleaveRecipe
from trials.benchmarks.interleave_vectors import BLOCK, SHAPES
from trials.benchmarks.vector_corpus import SHARD_ROWS, DrawnCorpus, Half

Line = tuple[str, str]
MATRICES = 2 * 2 * 512  # bytes a row, of images and captions


@dataclass(frozen=True)
class PairCorpus(DrawnCorpus):
    """Pairs with so dense a band."""

    density: float

    def drawn(self, first: int) -> tuple[Half, Half]:
        blocks = islice(SHAPES[self.density].blocks(self.rows, first=first), SHARD_ROWS // BLOCK)
        images, captions = map(np.concatenate, zip(*blocks, strict=True))
        return images, captions


@dataclass(frozen=True)
class Memory:
    """Bytes that a process holds: of its own, and of the files that it has mapped and read, once a mapping."""

    own: int
    mapped: int

    @classmethod
    def now(cls) -> "Memory":
        told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        return cls(*(1024 * int(told[name].split()[0]) for name in ("RssAnon", "RssFile")))


def memory(sizes: Sequence[int], density: float, queries: int) -> Iterator[Line]:
    """sizes: of corpora, in rows. Of a process' own bytes those count that it takes after its libraries are loaded;
    mapped files are apart, for the kernel takes their pages back when it needs them."""
    grown = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            before, peak = _in_a_fresh_process(*_made(rows, density, Path(folder)), queries)
        grown.append(peak.own - before.own)
        own = f"{grown[-1] / 1e6:,.0f} MB beyond the {before.own / 1e6:,.0f} MB of its libraries"
        mapped = f"{peak.mapped / 1e6:,.0f} MB, of which the two matrices are {rows * MATRICES / 1e6:,.0f} MB"
        yield f"{rows:,} rows, {queries:,} queries: highest memory of its own", own
        yield f"{rows:,} rows, {queries:,} queries: files mapped at the highest", mapped
    yield "own memory: highest to lowest of the sizes", f"{max(grown) / min(grown):.2f} (target ≤ 1.3)"


def _made(rows: int, density: float, folder: Path) -> tuple[str, str]:
    """Roots of the corpus and of its keys."""
    corpus, keys = str(folder / "corpus"), str(folder / "keys")
    for root, stage in ((corpus, PairCorpus(rows, density)), (keys, InterleaveKeys(Corpora.of([corpus]).inputs))):
        assert Run(root, [stage]).execute(LocalExecutor()).exit_code == 0
    return corpus, keys


def _in_a_fresh_process(corpus: str, keys: str, queries: int) -> tuple[Memory, Memory]:
    command = [sys.executable, "-m", "trials.benchmarks.interleave_memory", corpus, keys, str(queries)]
    said = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    return Memory(**said["before"]), Memory(**said["peak"])


def measured(corpus: str, keys: str, queries: int) -> tuple[Memory, Memory]:
    """With its libraries loaded, and at the highest while it mines."""
    from stages.interleave.engines import open_sweep

    def mine() -> None:
        pairs = Pairs.open([Whole.open(corpus, "corpus")], Whole.open(keys, "interleave_keys"), ())
        open_sweep(pairs, InterleaveRecipe(device="cpu"), "image").mine(pairs.queries(np.arange(queries)))

    set_threads(1)
    before = Memory.now()
    peaks = [before]
    with ThreadPoolExecutor(1) as pool:
        mining = pool.submit(mine)
        while not mining.done():
            peaks.append(Memory.now())
            time.sleep(0.01)
    mining.result()
    return before, Memory(max(peak.own for peak in peaks), max(peak.mapped for peak in peaks))


if __name__ == "__main__":
    before, peak = measured(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stdout.write(json.dumps({"before": asdict(before), "peak": asdict(peak)}) + "\n")
