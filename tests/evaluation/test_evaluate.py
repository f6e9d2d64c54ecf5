"""jobs/evaluate.py on drawn splits: every question is answered under every condition, no neighbour shows a picture of
its prompt, and a score is what the metrics say of the answers."""

import json
import os
import shutil
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
from model.evaluation.contestants import Contestant
from model.evaluation.encoder_recipe import EncoderEvaluationRecipe
from model.evaluation.encoder_scores import encoder_stages
from model.evaluation.evaluation_set import caption_questions, what_is_missing
from model.evaluation.examples import TextExamples
from model.evaluation.given import Given
from model.evaluation.matches import EvaluationMatches, read_matches
from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.run import Base, Run
from pipeline.stage import Counts, Stage
from pipeline.writer import ShardWriter, Task
from stages.download import Download, DownloadRecipe
from stages.embed import Embed
from stages.filter import CorpusReader, FilterRecipe, filter_stages
from stages.ingest import IngestRecipe, ingest_stages
from stages.interleave import FewshotReader
from tests.evaluation.worlds import FIVE, SHOWN_TOO, World, checkpoint, run, scenes, split, write_coco
from tests.stages.embed.pictures import TINY_RECIPE, Untrained
from tests.stages.filter.test_duplicates import KEEP_ALL

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
    partial = f"partial: 5 captions of the list are not in {test} (missing_file 5)"
    _, scores = world.evaluate(tmp_path / "partial", pictures=test, new_tokens=[2])
    assert set(scores.filter(pl.col("value").is_not_null())["note"]) == {partial}
    run(tmp_path / "encoder", encoder_stages(EncoderEvaluationRecipe(pictures=test)))
    recall = pl.DataFrame(Whole.open(str(tmp_path / "encoder"), "encoder_scores").tables("scores"))
    assert set(recall.filter(pl.col("value").is_not_null())["note"]) == {partial}


class FailingEmbed(Embed):
    def process(self, task: Task, out: ShardWriter, state: Any) -> Counts:
        if task.id == "000000":
            raise RuntimeError("out of order")
        return super().process(task, out, state)


def test_captions_of_a_shard_that_was_given_up_are_missing_too_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    captions = write_coco(tmp_path / "list", scenes(4, seed=1), FIVE)
    source = {"name": "test", "preset": "coco", "files": [str(captions)], "folder": str(captions.parent)}
    ingest = IngestRecipe.model_validate({"sources": [source], "duplicates": "keep", "shard_size": 5})
    stages: list[Stage[Any]] = [Untrained(), *ingest_stages(ingest), Download(DownloadRecipe())]
    stages += [FailingEmbed(TINY_RECIPE), *filter_stages(FilterRecipe(defaults=KEEP_ALL))]
    assert Run(str(tmp_path / "test"), stages, accept_failed=True).execute(LocalExecutor()).exit_code == 0
    assert what_is_missing(str(tmp_path / "test")).endswith("(shard_failed 5)")
    base = Base(root=str(tmp_path / "test"))
    assert Run(str(tmp_path / "based"), stages, base).execute(LocalExecutor()).exit_code == 0
    assert what_is_missing(str(tmp_path / "based")).endswith("(shard_failed 5)")


def test_a_condition_that_left_no_room_for_any_answer_is_told_of_and_one_with_fewer_examples_too(
    world: World, tmp_path: Path
) -> None:
    models = {"prefix": checkpoint(tmp_path / "prefix", "prefix")}
    asked = {"prompt": "a " * 70, "neighbors": [0, 2], "new_tokens": [5], "shots": [0, 2], "examples": world.examples}
    code, root = world.run(tmp_path / "long", asked, models=models)
    assert code == 0
    scores = pl.DataFrame(Whole.open(str(root), "evaluation_scores").tables("scores"))
    told = scores.filter(pl.col("metric") == "cider_d").select("k", "shots", "questions", "note")
    none = "no question has an answer; evaluation_answers/rejects says why"
    fewer = f"{TEST} of {TEST} prompts have no room for all 2 examples"
    expected = {(0, 0, TEST, ""), (0, 2, TEST, fewer)} | {(2, shots, 0, f"not computed: {none}") for shots in (0, 2)}
    assert set(told.iter_rows()) == expected


def test_a_model_that_is_replaced_while_it_is_asked_is_refused(tmp_path: Path) -> None:
    model = Contestant.of(checkpoint(tmp_path / "model", "none"))
    config = tmp_path / "model" / "config.json"
    config.write_text(f"{config.read_text()}\n")
    with pytest.raises(RecipeError, match="holds another model than when the evaluation began"):
        model.open()


def test_examples_of_a_corpus_that_was_made_anew_are_refused(world: World, tmp_path: Path) -> None:
    """A row id of theirs may mean another picture."""
    copied = shutil.copytree(world.examples, tmp_path / "examples")
    manifest = copied / "fewshot" / "manifest.json"
    made_of = CorpusReader(world.train).identity
    manifest.write_text(manifest.read_text().replace(made_of, "0" * len(made_of)))
    with pytest.raises(InputError, match="is not the one that the examples in .* were made of"):
        _ = FewshotReader(str(copied)).corpora


def test_matches_of_one_pair_are_in_the_order_of_the_set(world: World, tmp_path: Path) -> None:
    """Whatever the seed of a process' hashes: the stage would else be another one on another machine."""
    same = split(tmp_path / "same", write_coco(tmp_path / "list", scenes(1, seed=1) * 9, FIVE[:1]), "same")
    run(tmp_path / "matches", [EvaluationMatches(same, (world.test,))])
    found = pl.DataFrame(Whole.open(str(tmp_path / "matches"), "evaluation_matches").tables("matches"))
    of_a_pair = found.filter(pl.col("matched") == found["matched"][0])["pair_id"].to_list()
    assert len(of_a_pair) == 9
    assert of_a_pair == sorted(of_a_pair)


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


def test_examples_of_text_alone_are_two_captions_of_other_pictures(world: World, tmp_path: Path) -> None:
    """One test picture stands in the train split, too: its own captions are not drawn for it."""
    train, questions = CorpusReader(world.train), caption_questions(CorpusReader(world.test))
    run(tmp_path / "matches", [EvaluationMatches(world.test, (world.train,))])
    (shown_too,) = {
        match.picture for match in read_matches(Whole.open(str(tmp_path / "matches"), "evaluation_matches"))
    }
    own = {train.row(2 * TRAIN)["pair_id"], train.row(2 * TRAIN + 1)["pair_id"]}
    for seed in range(40):
        drawn = TextExamples(train, seed, lambda row: ("", row["pair_id"]), {shown_too: own})
        for question in questions:
            told = {each.answer for each in drawn.of(question) or ()}
            assert len(told) == 2
            assert question.pair_id != shown_too or told.isdisjoint(own)


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
        (
            {},
            {"databases": {"none": "/nowhere"}},
            "databases.none is /nowhere, and answers say none where a model has no",
        ),
        ({"text_examples": "TEST"}, {}, "their own captions would stand in the prompts"),
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
    places = {"EXAMPLES": world.examples, "TRAIN": world.train, "TEST": world.test}
    places |= {"DOMAINS": str(tmp_path / "domains.json")}
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
