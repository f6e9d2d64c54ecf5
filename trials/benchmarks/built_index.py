"""An index over drawn vectors, built by the stages on Ray, and where its files lie.

The corpora are kept in FOLDER, because drawing them takes minutes; everything that is measured is made anew.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Base, Run, executor_for
from stages.index import Database, IndexRecipe, index_stages
from stages.index.index_file import IndexFile
from stages.index.report import draw_queries
from stages.index.size import IndexBytes, index_bytes
from stages.index.vectors import Ids
from trials.benchmarks.vector_corpus import VectorCorpus

FOLDER = Path("runs/benchmark-index")
WIDTH = 512
BATCH = 2000  # queries


@dataclass(frozen=True)
class Built:
    rows: int
    root: str
    seconds: Mapping[str, float]  # wall clock, by stage
    index: IndexFile
    queries: Path  # vectors of held-out rows


def build(rows: int, root: Path, factory: str) -> Built:
    """The corpus is taken from FOLDER; training, encoding and serving shards are timed as one run on Ray."""
    drawn, base = VectorCorpus(rows, WIDTH), str(FOLDER / str(rows))
    assert Run(base, [drawn]).execute(LocalExecutor()).exit_code == 0
    stages = index_stages(IndexRecipe(factory=factory, min_recall=None))
    seconds = {}
    for name, some in (("build", stages[:-2]), ("report", stages)):
        started = time.perf_counter()
        report = Run(str(root), [drawn, *some], Base(root=base)).execute(executor_for("ray"))
        assert report.exit_code == 0, report
        seconds[name] = time.perf_counter() - started
    database = Database.of_index(str(root))
    assert database.index is not None
    queries = root / "queries.npy"
    np.save(queries, database.vectors().gather(held_out(root, rows, BATCH)))
    return Built(rows, str(root), seconds, database.index, queries)


def held_out(root: Path | str, rows: int, count: int) -> Ids:
    sample = Whole.open(str(root), "index_train").read("000000").array("sample")
    return draw_queries(rows, sample, None, count, seed=1)


def sized(index: IndexFile, rows: int) -> IndexBytes:
    shards = sum(len(part.ranges) for part in index.serving)
    return index_bytes(index.factory, WIDTH, rows, shards)


def serving_files(built: Built) -> list[Path]:
    whole = Whole.open(built.root, "index")
    return [whole.read(shard).path("serving") for shard in whole.shards]


def vector_files(built: Built) -> list[Path]:
    corpus = Whole.open(built.root, "corpus")
    return [corpus.read(shard).path("img_emb") for shard in corpus.shards]
