"""Memory and CPU of ingest as lists grow, with exact duplicates dropped, and what dropping them costs.

Each run in a fresh process, driver and worker in one:    python -m trials.benchmarks.ingest FOLDER drop
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from stages.ingest import IngestRecipe, ingest_stages
from trials.processes import Usage

SIZES = (1_000_000, 10_000_000)  # rows
FILE_ROWS, GROUP_ROWS = 5_000_000, 500_000
REPEATED = 0.03  # share of rows that are an earlier one again
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: numbers that follow one another become unlike
TEXT = (
    "a the red dog on beach photo of vintage car sky house with garden stock image café at sunset woman portrait "
    "new york city street food recipe wooden table design"
)
WORDS = pa.array(TEXT.split())
COUNTS = ("text_length", "word_count", "num_tokens_bert", "num_tokens_gpt", "num_faces")
SCORES = (
    "clip_similarity_vitb32",
    "clip_similarity_vitl14",
    "nsfw_score_opennsfw2",
    "nsfw_score_gantman",
    "watermark_score",
    "aesthetic_score_laion_v2",
)

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cost:
    rows: int
    kept: int
    cpu_s: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.rows / self.cpu_s:,.0f} rows/s a core · peak memory {self.peak_bytes / 2**20:,.0f} MiB"


def ingest(sizes: Sequence[int] = SIZES) -> Iterator[tuple[str, str]]:
    """Of the smallest size also with duplicates kept."""
    dropping: list[Cost] = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            repeated = write_lists(Path(folder), rows)
            dropping.append(_in_a_fresh_process(folder, "drop"))
            yield f"{rows:,} rows, duplicates dropped", str(dropping[-1])
            yield f"{rows:,} rows: repeated · dropped", f"{repeated:,} · {rows - dropping[-1].kept:,}"
            if rows == sizes[0]:
                keeping = _in_a_fresh_process(folder, "keep")
                yield f"{rows:,} rows, duplicates kept", str(keeping)
                yield "CPU of dropping beside keeping", f"{dropping[0].cpu_s / keeping.cpu_s:.2f}"
    ratio = dropping[-1].peak_bytes / dropping[0].peak_bytes
    yield f"peak memory: {sizes[-1]:,} rows beside {sizes[0]:,}", f"{ratio:.2f} (target ≤ 1.3)"


def write_lists(folder: Path, rows: int, *, file_rows: int = FILE_ROWS, group_rows: int = GROUP_ROWS) -> int:
    """Parquet with COYO-700M's columns; → how many rows stand there a second time."""
    random = np.random.default_rng(1)
    numbers = np.arange(rows)
    again = np.flatnonzero(random.random(rows) < REPEATED)[1:]
    numbers[again] = random.integers(0, again)
    for first in range(0, rows, file_rows):
        of_file = numbers[first : first + file_rows]
        with pq.ParquetWriter(folder / f"part-{first:010d}.parquet", _table(of_file[:1], 0, random).schema) as out:
            for start in range(0, len(of_file), group_rows):
                out.write_table(_table(of_file[start : start + group_rows], first + start, random), group_rows)
    return rows - len(np.unique(numbers))


def _table(numbers: Numbers, first: int, random: np.random.Generator) -> pa.Table:
    """A row's url and text are made of its number alone. first: id of the first row."""
    rows, mixed = len(numbers), numbers.astype(np.uint64) * MIXER
    name, host, text = (pa.array(value).cast(pa.string()) for value in (mixed, mixed % np.uint64(40_000), numbers))
    words = [WORDS.take(pa.array((mixed >> np.uint64(5 * place)) % np.uint64(len(WORDS)))) for place in range(10)]
    columns: dict[str, object] = {
        "id": np.arange(first, first + rows),
        "url": pc.binary_join_element_wise("https://cdn", host, ".example.com/pictures/", name, "/large.jpg", ""),
        "text": pc.binary_join_element_wise(*words, text, " "),
        "width": random.integers(200, 2000, rows, np.int32),
        "height": random.integers(200, 2000, rows, np.int32),
        "image_phash": name,
    }
    columns |= {count: random.integers(0, 100, rows, np.int32) for count in COUNTS}
    return pa.table(columns | {score: random.random(rows) for score in SCORES})


def _in_a_fresh_process(folder: str, duplicates: str) -> Cost:
    command = [sys.executable, "-m", "trials.benchmarks.ingest", folder, duplicates]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return Cost(**json.loads(said.splitlines()[-1]))


def measured(folder: str, duplicates: str) -> Cost:
    source = {"name": "coyo", "preset": "coyo", "files": [f"{folder}/*.parquet"]}
    recipe = IngestRecipe.model_validate({"sources": [source], "duplicates": duplicates})
    with tempfile.TemporaryDirectory(dir=folder) as root:
        before = Usage.of(os.getpid())
        assert Run(root, ingest_stages(recipe)).execute(LocalExecutor()).exit_code == 0
        after, made = Usage.of(os.getpid()), Whole.open(root, "ingest_rows")
        rows = sum(summary.rows_in for summary in made.shards.values())
        return Cost(rows, made.rows, after.cpu_s - before.cpu_s, after.peak_bytes)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measured(*sys.argv[1:]))) + "\n")
