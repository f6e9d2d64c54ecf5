"""Jobs over lists that were written for a test, and a root that was really made and then half forgotten."""

import io
import shutil
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from pipeline.commits import MANIFEST, STATS
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe
from stages.ingest import IngestRecipe, ingest_stages
from stages.plan import Job, PlanRecipe
from tests.stages.ingest.ingesting import write_tar

SHARDS, ROWS, BROKEN = 4, 12, 2  # of each source: shards, pairs a shard, and pictures of each that cannot be read
CRAWL = ("ingest_count", "ingest_keys", "ingest_duplicates", "ingest_rows", "download")


def job_over(root: Path, ingest: IngestRecipe, **plan: Any) -> Job:
    stages: list[Stage[Any]] = [*ingest_stages(ingest), Download(DownloadRecipe())]
    return Job(str(root), stages, PlanRecipe.model_validate({"cpus": 4} | plan), ingest)


def crawled(folder: Path) -> Job:
    """A finished run over two sources of pictures in tars, as alike as drawn noise."""
    sources = [
        {"name": name, "preset": "webdataset", "files": [_tar(folder, name, seed)]} for seed, name in enumerate("ab")
    ]
    ingest = IngestRecipe.model_validate({"sources": sources, "shard_size": ROWS})
    job = job_over(folder / "root", ingest, rows={"a": SHARDS * ROWS, "b": SHARDS * ROWS})
    assert Run(job.root, job.stages).execute(LocalExecutor()).exit_code == 0
    return job


def forgetting(job: Job, root: Path, shards: set[str]) -> Job:
    """The job on a copy of its root, whose download never made those shards."""
    shutil.copytree(job.root, root)
    for name in (MANIFEST, STATS):
        (root / "download" / name).unlink()
    for shard in shards:
        (root / "download" / "commits" / f"{shard}.json").unlink()
    return Job(str(root), job.stages, job.plan, job.ingest)


def _tar(folder: Path, name: str, seed: int) -> str:
    random = Random(seed)
    files = []
    for number in range(SHARDS * ROWS):
        broken = number % ROWS < BROKEN
        files.append((f"{number:04d}.jpg", b"no picture" if broken else _jpeg(random)))
        files.append((f"{number:04d}.txt", f"a {random.choice(['red', 'blue'])} patch, {number}".encode()))
    return write_tar(folder / f"{name}.tar", files)


def _jpeg(random: Random) -> bytes:
    written = io.BytesIO()
    Image.frombytes("RGB", (48, 48), random.randbytes(48 * 48 * 3)).save(written, "JPEG")
    return written.getvalue()
