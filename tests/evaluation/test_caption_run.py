"""Captions under a root: every picture is a caption or a reject, whatever dies meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from demo.server import Answer, serve
from jobs.caption import main
from model.evaluation.answerer import Decoding
from model.evaluation.caption_rows import caption_table
from model.evaluation.captioner import Captioner
from model.evaluation.given import pictures as given
from pipeline.commits import Whole
from stages.download import DownloadRecipe
from tests.evaluation.indexed import config, saved
from tests.model.small_models import small_model
from tests.toys import data_of

ROOT = Path(__file__).parents[2]
PER_SHARD, SHARDS = 9, 3


def asked(checkpoint: str, pictures: Path, database: str, root: Path, *more: str) -> list[str]:
    """more: pictures, then options. database: empty for none."""
    index = ["--index", database] if database else ["--no-retrieval"]
    options = [*index, "--save", str(root), "--max-new-tokens", "5", "--per-shard", str(PER_SHARD)]
    return [checkpoint, str(pictures), *more, *options, *([] if "--engine" in more else ["--engine", "local"])]


def rejects_of(root: Path) -> list[tuple[str, str]]:
    tables = [pq.read_table(path).to_pylist() for path in sorted(root.glob("captions/rejects/*.parquet"))]
    return [(row["pair_id"], row["reason"]) for table in tables for row in table]


def test_every_picture_is_a_caption_or_a_reject_and_captions_are_those_of_the_plain_loop(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    shutil.copytree(pictures, folder)
    (folder / "10.png").write_text("<html>")
    with serve({"/a.png": Answer((pictures / "05.png").read_bytes())}) as server:
        urls = [f"{server.base_url}/a.png", f"{server.base_url}/gone"]
        more = [*urls, "--allow", f"127.0.0.1:{server.port}"]
        assert main(asked(checkpoint, folder, database, tmp_path / "root", *more)) == 0
    whole = Whole.open(str(tmp_path / "root"), "captions")
    found = whole.tables("captions").to_pylist()
    assert rejects_of(tmp_path / "root") == [(f"{folder}/10.png", "not_an_image"), (urls[1], "http_client_error")]
    assert len(found) + 2 == sum(summary.rows_in for summary in whole.shards.values()) == 26
    paths = [str(path) for path in sorted(folder.glob("*.png")) if path.name != "10.png"]
    assert [row["picture"] for row in found] == [*paths, urls[0]]

    captioner = Captioner.open(checkpoint, database, Decoding(max_new_tokens=5))
    plain = caption_table(captioner.captions(given(paths, DownloadRecipe()))).to_pylist()
    for row, due in zip(found, plain, strict=False):
        assert row | {"seconds": None} == due | {"seconds": None}
        assert row["seconds"] is None


@pytest.fixture(scope="module")
def quiet(checkpoint: str, database: str, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quiet")
    assert main(asked(checkpoint, pictures, database, root)) == 0
    assert len(data_of(str(root), "captions")) == SHARDS
    return root


def refusal(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_another_model_index_or_decoding_on_the_same_root_is_refused(
    quiet: Path,
    checkpoint: str,
    database: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = saved(tmp_path / "model", small_model(config(), seed=1))
    assert "checkpoint is '" in refusal(capsys, asked(model, pictures, database, quiet))
    assert "index_gate is '" in refusal(capsys, asked(checkpoint, pictures, "", quiet))
    assert "beams is 3 there and 1 here" in refusal(
        capsys, asked(checkpoint, pictures, database, quiet, "--beams", "1")
    )
    assert main(asked(checkpoint, pictures, database, quiet)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("where", ["pictures:written", "captions:process", "captions:written", "captions:manifest"])
def test_killed_and_run_again_the_captions_are_the_same(
    where: str, quiet: Path, checkpoint: str, database: str, pictures: Path, tmp_path: Path
) -> None:
    arguments = asked(checkpoint, pictures, database, tmp_path)
    environment = os.environ | {"REVILM_FAILPOINT": where, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "jobs/caption.py", *arguments]
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == -signal.SIGKILL
    assert main(arguments) == 0
    for stage in ("pictures", "captions"):
        assert data_of(str(tmp_path), stage) == data_of(str(quiet), stage)


@pytest.mark.slow
def test_ray_actors_make_the_same_captions(
    ray_cluster: None, quiet: Path, checkpoint: str, database: str, pictures: Path, tmp_path: Path
) -> None:
    assert main(asked(checkpoint, pictures, database, tmp_path, "--engine", "ray", "--workers", "1")) == 0
    assert data_of(str(tmp_path), "captions") == data_of(str(quiet), "captions")
