"""jobs/evaluate.py on drawn splits: every question is answered under every condition, no neighbour shows a picture of
its prompt, and a score is what the metrics say of the answers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from model.evaluation.answerer import Decoding
from model.evaluation.caption_scores import caption_scores
from model.evaluation.captioner import Captioner
from model.evaluation.given import Given
from pipeline.commits import Whole
from stages.filter import CorpusReader
from tests.evaluation.worlds import FIVE, SHOWN_TOO, World, scenes, split, write_coco

TEST, TRAIN = World.test_pictures, World.train_pictures - 1


@pytest.fixture(scope="module")
def evaluated(world: World) -> tuple[pl.DataFrame, pl.DataFrame]:
    return world.evaluate(
        world.folder / "evaluated", shots=[0, 2], examples=world.examples, trained_on=[world.train], neighbors=[0, 2]
    )


def test_every_picture_is_asked_about_once_under_every_condition(evaluated: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    answers, _ = evaluated
    cells = answers.group_by("model", "database", "k", "shots", "new_tokens").agg(
        pl.len(), pl.col("question").n_unique().alias("questions")
    )
    assert set(cells.select("len", "questions").iter_rows()) == {(TEST, TEST)}
    asked = {("cross", "train", 2), ("cross", "none", 0), ("none", "none", 0)}
    assert set(cells.select("model", "database", "k").iter_rows()) == asked
    assert len(cells) == len(asked) * 2 * 2
    assert set(answers["references"].list.len()) == {len(FIVE)}
    assert set(answers.select("shots", "shown", "examples").iter_rows()) == {(0, 0, "none"), (2, 2, "rices")}


def test_no_neighbour_shows_the_picture_and_what_was_removed_is_counted(
    world: World, evaluated: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    answers, scores = evaluated
    shown = CorpusReader(world.train).row(2 * TRAIN)
    theirs = {shown["pair_id"], CorpusReader(world.train).row(2 * TRAIN + 1)["pair_id"]}
    of_it = answers.filter((pl.col("k") > 0) & (pl.col("image_id") == str(100 + SHOWN_TOO)))
    assert len(of_it)
    for row in of_it.iter_rows(named=True):
        assert theirs.isdisjoint(neighbor["pair_id"] for neighbor in row["neighbors"])
        assert row["removed"] == len(theirs) if row["shots"] == 0 else row["removed"] >= len(theirs)
        assert len(row["neighbors"]) == 2
    counted = scores.filter(pl.col("metric").is_in(["in_database", "in_trained_on"]) & (pl.col("k") > 0))
    assert set(counted["value"]) == {1.0}


def test_scores_are_what_the_metrics_say_of_the_answers(evaluated: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    answers, scores = evaluated
    cell = (pl.col("model") == "cross") & (pl.col("k") == 2) & (pl.col("shots") == 2) & (pl.col("new_tokens") == 5)
    rows = answers.filter(cell).to_dicts()
    references = {row["question"]: row["references"] for row in rows}
    found = dict(scores.filter(cell).select("metric", "value").iter_rows())
    for prefix, said in (
        ("", {row["question"]: row["answer"] for row in rows}),
        ("nearest/", {row["question"]: row["neighbors"][0]["caption"] for row in rows}),
    ):
        for name, figure in caption_scores(said, references).figures.items():
            assert found[prefix + name] == figure.value
    assert (found["meteor"], found["spice"]) == (None, None)


def test_a_prompt_without_examples_is_what_captioning_asks(
    world: World, evaluated: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    answers, _ = evaluated
    corpus = CorpusReader(world.test)
    captioner = Captioner.open(world.models["cross"], world.train, Decoding(max_new_tokens=5))
    told = answers.filter((pl.col("k") == 2) & (pl.col("shots") == 0) & (pl.col("new_tokens") == 5))
    for row in told.iter_rows(named=True):
        picture = corpus.picture(corpus.row(row["row_id"]))
        (caption,) = captioner.captions(iter([Given("", picture)]))
        assert caption.caption == row["answer"]
        assert [n.pair["pair_id"] for n in caption.neighbors] == [n["pair_id"] for n in row["neighbors"]]


def test_a_set_that_is_not_whole_is_told_with_every_score(world: World, tmp_path: Path) -> None:
    captions = write_coco(tmp_path / "list", scenes(TEST, seed=1), FIVE)
    (tmp_path / "list" / "4.png").unlink()
    test = split(tmp_path / "test", captions, "test")
    _, scores = world.evaluate(tmp_path / "partial", pictures=test, new_tokens=[2])
    noted = scores.filter(pl.col("value").is_not_null())["note"]
    assert set(noted) == {f"partial: 5 captions of the list are not in {test} (missing_file 5)"}


def test_domains_are_scored_apart(world: World, tmp_path: Path) -> None:
    domains = {str(100 + number): "in" if number < 3 else "out" for number in range(TEST)}
    path = tmp_path / "domains.json"
    path.write_text(json.dumps({"images": [{"id": int(image), "domain": name} for image, name in domains.items()]}))
    answers, scores = world.evaluate(tmp_path / "domains", domains=str(path), new_tokens=[2], neighbors=[0])
    counts = scores.filter(pl.col("metric") == "cider_d").select("domain", "questions")
    assert set(counts.iter_rows()) == {("", TEST), ("in", 3), ("out", TEST - 3)}
    rows = [row for row in answers.to_dicts() if row["model"] == "none" and row["domain"] == "in"]
    said = {row["question"]: row["answer"] for row in rows}
    alone = caption_scores(said, {row["question"]: row["references"] for row in rows}).figures["bleu_1"].value
    cell = (pl.col("model") == "none") & (pl.col("domain") == "in") & (pl.col("metric") == "bleu_1")
    assert scores.filter(cell)["value"].to_list() == [alone]


def test_examples_of_text_alone_are_of_the_train_split_and_the_same_again(world: World, tmp_path: Path) -> None:
    made = [
        world.evaluate(tmp_path / name, text_examples=world.train, new_tokens=[4], neighbors=[0])[0]
        for name in ("one", "other")
    ]
    assert made[0].equals(made[1])
    assert set(made[0].select("examples", "shown").iter_rows()) == {("text alone", 2)}


@pytest.mark.parametrize(
    ("evaluation", "said", "expected"),
    [
        ({"shots": [2]}, {}, "shots asks for 2 examples; name the root of jobs/make_fewshot.py in examples"),
        ({"shots": [4], "examples": "EXAMPLES"}, {}, "evaluation.shots asks for 4, and"),
        ({"pictures": "TRAIN", "shots": [2], "examples": "EXAMPLES"}, {}, "holds examples for the pictures of"),
        ({"neighbors": [5]}, {}, "evaluation.neighbors asks for 5, and cross"),
        ({"pictures": "/nowhere"}, {}, "/nowhere"),
        ({}, {"models": {"a": "/nowhere"}}, "/nowhere is not finished"),
        ({}, {"databases": {"a": "/nowhere"}}, "/nowhere"),
        ({}, {"databases": {}}, "databases"),
        ({"domains": "DOMAINS"}, {}, "tells nothing of 7 of 7 pictures, such as image_id 100, 101"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_starts(
    world: World,
    tmp_path: Path,
    evaluation: dict[str, Any],
    said: dict[str, Any],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "domains.json").write_text('{"images": [{"id": 1, "domain": "in"}]}')
    places = {"EXAMPLES": world.examples, "TRAIN": world.train, "DOMAINS": str(tmp_path / "domains.json")}
    named = {key: places.get(str(value), value) for key, value in evaluation.items()}
    code, root = world.run(tmp_path / "refused", named, **said)
    assert code == 2
    assert expected in capsys.readouterr().err
    assert not (root / "evaluation_answers").exists()


STAGES = ("evaluation_matches", "evaluation_answers", "evaluation_scores", "evaluation_page")


def identities(root: Path) -> dict[str, str]:
    return {stage: Whole.open(str(root), stage).identity for stage in STAGES}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["plan", "written", "committed", "manifest"])
@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_run_again_and_on_ray_the_bytes_are_the_same(
    ray_cluster: None, world: World, tmp_path: Path, stage: str, step: str
) -> None:
    asked = {"shots": [0, 2], "examples": world.examples, "questions_per_shard": 3}
    world.run(tmp_path / "quiet", asked)
    command = [sys.executable, "jobs/evaluate.py", str(tmp_path / "quiet.yaml"), f"root={tmp_path / 'killed'}"]
    killed = subprocess.run(
        command, env=os.environ | {"REVILM_FAILPOINT": f"{stage}:{step}"}, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    code, killed_root = world.run(tmp_path / "killed", asked, engine="ray")
    assert code == 0
    assert identities(killed_root) == identities(tmp_path / "quiet")
