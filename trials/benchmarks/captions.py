"""The index over real vectors: captions of Flickr8k and CC3M by a small sentence encoder.

The five captions of a Flickr8k picture are true neighbours: how many of its four siblings a caption finds says what the
vectors are worth, and beside exact search what the index costs.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from stages.index import Database, IndexRecipe, Retriever, exact_search, index_stages
from stages.index.vectors import Ids
from trials.benchmarks.vector_corpus import GivenCorpus
from trials.benchmarks.vectors import caption_vectors

DATA = Path(os.environ.get("REVILM_DATA", "../shared/data"))
KEPT = Path("runs/benchmark-captions")
ASKING, K = 5000, 10
FLICKR, PER_PICTURE = 39_985, 5  # captions, in the order of their pictures
Line = tuple[str, str]


def captions() -> Iterator[Line]:
    try:
        vectors = caption_vectors(DATA, KEPT)
    except InputError as error:
        yield "skipped", str(error)
        return
    with tempfile.TemporaryDirectory(dir=".") as root:
        stages = [GivenCorpus(vectors), *index_stages(IndexRecipe(min_recall=None))]
        assert Run(root, stages).execute(LocalExecutor()).exit_code == 0
        retriever = Retriever(root)
        index, tuned = retriever.index, retriever.index.tuned["image"]
        yield "captions, width, factory", f"{len(vectors):,}, {retriever.width}, {index.factory}"
        for row in index.recall:
            if row["direction"] == "image" and row["k"] in (2, K):
                target = " (target ≥ 0.95)" if row["k"] == 2 else ""
                what = f"recall@{row['k']} at nprobe {tuned.nprobe}, depth {tuned.depth}"
                yield what, f"{row['recall']:.3f} ({row['low']:.3f}–{row['high']:.3f}){target}"
        asking = np.sort(np.random.default_rng(0).choice(FLICKR, ASKING, replace=False))
        itself = [np.array([row]) for row in asking]
        exact, _ = exact_search(Database.open(root).vectors(), vectors[asking], K, itself)
        found, _ = retriever.search(vectors[asking], K, exclude=itself)
        for name, ids in (("exact search", exact), ("the index", found)):
            share = siblings(asking, ids) / (PER_PICTURE - 1)
            yield f"siblings of {ASKING:,} Flickr8k captions among the first {K}, {name}", f"{share.mean():.4f}"


def siblings(asking: Ids, ids: Ids) -> Ids:
    """asking (Q,) rows, ids (Q, K) found → how many of these are captions of the same picture (Q,)."""
    same: Ids = ((ids // PER_PICTURE == asking[:, None] // PER_PICTURE) & (ids >= 0)).sum(axis=1)
    return same
