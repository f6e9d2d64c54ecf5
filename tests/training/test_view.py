"""What a person watches: on a terminal, in a log, in TensorBoard, in JSON."""

import io
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from model.training.view import JsonLines, Step, TensorBoard, TerminalView, Watcher

STEP = Step(
    update=1,
    updates=100,
    losses={"pairs": 2.5, "interleaved": 3.25},
    learning_rate=3e-4,
    gradient_norm=0.83,
    seconds={"wait": 0.5, "compute": 1.0, "step": 0.5},
    samples=64,
    tokens=1000,
    padding=0.125,
    skipped={"held_out": 2, "no_picture": 1},
    mfu=0.412,
    memory_gib=12.34,
    gates={"1": (0.25, -0.5)},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told_steps(watcher: Watcher, first: int, last: int) -> None:
    for update in range(first, last + 1):
        watcher.step(replace(STEP, update=update))


def written(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Update and value of every scalar, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_terminal_shows_where_the_run_is_and_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    screen = Terminal()
    view = TerminalView(screen)
    told_steps(view, 1, 10)
    view.evaluated(10, {"loss": 2.25, "image_shuffle": 0.125})
    view.close()
    shown = screen.getvalue()
    for told in (
        "update 10/100 · ETA 0:03:00",
        "loss pairs 2.5000 · loss interleaved 3.2500",
        "rate 3.00e-04 · gradient norm 0.83 · skipped 2 held_out, 1 no_picture",
        "32 samples/s · 500 tokens/s · padding 12%",
        "2.000 s an update: wait 25.0% · compute 50.0% · step 25.0%",
        "MFU 41.2% · memory 12.3 GiB",
        "gates 1: +0.250 -0.500",
        "evaluation at update 10: loss 2.25 · image_shuffle 0.125",
    ):
        assert told in shown


def test_speeds_are_means_over_recent_updates(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "training")
    view = TerminalView(io.StringIO(), every_s=0)
    view.step(replace(STEP, seconds={"wait": 1.0, "step": 1.0}))
    view.step(replace(STEP, update=2, seconds={"wait": 0.0, "step": 6.0}, mfu=None))
    first, second = (record.getMessage() for record in caplog.records)
    assert "32 samples/s" in first
    assert "wait 50.0%" in first
    assert "16 samples/s" in second
    assert "wait 12.5%" in second
    assert "ETA 0:06:32" in second
    assert "MFU" not in second


def test_where_there_is_no_terminal_the_log_has_a_line_now_and_then_and_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "training")
    stream = io.StringIO()
    view = TerminalView(stream, every_s=3600)
    told_steps(view, 1, 100)
    view.evaluated(100, {"loss": 2.25})
    view.close()
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" · ")[0] for line in said] == [
        "update 1/100",
        "update 100/100",
        "evaluation at update 100: loss 2.25",
    ]
    assert stream.getvalue() == ""


def test_tensorboard_reads_back_what_it_was_told(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    told_steps(board, 1, 3)
    board.evaluated(3, {"image_shuffle": 0.125})
    board.step(replace(STEP, update=4, gates={}, mfu=None))
    board.close()
    values = {name: dict(points) for name, points in written(tmp_path).items()}
    assert values["loss/pairs"] == dict.fromkeys((1, 2, 3, 4), 2.5)
    assert values["MFU"] == pytest.approx(dict.fromkeys((1, 2, 3), 0.412))
    assert values["samples a second"][1] == 32
    assert values["seconds/wait"][2] == 0.5
    assert values["evaluation/image_shuffle"] == {3: 0.125}
    assert values["dense gate/1"] == dict.fromkeys((1, 2, 3), -0.5)


def test_tensorboard_has_every_update_once_after_a_resume(tmp_path: Path) -> None:
    for first, last in [(1, 5), (4, 6)]:
        board = TensorBoard(tmp_path, first_update=first)
        told_steps(board, first, last)
        board.close()
    assert [update for update, _ in written(tmp_path)["loss/pairs"]] == [1, 2, 3, 4, 5, 6]


def test_json_has_a_line_an_update_that_can_be_read_at_once(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "updates.jsonl")
    told_steps(lines, 1, 2)
    lines.evaluated(2, {"loss": 2.25})
    first, second, evaluation = map(json.loads, (tmp_path / "updates.jsonl").read_text().splitlines())
    lines.close()
    assert (first["update"], second["update"]) == (1, 2)
    assert first["losses"] == {"pairs": 2.5, "interleaved": 3.25}
    assert first["gates"] == {"1": [0.25, -0.5]}
    assert evaluation == {"update": 2, "evaluation": {"loss": 2.25}}


def test_a_resumed_run_has_every_update_once_also_after_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "updates.jsonl"
    lines = JsonLines(path)
    told_steps(lines, 1, 3)
    lines.evaluated(3, {"loss": 2.25})
    told_steps(lines, 4, 6)
    lines.close()
    with path.open("a") as file:
        file.write('{"update": 7, "upda')
    resumed = JsonLines(path, first_update=5)
    told_steps(resumed, 5, 8)
    resumed.close()
    read = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["update"] for line in read if "losses" in line] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["update"] for line in read if "evaluation" in line] == [3]


def test_a_new_run_leaves_nothing_of_an_old_one(tmp_path: Path) -> None:
    for _ in range(2):
        lines = JsonLines(tmp_path / "updates.jsonl")
        told_steps(lines, 1, 2)
        lines.close()
    assert len((tmp_path / "updates.jsonl").read_text().splitlines()) == 2
