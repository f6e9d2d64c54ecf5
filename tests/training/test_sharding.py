"""Two processes learn what one learns, whether each holds the whole model or a part of it, and stop together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small_training import Outcome, Training, furthest, outcome
from tests.training.two_ranks import (
    BAD_ON_ALL,
    BAD_ON_ONE,
    CAPTIONS,
    LANGUAGE,
    LLAMA,
    MICRO_4,
    NARROW,
    ONE_SAMPLE,
    PREFIX,
    RECOMPUTED,
    TWO_SOURCES,
    loss_of_one,
    start_two,
    taken_over,
)

Answers = list[dict[str, Any]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return start_two(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def slow_answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return start_two(tmp_path_factory.mktemp("two"), slowly=True)


def assert_as_alone(found: list[Outcome], due: Outcome) -> None:
    for each in found:
        assert each.losses == pytest.approx(due.losses, rel=1e-5)
        assert each.norms == pytest.approx(due.norms, rel=1e-5)
        assert_same(each, due)
    assert all(torch.equal(found[0].weights[name], found[1].weights[name]) for name in found[0].weights)


def assert_same(found: Outcome, due: Outcome) -> None:
    assert furthest(found.weights, due.weights) < 5e-5
    assert furthest(found.moments, due.moments) < 5e-5


@pytest.mark.parametrize(
    ("name", "training", "updates"),
    [
        ("two sources", TWO_SOURCES, (0, 1)),
        ("captions", CAPTIONS, (0, 1)),
        ("bad samples on one rank", BAD_ON_ONE, (1, 2)),
        ("bad samples on all ranks", BAD_ON_ALL, (1, 2)),
        ("prefix", PREFIX, (0, 1)),
        ("llama", LLAMA, (0, 1)),
        ("one sample", ONE_SAMPLE, (0, 1)),
        ("sharded: two sources", TWO_SOURCES, (0, 1)),
        ("sharded: bad samples on one rank", BAD_ON_ONE, (1,)),
    ],
)
def test_two_processes_learn_what_one_learns(
    answers: Answers, name: str, training: Training, updates: tuple[int, ...]
) -> None:
    assert_as_alone([each[name] for each in answers], outcome(training, updates))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "training", "updates"),
    [
        ("language", LANGUAGE, 2),
        ("sharded: accumulated", TWO_SOURCES, 3),
        ("sharded: captions", CAPTIONS, 2),
        ("sharded: prefix", PREFIX, 2),
        ("sharded: llama", LLAMA, 2),
        ("sharded: language", LANGUAGE, 2),
        ("sharded: recomputed", RECOMPUTED, 2),
    ],
)
def test_two_processes_learn_what_one_learns_in_every_stage_and_mode(
    slow_answers: Answers, name: str, training: Training, updates: int
) -> None:
    assert_as_alone([each[name] for each in slow_answers], outcome(training, range(updates)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["narrow", "sharded: narrow"])
def test_two_processes_learn_in_bf16_nearly_what_one_learns(slow_answers: Answers, name: str) -> None:
    due = outcome(NARROW)
    for each in slow_answers:
        assert each[name].losses == pytest.approx(due.losses, rel=0.01)


@pytest.mark.parametrize("name", ["bad samples on one rank", "sharded: bad samples on one rank"])
def test_bad_samples_of_one_process_are_known_to_both(answers: Answers, name: str) -> None:
    for each in answers:
        assert each[name].steps[0].skipped == {"no_picture": 3}
        assert not any(step.skipped for step in each[name].steps[1:])


def assert_stopped(stopped: Any) -> None:
    """Before anything was touched."""
    assert stopped.told == "update 2: the loss of pairs is nan and the norm of the gradient is nan"
    for before, after in (
        (stopped.before.weights, stopped.after.weights),
        (stopped.before.moments, stopped.after.moments),
    ):
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_not_finite_on_one_process_stops_both(answers: Answers, rank: int) -> None:
    for each in answers:
        assert_stopped(each[f"not a number on rank {rank}"])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_not_finite_on_one_process_stops_both_that_hold_parts(slow_answers: Answers, rank: int) -> None:
    for each in slow_answers:
        assert_stopped(each[f"sharded: not a number on rank {rank}"])


def test_gradients_go_from_process_to_process_once_an_update(answers: Answers) -> None:
    assert [each["reductions"] for each in answers] == [1, 1]


def test_training_goes_on_with_another_sharding(answers: Answers) -> None:
    due = outcome(MICRO_4, range(3))
    for each in answers:
        handed, _, reached = each["handed on"]
        for way in handed:
            for before, after in zip(way.before, way.after, strict=True):
                assert before.keys() == after.keys()
                assert all(torch.equal(before[name], after[name]) for name in before)
        assert reached.losses == pytest.approx(due.losses[-2:], rel=1e-5)
        assert_same(reached, Outcome(due.steps[-2:], due.weights, due.moments))


def test_a_model_in_parts_is_asked_as_a_whole_one(answers: Answers, tmp_path: Path) -> None:
    """Before its first update too, and of another sample by each process."""
    for rank, each in enumerate(answers):
        handed, (in_parts, whole), _ = each["handed on"]
        for number, (way, found) in enumerate(zip(handed, (in_parts, whole), strict=True), 1):
            model, _ = taken_over(MICRO_4, way.before, number, tmp_path)
            assert loss_of_one(model, rank) == pytest.approx(found, rel=1e-5)
