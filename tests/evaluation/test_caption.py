"""jobs/caption.py on a real index of drawn scenes: every picture has a caption or a reason, and no neighbour is the
picture itself."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from demo.scenes import PHRASINGS, caption, random_scene, render
from demo.server import Answer, serve
from jobs.caption import main
from model.checkpoint import save_pretrained
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe
from stages.embed import Embed
from stages.filter import CorpusReader, FilterRecipe, filter_stages
from stages.index import IndexRecipe, index_stages
from tests.model.small_models import small_config, small_model
from tests.model.test_checkpoint import TOKENIZER
from tests.stages.download.test_stage import Fixed
from tests.stages.embed.pictures import TINY_RECIPE, Untrained
from tests.stages.filter.test_duplicates import KEEP_ALL

SCENES, NEIGHBORS = 24, 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("pictures"), Random(8)
    for number in range(SCENES):
        render(random_scene(random), width_px=320, height_px=280).save(folder / f"{number:02d}.png")
    return folder


def indexed(root: Path, pictures: Path, source: str) -> str:
    random = Random(8)
    rows = [
        {"pair_id": f"{source}-{number:010d}", "source": source, "local_path": str(path)}
        | {"caption": caption(random_scene(random), PHRASINGS[0])}
        for number, path in enumerate(sorted(pictures.glob("*.png")))
    ]
    stages: list[Stage[Any]] = [Untrained(), Fixed(rows), Download(DownloadRecipe()), Embed(TINY_RECIPE)]
    stages += [*filter_stages(FilterRecipe(defaults=KEEP_ALL)), *index_stages(IndexRecipe(min_recall=None, nlist=1))]
    report = Run(str(root), stages, recipe="embed: {model: encoder, batch_size: 8, cpus: 1}").execute(LocalExecutor())
    assert report.exit_code == 0, report
    return str(root)


@pytest.fixture(scope="module")
def database(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return indexed(tmp_path_factory.mktemp("database"), pictures, "own")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_pretrained(folder, small_model(small_config("gpt2", "cross", vocabulary=TOKENIZER.size)), TOKENIZER)
    return str(folder)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    main([*arguments, "--format", "jsonl", "--max-new-tokens", "5"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_picture_has_a_caption_and_neighbours_that_do_not_show_it(
    checkpoint: str, database: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, checkpoint, str(pictures), "--index", database)
    assert [each["picture"] for each in found] == [str(path) for path in sorted(pictures.glob("*.png"))]
    vectors = np.concatenate([shard.img_emb for shard in CorpusReader(database).shards()]).astype(np.float64)
    cosines = vectors @ vectors.T
    for number, each in enumerate(found):
        assert each["caption"] is not None
        rows = [int(n["pair_id"].rpartition("-")[2]) for n in each["neighbors"]]
        assert number not in rows
        found_cosines = [n["similarity"] for n in each["neighbors"]]
        assert found_cosines == sorted(found_cosines, reverse=True)
        assert found_cosines == pytest.approx(cosines[number, rows].tolist(), abs=1e-3)  # its own vector was rounded
        assert len(rows) == NEIGHBORS
        assert each["removed"] == 1
        assert set(each["seconds"]) == {"embed", "retrieve", "generate"}


def test_another_index_is_another_database_and_none_is_none(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = indexed(tmp_path / "other", pictures, "other")
    picture = str(pictures / "03.png")
    (swapped,) = told(capsys, checkpoint, picture, "--index", other)
    assert [n["pair_id"].partition("-")[0] for n in swapped["neighbors"]] == ["other"] * NEIGHBORS
    (alone,) = told(capsys, checkpoint, picture, "--no-retrieval")
    assert (alone["neighbors"], alone["removed"], list(alone["seconds"])) == ([], 0, ["embed", "generate"])


def test_a_picture_that_cannot_be_read_is_told_and_costs_the_others_nothing(
    checkpoint: str, database: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    with serve({"/a.png": Answer((pictures / "05.png").read_bytes())}) as server:
        asked = [
            str(tmp_path / "page.jpg"),
            f"{server.base_url}/a.png",
            f"{server.base_url}/gone",
            str(pictures / "0[56].png"),
        ]
        arguments = [checkpoint, *asked, "--index", database, "--allow", f"127.0.0.1:{server.port}"]
        code = main([*arguments, "--format", "jsonl"])
    page, url, gone, five, six = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 1
    assert page["error"].startswith("not_an_image: ")
    assert gone["error"].startswith("http_client_error: ")
    assert (url["caption"], url["neighbors"]) == (five["caption"], five["neighbors"])
    assert six["caption"] is not None


def test_the_page_shows_pictures_and_neighbours_and_needs_nothing_else(
    checkpoint: str, database: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([checkpoint, str(pictures / "0[0-2].png"), "--index", database, "--format", "html"]) == 0
    page = capsys.readouterr().out
    assert (page.count("<section>"), page.count('<img src="data:image/jpeg')) == (3, 3 * (1 + NEIGHBORS))
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["CHECKPOINT", "/nowhere.jpg", "--no-retrieval"],
            "/nowhere.jpg is no file, folder, glob that matches, or url",
        ),
        (["/nowhere", "x", "--no-retrieval"], "/nowhere is not finished"),
        (["CHECKPOINT", "x", "--index", "/nowhere"], "/nowhere"),
        (["CHECKPOINT", "PICTURE", "--no-retrieval", "--beams", "0"], "beams is 0; allowed are"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], said: str, checkpoint: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"CHECKPOINT": checkpoint, "PICTURE": str(pictures / "00.png")}
    assert main([named.get(each, each) for each in arguments]) == 2
    assert said in capsys.readouterr().err
