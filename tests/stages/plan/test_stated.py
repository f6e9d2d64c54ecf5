"""Plans of the large recipes, made of stated rates alone, by the job itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.build_index import BuildIndexRecipe
from jobs.plan import job_of, main
from pipeline.errors import RecipeError
from pipeline.recipe import load_recipe
from stages.embed import EmbedRecipe
from stages.index.factory import auto_factory
from stages.index.recipe import IndexRecipe
from stages.index.size import index_bytes
from stages.plan import Basis, Job, Plan, plan_of, room_for
from stages.plan.lines import Found
from stages.plan.stated import width_of

RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"


def planned(name: str, *overrides: str) -> Plan:
    return plan_of(job_of(load_recipe(BuildIndexRecipe, RECIPES / name, ["root=/nowhere/at-all", *overrides])))


def told(plan: Plan, stage: str) -> Any:
    return next(total for total in plan.stages if total.stage == stage)


@pytest.mark.parametrize("name", ["ccs.yaml", "coyo.yaml"])
def test_everything_is_said_to_be_stated(name: str) -> None:
    for total in planned(name).stages:
        for figure in (total.left.rows_in, total.left.bytes, total.left.files, total.cpu_hours, total.cost):
            assert figure.basis == Basis.STATED or not figure.value


def test_coyo_comes_to_the_papers_corpus_with_and_without_its_columns() -> None:
    with_columns, without = planned("coyo.yaml").ways
    assert with_columns.pairs.value == pytest.approx(104e6, rel=0.01)
    assert without.pairs.value == pytest.approx(with_columns.pairs.value)
    assert without.urls.value == pytest.approx(746_972_269)
    assert with_columns.urls.value == pytest.approx(without.urls.value / 4)
    for figure in ("bytes", "hours", "cost", "cpu_hours"):
        assert getattr(with_columns, figure).value < getattr(without, figure).value


def test_what_a_recipe_states_is_taken_with_and_without_its_columns() -> None:
    survival = "plan.survival={coyo: {prefilter: 0.5, download: 0.6, filter_judge: 0.4}}"
    with_columns, without = planned("coyo.yaml", survival).ways
    assert with_columns.pairs.value == pytest.approx(746_972_269 * 0.5 * 0.6 * 0.4)
    assert without.pairs.value == pytest.approx(with_columns.pairs.value)


def test_ccs_is_kept_whole_but_for_dead_urls() -> None:
    (way,) = planned("ccs.yaml").ways
    assert way.pairs.value == pytest.approx((0.93 * 3_318_333 + 0.7 * 13_423_374) * 0.99)


@pytest.mark.parametrize("rows", [200_000, 1_000_000, 13_000_000, 119_000_000])
def test_the_indexs_bytes_are_those_of_its_own_formula(rows: int) -> None:
    keep_all = "plan.survival={coyo: {prefilter: 1, download: 1, filter_judge: 1}}"
    plan = planned("coyo.yaml", f"plan.rows.coyo={rows}", keep_all)
    formula = index_bytes(auto_factory(IndexRecipe(), rows, 512, rows), 512, rows)
    assert told(plan, "index").left.bytes.value == pytest.approx(formula.total, rel=0.01)
    assert told(plan, "index").left.shards.value == formula.shards


def test_twice_the_cluster_halves_what_its_cpus_bound() -> None:
    one, two = (planned("coyo.yaml", f"plan.cpus={cpus}", "plan.network_gbit=1000") for cpus in (64, 128))
    assert one.bounds["CPUs"].value == pytest.approx(2 * two.bounds["CPUs"].value)
    assert one.cost.value == pytest.approx(two.cost.value)
    assert (
        told(one, "index_train").hours.value == told(two, "index_train").hours.value
    )  # one process, whatever there is


def test_a_stage_that_is_allowed_few_workers_takes_as_long_as_these() -> None:
    free, held = planned("coyo.yaml"), planned("coyo.yaml", "download.workers=4")
    assert held.bounds["download.workers"].value == pytest.approx(told(free, "download").left.seconds.value / 4 / 3600)
    assert held.hours.value > 10 * free.hours.value


def test_no_host_is_known_where_no_list_is_there() -> None:
    assert "largest host" not in planned("coyo.yaml").bounds
    hours = planned("ccs.yaml").bounds["largest host"].value
    assert hours == pytest.approx(3_318_333 * 0.14 / 8 / 3600)


def test_the_width_of_another_runs_encoder_has_to_be_told() -> None:
    with pytest.raises(RecipeError, match=r"embed\.model is 'encoder'.* name a model of open_clip"):
        width_of(Job("root", [], embed=EmbedRecipe(model="encoder")))


def test_an_object_stores_room_is_not_checked() -> None:
    found = planned("coyo.yaml").found
    room = room_for(Plan(Found(replace(found.job, root="s3://bucket/coyo"), found.rows, found.done, found.seen)))
    assert (room.free, room.enough) == (None, True)
    assert "not checked" in str(room)


def test_a_disk_without_room_is_told_with_the_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe, root = str(RECIPES / "coyo.yaml"), f"root={tmp_path}/coyo"
    assert main([recipe, root, "plan.rows.coyo=2000", "plan.cpus=1"]) == 0
    assert "it fits" in capsys.readouterr().out
    assert main([recipe, root, "plan.rows.coyo=100000000000", "index.train_memory_gib=1000"]) == 1
    assert f"free in {tmp_path}: IT DOES NOT FIT" in capsys.readouterr().out


def test_the_job_prints_tables_and_json_of_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(RECIPES / "coyo.yaml"), "root=/nowhere/at-all", "plan.rows.coyo=100000"]
    main([*arguments, "--json"])
    found = json.loads(capsys.readouterr().out)
    main(arguments)
    printed = capsys.readouterr().out
    for title in ("sources", "still to make", "time", "money", "from nothing", "rates"):
        assert title in printed
        assert found[title]
    *stages, everything = found["still to make"]
    assert everything["bytes"]["value"] == pytest.approx(sum(stage["bytes"]["value"] for stage in stages))
    assert everything["bytes"]["known"] == "stated"
    assert "not on this machine" in printed


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("plan.gpus=0", "embed asks for a GPU"),
        ("plan.prices.cpu_hours=1", "did you mean plan.prices.cpu_hour?"),
        ("plan.rows={}", "plan.rows.coyo=N"),
        ("plan.survival.coyo.download=1.5", "plan.survival.coyo.download"),
    ],
)
def test_a_wrong_recipe_is_refused(override: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(RECIPES / "coyo.yaml"), "root=/nowhere/at-all", override]) == 2
    assert said in capsys.readouterr().err


def test_a_shard_that_would_end_before_its_largest_host_has_answered_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert planned("ccs.yaml").warnings == []
    (warning,) = planned("ccs.yaml", "download.workers=1024").warnings
    assert "1,400 rows of a shard of cc3m are at its largest host and take 50 h" in warning
    assert "Set download.workers to at most 123" in warning
    assert planned("ccs.yaml", "download.workers=123").warnings == []
    main([str(RECIPES / "ccs.yaml"), "root=/nowhere/at-all", "download.workers=1024"])
    assert f"Beware: {warning}" in capsys.readouterr().out
