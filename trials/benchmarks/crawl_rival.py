"""A url list fetched and stored, by our download stage and by img2dataset's command in an environment of its own.

python -m trials.benchmarks.crawl_rival LIST ROOT RECIPE    ours: LIST in CC12M's form, RECIPE the stage's as JSON
"""

import json
import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

HOME = Path("runs/benchmark-img2dataset")
PACKAGES = ("img2dataset==1.47.0", "opencv-python-headless<5", "pandas<3", "webdataset<0.3", "setuptools<81")
SHARD_ROWS, THREADS = 1000, 32


@dataclass(frozen=True)
class Crawl:
    good: int  # pictures stored
    cpu_s: float  # of the process and all that it started and waited for
    wall_s: float
    peak_bytes: int  # resident, of the largest process


class NoRival(Exception):
    """Why img2dataset cannot be run here."""


def rival_python() -> Path:
    """Of an environment that holds img2dataset: the one REVILM_IMG2DATASET names, or one made here. Raises NoRival."""
    if named := os.environ.get("REVILM_IMG2DATASET"):
        return Path(named)
    python = (HOME / "bin" / "python").absolute()
    if not (HOME / "whole").exists():
        venv.create(HOME, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NoRival(f"no img2dataset: {done.stderr.strip().splitlines()[-1][:200]}")
        (HOME / "whole").touch()
    return python


def ours(urls: Sequence[str], into: Path, recipe: Mapping[str, Any]) -> Crawl:
    """Ingest and download as one process: the same work as in Ray's workers, without Ray's daemons."""
    into.mkdir(parents=True)
    list_file = into / "list.tsv"
    list_file.write_text("".join(f"{url}\t{_caption(n)}\n" for n, url in enumerate(urls)))
    command = [sys.executable, "-m", __name__, str(list_file), str(into / "root"), json.dumps(recipe)]
    return _ran(command, into / "root" / "download" / "data", {})


def img2dataset(
    python: Path, urls: Sequence[str], into: Path, options: Mapping[str, object], environment: Mapping[str, str]
) -> Crawl:
    """Its command, one process of THREADS threads, which is at least as good a CPU-second as two."""
    into.mkdir(parents=True)
    list_file = into / "list.tsv"
    list_file.write_text("url\tcaption\n" + "".join(f"{url}\t{_caption(n)}\n" for n, url in enumerate(urls)))
    told = {
        "url_list": list_file,
        "input_format": "tsv",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": into / "out",
        "image_size": 256,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "encode_quality": 95,
        "processes_count": 1,
        "thread_count": THREADS,
        "number_sample_per_shard": SHARD_ROWS,
        "compute_hash": "sha256",
        "extract_exif": False,
        "enable_wandb": False,
    }
    command = [str(python.with_name("img2dataset"))]
    command += [str(word) for name, value in (told | dict(options)).items() for word in (f"--{name}", value)]
    return _ran(command, into / "out", {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": "", **environment})


def pictures(folder: Path) -> dict[str, bytes]:
    """Stored JPEGs by url, of every tar in a folder of either."""
    found = {}
    for path in sorted(folder.rglob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member) for member in tar}
            for name, member in members.items():
                jpeg = members.get(name.replace(".json", ".jpg"))
                if name.endswith(".json") and member and jpeg:
                    found[json.load(member)["url"]] = jpeg.read()
    return found


def _caption(number: int) -> str:
    return f"photo number {number} of a street with {number % 17} trees and a wide blue sky"


def _ran(command: Sequence[str], stored_in: Path, environment: Mapping[str, str]) -> Crawl:
    started = monotonic()
    spent = used(command, environment)
    good = sum(_count_jpegs(path) for path in stored_in.rglob("*.tar"))
    return Crawl(good, spent["cpu_s"], monotonic() - started, int(spent["peak_kib"]) * 1024)


def used(command: Sequence[str], environment: Mapping[str, str]) -> Mapping[str, float]:
    """What a command used on one thread, as used.py tells it. Raises RuntimeError where it failed."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("used.py")), *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def _count_jpegs(path: Path) -> int:
    with tarfile.open(path) as tar:
        return sum(name.endswith(".jpg") for name in tar.getnames())


def _run_ours(list_file: str, root: str, recipe: str) -> int:
    from pipeline.executor import LocalExecutor
    from pipeline.run import Run
    from stages.download import Download, DownloadRecipe
    from stages.ingest import IngestRecipe, ingest_stages

    source = {"name": "benchmark", "preset": "cc12m", "files": [list_file]}
    ingest = IngestRecipe.model_validate({"shard_size": SHARD_ROWS, "sources": [source]})
    stages = [*ingest_stages(ingest), Download(DownloadRecipe.model_validate_json(recipe))]
    return Run(root, stages).execute(LocalExecutor()).exit_code


if __name__ == "__main__":
    sys.exit(_run_ours(*sys.argv[1:]))
