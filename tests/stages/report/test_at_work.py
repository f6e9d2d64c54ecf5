"""What is said of a run at work, from what its driver wrote."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.status import StageStatus, Status
from stages.report.at_work import progress, said


def stage(**known: object) -> StageStatus:
    values = {"stage": "download", "shards": 10, "done": 4, "rows_in": 400, "rows_out": 300, "rows_per_s": 20.0}
    values |= {"rejects": {"dns": 60, "tls": 10, "deadline": 20, "too_large": 10}, "eta_s": 3723.0, "typical_s": 5.0}
    return StageStatus.model_validate(values | {"running": {}, "failed": {}} | known)


def status(*stages: StageStatus, ended: bool = False, age_s: float = 0) -> Status:
    written = datetime.now(UTC) - timedelta(seconds=age_s)
    return Status(written=written, host="head", pid=7, ended=ended, stages=list(stages))


def test_a_line_a_stage_holds_rate_share_and_time_left() -> None:
    (line,) = progress(status(stage()))["progress"].to_dicts()
    assert (line["share"], line["rows_per_s"], line["time_left"]) == (0.75, 20.0, "1:02:03")


def test_the_leading_reasons_are_the_commonest_three() -> None:
    rows = progress(status(stage()))["leading reasons"].to_dicts()
    assert [(row["reason"], row["share"]) for row in rows] == [("dns", 0.15), ("deadline", 0.05), ("tls", 0.025)]


def test_stragglers_run_far_longer_than_the_median_and_the_longest_stands_first() -> None:
    shown = progress(status(stage(running={"000001": 14.9, "000002": 15.1, "000003": 90.0})))["stragglers"]
    assert shown["shard"].to_list() == ["000003", "000002"]


def test_before_a_first_shard_nothing_is_slow_and_no_time_is_told() -> None:
    early = stage(done=0, rows_in=0, rows_out=0, rejects={}, eta_s=None, typical_s=None, running={"000001": 500.0})
    found = progress(status(early))
    assert found["stragglers"].is_empty()
    assert found["progress"]["time_left"].to_list() == [None]


def test_of_a_run_that_ended_only_what_failed_is_shown() -> None:
    found = progress(status(stage(failed={"000009": "ValueError: no"}), ended=True))
    assert list(found) == ["failed"]
    assert found["failed"].row(0) == ("download", "000009", "ValueError: no")


@pytest.mark.parametrize(
    ("age_s", "ended", "told"),
    [
        (3, False, "is at work"),
        (-3600, False, "is at work, and said this 0 s ago"),  # the driver's clock is ahead of ours
        (7200, False, "2:00:00 ago"),
        (9, True, "No driver"),
    ],
)
def test_a_driver_that_is_silent_is_not_said_to_work(age_s: float, ended: bool, told: str) -> None:
    assert told in said(status(ended=ended, age_s=age_s))
