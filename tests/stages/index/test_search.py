"""jobs/search.py finds a corpus' own pictures again, and says in one line what is missing."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from jobs.search import main
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Stage
from stages.embed import Embed
from stages.filter import FilterRecipe, Thresholds, filter_stages
from stages.index import IndexRecipe, index_stages
from tests.stages.embed.pictures import TINY_RECIPE, Untrained, drawn_pairs
from tests.stages.filter.making import Downloaded, Made, Picture

PAIRS = drawn_pairs(30)


def made(number: int) -> Made:
    jpeg, caption = PAIRS[number]
    width, height = Image.open(io.BytesIO(jpeg)).size
    size = (2 * width, 2 * height)  # as fetched: twice what is stored
    return Made(f"cc3m-{number:010d}", caption, size=size, picture=Picture(jpeg, phash=number))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("search")
    (root / "recipe.yaml").write_text(yaml.safe_dump({"embed": TINY_RECIPE.model_dump(mode="json")}))
    loose = FilterRecipe(defaults=Thresholds(min_clip_score=None, min_short_side_px=None, max_aspect=None))
    shards = [[made(number) for number in range(0, 15)], [made(number) for number in range(15, 30)]]
    embedded: list[Stage[Any]] = [Untrained(), Downloaded(shards), Embed(TINY_RECIPE)]
    indexed = [*filter_stages(loose), *index_stages(IndexRecipe())]
    report = Run(str(root), embedded + indexed).execute(LocalExecutor())
    assert report.exit_code == 0, report
    return root


def test_a_picture_of_the_corpus_is_found_first_and_saved_as_it_lies_in_the_tar(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jpeg, caption = PAIRS[17]
    (tmp_path / "asked.jpg").write_bytes(jpeg)
    arguments = ["--image", str(tmp_path / "asked.jpg"), "--k", "3", "--save", str(tmp_path / "found")]
    assert main([str(root), *arguments]) == 0
    first, _, place, *_ = capsys.readouterr().out.splitlines()
    rank, cosine, *words = first.split()
    assert (rank, words) == ("1", caption.split())
    assert float(cosine) > 0.999
    saved = sorted((tmp_path / "found").iterdir())
    assert [path.name[:4] for path in saved] == ["001-", "002-", "003-"]
    assert saved[0].name == "001-cc3m-0000000017.jpg"
    assert saved[0].read_bytes() == jpeg
    tar, num_bytes, offset = place.split(": ")[0].strip(), *place.split(": ")[1].split(" bytes at ")
    assert Path(tar).read_bytes()[int(offset) :][: int(num_bytes)] == jpeg


def test_a_text_finds_as_many_pairs_as_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(root), "--text", "a red ball"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5 * 3


def test_what_is_missing_is_said_in_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--text", "a red ball"]) == 2
    assert "index_gate is not whole" in capsys.readouterr().err
    assert main([str(root), "--image", str(tmp_path / "none.jpg")]) == 2
    assert "none.jpg is not a picture that can be read" in capsys.readouterr().err
