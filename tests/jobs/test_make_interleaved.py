"""The job as people run it: refused recipes, kills, a band that is nearly empty, a cluster, an object store."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import make_interleaved
from pipeline.commits import StageFolder, Whole
from pipeline.failpoints import STEPS
from pipeline.recipe import Json
from stages.filter import CorpusReader
from tests.jobs.test_submit import Head, head
from tests.s3 import environment, make_bucket, reached_from_here, s3_server
from tests.stages.filter.making import in_shards
from tests.stages.index.corpora import Drawn, finish
from tests.stages.interleave.test_samples import corpus, pictured, read_by_webdataset, samples_in, tars
from tests.stages.interleave.test_stages import NEARLY_EMPTY, STAGES
from tests.toys import data_of, left_in

__all__ = ["head"]
ROOT = Path(__file__).parents[2]
RECIPE = "jobs/recipes/interleave.yaml"


def arguments(root: Path | str, *corpora: Path | str, **recipe: Json) -> list[str]:
    section = json.dumps({"lo": 0.8, "hi": 1.2, "queries_per_task": 1, **recipe})
    given = [f"root={root}", "engine=local", f"corpora={json.dumps([*map(str, corpora)])}", f"interleave={section}"]
    return [str(ROOT / RECIPE), *given]


def run(arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """The job in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "jobs/make_interleaved.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        text=True,
        capture_output=True,
        check=False,
    )


@dataclass(frozen=True)
class Quiet:
    """An undisturbed run, with pictures in tars."""

    folder: Path
    said: str

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def corpora(self) -> list[Path]:
        return [self.folder / "one", self.folder / "two"]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    folder = tmp_path_factory.mktemp("quiet")
    for number, name in enumerate(("one", "two")):
        corpus(folder / name, in_shards(pictured(name, 60, number), 25), shard_rows=40)
    done = run(arguments(folder / "root", folder / "one", folder / "two"))
    assert done.returncode == 0, done.stdout + done.stderr
    return Quiet(folder, done.stdout)


def same(root: Path | str, other: Path | str) -> bool:
    return all(data_of(str(root), stage) == data_of(str(other), stage) for stage in STAGES)


# ── what it makes, and what it says ──


def test_the_histogram_is_printed_before_mining_begins(quiet: Quiet) -> None:
    lines = quiet.said.splitlines()
    (histogram,) = (number for number, line in enumerate(lines) if "distances of images as l2 reads them" in line)
    (mined,) = (number for number, line in enumerate(lines) if "interleave_mine" in line and "4/4 shards" in line)
    assert histogram < mined
    assert any("← interleave.metric" in line for line in lines[histogram:mined])


def test_a_second_run_makes_nothing_again_and_tells_nothing(quiet: Quiet) -> None:
    before = {path: path.stat().st_mtime_ns for path in quiet.root.glob("*/*/*")}
    again = run(arguments(quiet.root, *quiet.corpora))
    assert again.returncode == 0
    assert "distances of images" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in quiet.root.glob("*/*/*")} == before


def test_its_recipe_is_kept_and_makes_the_same(quiet: Quiet, tmp_path: Path) -> None:
    kept = str(quiet.root / "interleave.yaml")
    assert make_interleaved.main([kept, f"root={tmp_path}"]) == 0
    assert same(tmp_path, quiet.root)


def test_it_may_lie_in_the_root_of_its_corpus(tmp_path: Path) -> None:
    root = corpus(tmp_path, in_shards(pictured("one", 120, 0), 25))
    recipe = "embed: {model: ViT-B-32, pretrained: openai}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert make_interleaved.main(arguments(root, root)) == 0
    assert (tmp_path / "recipe.yaml").read_text() == recipe
    assert Whole.open(root, "interleaved").rows > 0


@pytest.mark.parametrize("place", ["interleaved:written"])
def test_killed_and_run_again_the_root_is_the_same(place: str, quiet: Quiet, tmp_path: Path) -> None:
    _killed_and_run_again(place, quiet, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_step_of_any_stage_and_run_again_the_root_is_the_same(
    stage: str, step: str, quiet: Quiet, tmp_path: Path
) -> None:
    _killed_and_run_again(f"{stage}:{step}", quiet, tmp_path)


def _killed_and_run_again(place: str, quiet: Quiet, root: Path) -> None:
    given = arguments(root, *quiet.corpora)
    assert run(given, REVILM_FAILPOINT=place).returncode == -signal.SIGKILL
    assert make_interleaved.main(given) == 0
    assert same(root, quiet.root)
    assert left_in(root) == left_in(quiet.root)


def test_on_ray_the_bytes_are_the_same(ray_cluster: None, quiet: Quiet, tmp_path: Path) -> None:
    assert make_interleaved.main([*arguments(tmp_path, *quiet.corpora), "engine=ray"]) == 0
    assert same(tmp_path, quiet.root)


def test_a_nearly_empty_band_ends_it_in_a_few_words(quiet: Quiet, tmp_path: Path) -> None:
    done = run(arguments(tmp_path, *quiet.corpora, **NEARLY_EMPTY))
    assert done.returncode == 1
    assert done.stdout.count("distances of images as l2 reads them") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "With interleave.hi at" in done.stdout
    assert "interleave_mine" not in {path.name for path in tmp_path.iterdir()}
    given = arguments(tmp_path, *quiet.corpora, **NEARLY_EMPTY, on_starved="short", max_starved=1)
    assert make_interleaved.main(given) == 0
    assert len(samples_in(tmp_path)) == 120


def test_another_band_stands_on_the_first_run(quiet: Quiet, tmp_path: Path) -> None:
    given = arguments(tmp_path, *quiet.corpora, hi=1.1)
    assert make_interleaved.main([*given, f"base.root={quiet.root}"]) == 0
    assert [stage for stage in STAGES if StageFolder(str(tmp_path), stage).taken()] == ["interleave_keys"]


# ── what is refused ──


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"lo": 0.7, "hi": 0.6}, "lo is 0.7 and hi is 0.6: lo has to be smaller"),
        ({"lo": 2.5, "hi": 3}, "the distance of two unit vectors is at most 2 as metric l2 reads it"),
        ({"hi": float("inf")}, "interleave.hi: Input should be a finite number"),
        ({"suports": 3}, "interleave.suports is not a setting; did you mean interleave.supports?"),
        ({"supports": 120}, "interleave.supports is 120, and the corpora hold 120 pairs"),
        ({"engine": "sweep", "device": "cuda"}, "set device to cpu, or engine to auto"),
        ({"sources": ["three"]}, "interleave.sources names three, of which the corpora hold no pair; they hold pairs"),
    ],
    ids=str,
)
def test_a_bad_recipe_stops_it_before_anything_is_mined(
    recipe: Mapping[str, Json], message: str, quiet: Quiet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert make_interleaved.main(arguments(root, *quiet.corpora, **recipe)) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (root / "interleave_probe").exists()
    assert root.exists() == ("sources" in recipe)  # of sources the keys tell


@pytest.mark.parametrize("kind", ["unfinished", "wide", "twice"])
def test_bad_corpora_stop_it_before_anything_starts(
    kind: str, quiet: Quiet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, wide = quiet.corpora[0], finish(tmp_path / "wide", [Drawn(rows=20, width=32)])
    other, message = {
        "unfinished": (quiet.root, "corpus is not whole"),
        "wide": (wide, "are 32 wide, and those of"),
        "twice": (one, "hold the same corpus: name one of them"),
    }[kind]
    assert make_interleaved.main(arguments(tmp_path / "root", one, str(other))) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_another_band_in_the_same_root_is_refused_by_name(quiet: Quiet, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_interleaved.main(arguments(quiet.root, *quiet.corpora, hi=1.1)) == 2
    assert "interleave_probe was made with other settings: hi is 1.2 there and 1.1 here" in capsys.readouterr().err


def test_a_relative_root_is_refused_on_a_cluster(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert make_interleaved.main(arguments("runs/somewhere", "runs/corpus")) == 2
    told = capsys.readouterr().err
    assert "root: is relative" in told
    assert "corpora.0: is relative" in told
    assert "(found 'runs/corpus')" in told


# ── elsewhere ──


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_as_a_submitted_job_in_both_forms(head: Head, quiet: Quiet, tmp_path: Path) -> None:
    given = [RECIPE, *arguments(tmp_path, *quiet.corpora)[1:], "engine=ray"]
    done = head.submit("--", "python", "jobs/make_interleaved.py", *given)
    assert done.returncode == 0, done.stdout[-3000:]
    assert same(tmp_path, quiet.root)
    bare = head.submit("jobs/make_interleaved.py", *given)
    assert bare.returncode == 0, bare.stdout[-3000:]
    refused = head.submit("jobs/make_interleaved.py", *given, "interleave.lo=9")
    assert refused.returncode != 0
    assert "lo has to be smaller" in refused.stdout


@pytest.mark.slow
def test_on_an_object_store_it_makes_the_same(quiet: Quiet, tmp_path: Path) -> None:
    with s3_server() as endpoint:
        root = f"{make_bucket(endpoint, 'bucket')}/root"
        given = arguments(root, *quiet.corpora)
        done = run(given, **{name: value for name, value in environment(endpoint, tmp_path).items()})
        assert done.returncode == 0, done.stdout + done.stderr
        with reached_from_here(endpoint, tmp_path / "cache"):
            assert same(root, quiet.root)
            readers = [CorpusReader(str(corpus)) for corpus in quiet.corpora]
            samples = samples_in(root)
            for sample, found in zip(samples, read_by_webdataset(tars(root)), strict=True):
                pictures = [readers[pair["corpus"]].picture(pair) for pair in sample["pairs"]]
                assert [found[f"{number}.jpg"] for number in range(5)] == pictures
