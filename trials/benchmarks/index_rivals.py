"""The same vectors indexed by FAISS as it comes, and by autofaiss in an environment of its own."""

import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.commits import Whole
from stages.index import Database
from stages.index.exact import exact_search, exact_similarity
from stages.index.index_file import ListRange
from stages.index.recall import recall_of_each
from stages.index.retriever import open_serving
from stages.index.serving import ServedLists, Serving, candidates
from trials.benchmarks.built_index import FOLDER, Built, held_out, sized, vector_files
from trials.benchmarks.fresh_process import measured

QUERIES = 1000
PACKAGES = ("autofaiss==2.18.0", "numpy<2", "pyarrow<22", "faiss-cpu<=1.13.2")  # it breaks with newer ones
LEAST_LIMIT_S = 120
Line = tuple[str, str]


def beside_faiss(built: Built) -> Iterator[Line]:
    """FAISS as it comes: the same factory string and training sample, one process with as many threads as cores."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        sample = Path(folder, "sample.npy")
        np.save(sample, Whole.open(built.root, "index_train").read("000000").array("sample"))
        into = Path(folder, "plain.faiss")
        vectors = vector_files(built)[0].parent
        plain = measured("plain_faiss", built.index.factory, vectors, sample, into, threads=os.cpu_count() or 1)
        ours, theirs = recall_at_10(built, None), recall_at_10(built, into)
    yield "build: train, encode, write", f"{built.seconds['build']:.0f} s, with committing and starting Ray"
    yield "plain FAISS, one process", f"{plain['seconds']:.0f} s, of which training {plain['train']:.0f} s"
    yield "ratio", f"{built.seconds['build'] / plain['seconds']:.2f} (target ≤ 1.0)"
    yield "recall@10 at the tuned nprobe and depth, ours / plain", f"{ours:.3f} / {theirs:.3f}"
    yield "measuring and tuning", f"{built.seconds['report']:.0f} s"


def beside_autofaiss(built: Built) -> Iterator[Line]:
    """autofaiss with as much memory for its index as ours takes, in its own environment, for as long as we took."""
    budget = sized(built.index, built.rows).total
    limit_s = max(built.seconds["build"], LEAST_LIMIT_S)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        arguments = [vector_files(built)[0].parent, Path(folder, "autofaiss.faiss"), budget]
        try:
            theirs = _autofaiss(arguments, limit_s)
        except subprocess.TimeoutExpired:
            yield (
                "autofaiss, same memory",
                f"not finished after {limit_s:.0f} s: ratio ≤ {built.seconds['build'] / limit_s:.2f}",
            )
            return
        except subprocess.CalledProcessError as error:
            yield "autofaiss, same memory", f"failed: {error.stderr.strip().splitlines()[-1][:200]}"
            return
        recall = recall_at_10(built, Path(folder, "autofaiss.faiss"), nprobe=theirs["nprobe"], depth=10)
    yield f"autofaiss, same memory: {theirs['key']}", f"{theirs['seconds']:.0f} s"
    yield "ratio to autofaiss", f"{built.seconds['build'] / theirs['seconds']:.2f} (target ≤ 1.0)"
    yield "recall@10 of autofaiss' index as it tuned it", f"{recall:.3f}"


def recall_at_10(built: Built, plain: Path | None, *, nprobe: int | None = None, depth: int | None = None) -> float:
    """Of our index, or of one that FAISS wrote, with our numbers of probes and of rows re-ranked."""
    database, exact = Database.of_index(built.root), _exact(built)
    vectors, rows = database.vectors(), held_out(built.root, built.rows, QUERIES)
    queries, itself = vectors.gather(rows).astype(np.float32), [np.array([row]) for row in rows]
    serving = open_serving(database) if plain is None else _opened(plain)
    tuned = built.index.tuned["image"]
    ids, _ = candidates(serving, queries, depth or tuned.depth, nprobe or tuned.nprobe, itself)
    return float(recall_of_each(exact_similarity(vectors, queries, ids), exact, 10).mean())


def _exact(built: Built) -> Any:
    """(QUERIES, 10): similarities of the exact neighbours; kept beside the index, for it is asked for several times."""
    kept = Path(built.root, "exact.npy")
    if not kept.exists():
        vectors, rows = Database.of_index(built.root).vectors(), held_out(built.root, built.rows, QUERIES)
        np.save(kept, exact_search(vectors, vectors.gather(rows), 10, [np.array([row]) for row in rows])[1])
    return np.load(kept)


def _opened(path: Path) -> Serving:
    whole = ServedLists.open(path)
    sizes = whole.sizes()
    return Serving([whole], [ListRange(shard="plain", first_list=0, end_list=len(sizes), rows=int(sizes.sum()))])


def _autofaiss(arguments: Sequence[object], limit_s: float) -> Any:
    """Raises subprocess.TimeoutExpired or CalledProcessError."""
    home = FOLDER / "autofaiss"
    python = (home / "bin" / "python").absolute()
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, capture_output=True, text=True
        )
    script = Path(__file__).with_name("autofaiss_rival.py")
    command = [str(python), str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=True)
    return json.loads(done.stdout.splitlines()[-1])
