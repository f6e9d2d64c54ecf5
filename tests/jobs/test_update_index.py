"""Pictures, embedded by a model, added to an index and deleted from it: jobs/search.py finds what is there, and only
that."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from jobs import search, stats, update_index
from pipeline.stage import Counts, Stage
from pipeline.writer import ShardWriter, Task
from stages.embed import Embed
from stages.filter import FilterRecipe, Thresholds, filter_stages
from stages.index import IndexRecipe, index_stages
from tests.stages.embed.pictures import TINY_RECIPE, Untrained, drawn_pairs
from tests.stages.filter.making import Downloaded, Made, Picture
from tests.stages.index.corpora import finish

PAIRS = drawn_pairs(30)
LOOSE = FilterRecipe(defaults=Thresholds(min_clip_score=None, min_short_side_px=None, max_aspect=None))


@dataclass(frozen=True)
class Retrained(Untrained):
    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.json("seed", "{stem}/seed.json", 4)
        return super().process(task, out, state)


def pair_id(number: int) -> str:
    return f"cc3m-{number:010d}"


def made(number: int) -> Made:
    jpeg, caption = PAIRS[number]
    width, height = Image.open(io.BytesIO(jpeg)).size
    fetched = (2 * width, 2 * height)
    return Made(pair_id(number), caption, size=fetched, picture=Picture(jpeg, phash=number))


def corpus(numbers: Sequence[int]) -> list[Stage[Any]]:
    return [Untrained(), Downloaded([[made(n) for n in numbers]]), Embed(TINY_RECIPE), *filter_stages(LOOSE)]


def updated(folder: Path, **update: Any) -> int:
    recipe = {"root": str(folder / "new"), "engine": "local", "update": {"index": str(folder / "old")} | update}
    (folder / "update.yaml").write_text(yaml.safe_dump(recipe | {"index": {"min_recall": None}}))
    return update_index.main([str(folder / "update.yaml")])


def searched(root: Path, number: int, k: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Pair ids, best first, by a picture."""
    (root.parent / "asked.jpg").write_bytes(PAIRS[number][0])
    capsys.readouterr()
    assert search.main([str(root), "--image", str(root.parent / "asked.jpg"), "--k", str(k)]) == 0
    return [line.split()[1] for line in capsys.readouterr().out.splitlines()[1::3]]


def test_search_finds_what_was_added_and_nothing_that_was_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "recipe.yaml").write_text(yaml.safe_dump({"embed": TINY_RECIPE.model_dump(mode="json")}))
    finish(tmp_path / "old", [*corpus(range(20)), *index_stages(IndexRecipe())])
    finish(tmp_path / "more", corpus(range(20, 30)))
    assert updated(tmp_path, add=[str(tmp_path / "more")], delete=[pair_id(7), pair_id(25)]) == 0
    assert "Added 10 pairs. Deleted 2 pairs" in capsys.readouterr().out
    assert searched(tmp_path / "new", 22, 1, capsys) == [pair_id(22)]
    left = {pair_id(number) for number in range(30)} - {pair_id(7), pair_id(25)}
    for number in (7, 25):
        assert set(searched(tmp_path / "new", number, 28, capsys)) == left
    assert stats.main([str(tmp_path / "new")]) == 0
    assert "removed_on_request" in capsys.readouterr().out


def test_vectors_of_a_model_that_was_trained_again_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(tmp_path / "old", [*corpus(range(20)), *index_stages(IndexRecipe())])
    finish(tmp_path / "more", [Retrained(), *corpus(range(20, 30))[1:]])
    assert updated(tmp_path, add=[str(tmp_path / "more")]) == 2
    assert "more were made in " in (said := capsys.readouterr().err)
    assert "so they cannot be compared" in said
    assert not (tmp_path / "new").exists()
