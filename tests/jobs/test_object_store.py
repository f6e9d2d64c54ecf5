"""The main job with its root on an object store: the same bytes as on a disk, the same resume, and no secret anywhere.

The store is a real S3 API on loopback, in a process of its own; so is each of the long runs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from jobs import build_index, search, stats
from pipeline.commits import StageFolder, Whole
from pipeline.storage import open_store
from tests.jobs.main_job import AFTER, CRAWL, RECIPE, small
from tests.ports import free_ports
from tests.s3 import ACCESS_KEY, SECRET, environment, make_bucket, reached_from_here, s3_server
from tests.toys import data_of

ROOT = Path(__file__).parents[2]
STAGES = (*CRAWL, *AFTER)
REWRITTEN = {"recipe.yaml", "report.html"}
LIMITS = "filter={shard_rows: 90, defaults: {min_clip_score: 0.05}}"  # of another run on the same crawl


@dataclass(frozen=True)
class Made:
    """said: all that the job printed, on stdout and on stderr."""

    folder: Path
    bucket: str
    endpoint: str
    port: int
    said: str

    @property
    def root(self) -> str:
        return f"{self.bucket}/root"

    def arguments(self, root: str, *overrides: str) -> list[str]:
        return arguments(self.folder, self.port, root, *overrides)


def arguments(folder: Path, port: int, root: str, *overrides: str) -> list[str]:
    return [RECIPE, *small(Path(), folder / "lists", port), f"root={root}", *overrides]


def build(endpoint: str, folder: Path, given: list[str]) -> str:
    """All that the job prints; it runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, "jobs/build_index.py", *given],
        cwd=ROOT,
        env=environment(endpoint, folder / "cache") | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("object store")
    port = free_ports(1)[0]
    with s3_server() as endpoint:
        bucket = make_bucket(endpoint, "bucket")
        said = build(endpoint, folder, arguments(folder, port, f"{bucket}/root"))
        with reached_from_here(endpoint, folder / "cache"):
            yield Made(folder, bucket, endpoint, port, said)


@pytest.fixture(scope="module")
def on_disk(made: Made) -> Path:
    """The same job on a local root. Its encoder is the other's: training takes half of the time."""
    root, encoder = made.folder / "root", open_store(f"{made.root}/encoder")
    for path in encoder.list(""):
        (root / "encoder" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "encoder" / path).write_bytes(encoder.read(path))
    assert build_index.main(made.arguments(str(root))) == 0
    return root


def objects(root: str) -> dict[str, tuple[object, ...]]:
    """What is there, less what every run writes anew."""
    import fsspec

    fs, top = fsspec.core.url_to_fs(root)
    found = fs.find(top, detail=True).values()
    kept = {info["name"].removeprefix(f"{top}/"): (info["ETag"], info["LastModified"]) for info in found}
    return {name: seen for name, seen in kept.items() if name not in REWRITTEN}


def test_every_stage_has_the_same_bytes_as_on_a_disk(made: Made, on_disk: Path) -> None:
    for stage in STAGES:
        there, here = data_of(made.root, stage), data_of(str(on_disk), stage)
        assert there.keys() == here.keys()
        differ = {name for shard, name in there if there[shard, name] != here[shard, name]}
        assert differ <= ({"pairs"} if stage == "download" else set()), stage  # it holds each fetch's milliseconds


def test_of_the_fetched_pairs_only_the_milliseconds_differ(made: Made, on_disk: Path) -> None:
    there, here = (pl.DataFrame(Whole.open(root, "download").tables("pairs")) for root in (made.root, str(on_disk)))
    timeless = [
        pairs.drop("fetch_ms").with_columns(pl.col("error_message").str.replace_all(r"\d+ ms|\d+ milliseconds", ""))
        for pairs in (there, here)
    ]
    assert [name for name in timeless[0].columns if not timeless[0][name].equals(timeless[1][name])] == []


def test_a_second_run_makes_nothing_again(made: Made) -> None:
    before = objects(made.root)
    assert build_index.main(made.arguments(made.root)) == 0
    assert objects(made.root) == before


def test_nothing_is_left_that_no_record_names(made: Made) -> None:
    for stage in STAGES:
        folder = StageFolder(made.root, stage)
        files = {file.path for shard in folder.committed() for file in folder.record(shard).all_files()}
        found = {path for path in folder.store.list("") if path.startswith(("data/", "rejects/", "tmp/"))}
        assert found == files, stage


def test_search_stats_and_report_read_what_was_made(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main([made.root, "--text", "a red star", "--k", "3", "--save", str(tmp_path)]) == 0
    assert f"{made.root}/download/data/" in capsys.readouterr().out
    pictures = sorted(tmp_path.glob("*.jpg"))
    assert len(pictures) == 3
    assert search.main([made.root, "--image", str(pictures[0]), "--k", "1"]) == 0
    assert " bytes at " in capsys.readouterr().out
    assert stats.main([made.root]) == 0
    assert "index_report" in capsys.readouterr().out
    assert f"{made.root}/report.html" in made.said
    assert b"<html" in open_store(made.root).read("report.html")


@pytest.mark.slow
@pytest.mark.parametrize("base_is_remote", [True, False], ids=["local on s3", "s3 on local"])
def test_a_root_stands_on_a_base_of_the_other_kind(
    made: Made, on_disk: Path, base_is_remote: bool, tmp_path: Path
) -> None:
    base, root = (made.root, str(tmp_path / "root")) if base_is_remote else (str(on_disk), f"{made.bucket}/on a disk's")
    assert build_index.main(made.arguments(root, f"base.root={base}", LIMITS)) == 0
    for stage in (*CRAWL, "embed"):
        assert set(open_store(f"{root}/{stage}").list("")) == {"taken.json"}
    assert 0 < Whole.open(root, "corpus").rows < Whole.open(base, "corpus").rows
    assert search.main([root, "--text", "a red star", "--k", "1"]) == 0


@pytest.mark.slow
def test_on_ray_it_comes_to_the_same(made: Made) -> None:
    """Everything from the download on: the workers of an embedded Ray write to the store."""
    root = f"{made.bucket}/by ray"
    for stage in ("encoder", "ingest_count", "ingest_rows"):
        there, here = (open_store(f"{r}/{stage}") for r in (made.root, root))
        for path in there.list(""):
            here.write(path, there.read(path))
    build(made.endpoint, made.folder, made.arguments(root, "engine=ray", "cpus=2"))
    for stage in AFTER:
        assert data_of(root, stage) == data_of(made.root, stage), stage


def test_no_secret_is_in_what_a_job_says_or_writes(made: Made) -> None:
    store = open_store(made.bucket)
    written = {path: store.read(path) for path in store.list("")}
    assert {"root/recipe.yaml", "root/corpus/plan.json", "root/corpus/commits/000000.json"} <= written.keys()
    for secret in (SECRET, ACCESS_KEY):
        assert secret not in made.said
        assert not [path for path, data in written.items() if secret.encode() in data]


@pytest.mark.parametrize(
    "override",
    [
        "root={}",
        "base.root={}",
        "filter.inputs=['{}']",
        "ingest.sources=[{{name: a, preset: cc3m, files: ['{}']}}]",
        "ingest.sources=[{{name: a, preset: nobody's, files: ['{}']}}]",
        "embed.pretrained={}",
        "root.inner={}",
        "root={{of: '{}'}}",
        "engine={}",
        "{}",
        "index=[{{root: '{}'}}]",
    ],
)
@pytest.mark.parametrize("url", ["s3://KEY:hun/ter2@bucket/root", "https://host/bucket?X-Amz-Signature=hunter2"])
def test_a_url_with_credentials_is_refused_wherever_it_stands_and_never_repeated(
    override: str, url: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert build_index.main(made.arguments(str(root), override.format(url))) == 2
    captured = capsys.readouterr()
    assert "ter2" not in captured.out + captured.err
    assert not root.exists()


@pytest.mark.parametrize("text", ["root: s3://KEY:hunter2@b: x", "root: &a [s3://KEY:hunter2@b", "- s3://K:hunter2@b"])
def test_a_recipe_that_is_no_yaml_is_not_repeated(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert build_index.main([str(path)]) == 2
    captured = capsys.readouterr()
    assert "recipe.yaml" in captured.err
    assert "hunter2" not in captured.out + captured.err


@pytest.mark.parametrize("command", [stats.main, lambda given: search.main([*given, "--text", "x"])])
def test_a_root_with_credentials_on_the_command_line_is_not_repeated(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(command)
    assert command(["s3://KEY:hunter2@bucket/root"]) == 2
    captured = capsys.readouterr()
    assert "credentials" in captured.err
    assert "hunter2" not in captured.out + captured.err


def test_a_lost_cache_is_fetched_again(made: Made) -> None:
    shutil.rmtree(made.folder / "cache")
    assert search.main([made.root, "--text", "a red star", "--k", "1"]) == 0
    assert os.listdir(made.folder / "cache")
