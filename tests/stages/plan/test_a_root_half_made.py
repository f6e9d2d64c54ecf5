"""A plan that a root's own shards were measured for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.executor import LocalExecutor
from pipeline.recipe import Json
from pipeline.run import Base, Run
from stages.ingest import IngestRecipe
from stages.plan import Basis, Job, plan_of, room_for
from stages.plan.records import stage_done
from tests.stages.plan.planning import BROKEN, CRAWL, ROWS, SHARDS, crawled, forgetting, job_over
from tests.toys import Numbers

LATER = {f"{source * SHARDS + shard:06d}" for source in (0, 1) for shard in range(SHARDS // 2, SHARDS)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return crawled(tmp_path_factory.mktemp("crawl"))


def test_the_first_half_of_each_source_foretells_the_second(finished: Job, tmp_path: Path) -> None:
    whole = {stage.stage: stage.done for stage in plan_of(finished).stages}["download"]
    half = {stage.stage: stage for stage in plan_of(forgetting(finished, tmp_path / "root", LATER)).stages}["download"]
    assert half.left.shards.value == len(LATER) == whole.shards - half.done.shards
    assert half.left.rows_in.value == whole.rows_in - half.done.rows_in
    assert half.left.rows_out.value == pytest.approx(whole.rows_out - half.done.rows_out)
    assert half.left.files.value == pytest.approx(whole.files - half.done.files)
    later_bytes = whole.bytes + whole.record_bytes - half.done.bytes - half.done.record_bytes
    assert half.left.bytes.value == pytest.approx(later_bytes, rel=0.02)
    assert half.left.seconds.value == pytest.approx(half.done.seconds, rel=1e-6)


def test_what_is_measured_and_what_is_counted_is_told_apart(finished: Job, tmp_path: Path) -> None:
    *_, download = plan_of(forgetting(finished, tmp_path / "root", LATER)).stages
    assert download.left.rows_in.basis == Basis.COUNTED
    assert download.left.rows_out.basis == download.left.bytes.basis == download.cpu_hours.basis == Basis.MEASURED
    assert download.cost.basis == Basis.STATED


def test_a_source_without_shards_takes_the_others_bytes_but_not_their_survival(finished: Job, tmp_path: Path) -> None:
    of_b = {f"{shard:06d}" for shard in range(SHARDS, 2 * SHARDS)}
    plan = plan_of(forgetting(finished, tmp_path / "root", of_b))
    a, b = (line for line in plan.found.lines if line.stage == "download")
    assert a.rates.bytes == b.rates.bytes
    assert a.rates.survival.value == (ROWS - BROKEN) / ROWS
    assert b.rates.survival.basis == Basis.STATED


def test_of_a_finished_root_nothing_is_left(finished: Job) -> None:
    plan = plan_of(finished)
    for figure in (plan.bytes, plan.cost, plan.hours, plan.rent, *(total.left.files for total in plan.stages)):
        assert figure.value == 0
    assert room_for(plan).grows_by == 0
    assert [stage.done.shards for stage in plan.stages] == [2, 1, 1, 2 * SHARDS, 2 * SHARDS]


def test_a_finished_root_takes_as_much_again_from_nothing(finished: Job) -> None:
    plan = plan_of(finished)
    (again,) = plan.ways
    made = sum(total.done.bytes + total.done.record_bytes for total in plan.stages)
    on_disk = sum(
        path.stat().st_size
        for stage in CRAWL
        for path in Path(finished.root, stage).rglob("*")
        if path.is_file() and path.parent.name != stage
    )
    assert made == on_disk
    assert again.bytes.value == pytest.approx(made, rel=1e-6)
    assert again.urls.value == 2 * SHARDS * ROWS


def test_sums_over_stages_are_the_totals(finished: Job, tmp_path: Path) -> None:
    plan = plan_of(forgetting(finished, tmp_path / "root", LATER))
    lines = plan.found.lines
    for name in ("bytes", "files", "rows_in", "seconds"):
        by_source = sum(getattr(line.left, name).value for line in lines)
        assert sum(getattr(total.left, name).value for total in plan.stages) == pytest.approx(by_source)
    assert plan.bytes.value == pytest.approx(sum(line.left.bytes.value for line in lines))
    assert plan.cost.value == pytest.approx(sum(line.cpu_hours.value for line in lines) * plan.job.plan.prices.cpu_hour)


def test_a_root_not_begun_is_measured_on_its_base(finished: Job, tmp_path: Path) -> None:
    plan = plan_of(replace(finished, root=str(tmp_path / "new"), base=Base(root=finished.root)))
    download = [line for line in plan.found.lines if line.stage == "download"]
    assert [(line.done.shards, line.left.shards.value) for line in download] == [(0, SHARDS)] * 2
    for line in download:
        assert line.rates.survival.value == (ROWS - BROKEN) / ROWS
        assert line.rates.bytes.basis == line.rates.seconds.basis == Basis.MEASURED


@dataclass(frozen=True)
class OnACpu(Numbers):
    def conditions(self) -> Mapping[str, Json]:
        return {"device": "cpu"}


def test_seconds_of_another_device_foretell_nothing(tmp_path: Path) -> None:
    Run(str(tmp_path), [OnACpu(3)]).execute(LocalExecutor())
    for forget in (False, True):
        if forget:
            (tmp_path / "numbers" / "manifest.json").unlink()
        same, other = (stage_done(str(tmp_path), "numbers", {}, device).all for device in ("cpu", "cuda"))
        assert (same.timed_shards, other.timed_shards, other.seconds) == (3, 0, 0)
        assert same.seconds > 0
        assert (same.rows_in, same.bytes) == (other.rows_in, other.bytes)


def test_a_second_pass_that_was_begun_is_not_planned_and_serves_as_a_base(finished: Job, tmp_path: Path) -> None:
    rejects = {"preset": "rejects", "root": finished.root, "reasons": ["not_an_image"]}
    again = job_over(tmp_path / "again", IngestRecipe.model_validate({"sources": [rejects]}))
    Run(again.root, again.stages).execute(LocalExecutor())
    with pytest.raises(RecipeError, match="such as a second pass, is not planned here"):
        plan_of(again)
    fresh = replace(finished, root=str(tmp_path / "fresh"), base=Base(root=again.root))
    assert plan_of(fresh).stages[-1].left.shards.value == 2 * SHARDS
