"""The table of results says what was measured, and its arms differ in nothing but how they read neighbours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from pipeline.recipe import load_recipe
from pipeline.schemas import SCORES
from trials.results.heading import heading
from trials.results.plot import plot
from trials.results.recipe import ResultsRecipe
from trials.results.table import Cell, Results, markdown
from trials.results.training import Cost, Seed, Training

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
SMALL: dict[str, Any] = {
    "root": "/runs/results",
    "world": {},
    "encoder": {},
    "tower": {"vit": {}},
    "embed": {"model": "encoder"},
    "training": {
        "model": {"preset": "nano", "vocab_size": 512},
        "language": {"updates": 3},
        "retrofit": {"updates": 2},
        "pretrain": {"updates": 5, "pairs": 8, "fives": 2},
    },
}
RECIPE = ResultsRecipe.model_validate(SMALL)
NONE = Cell("none", "none", 0, "text alone", 20)
CROSS_OWN, CROSS_OTHER = NONE._replace(model="cross", database="own"), NONE._replace(model="cross", database="other")
PAIRS = {"own": 1000, "other": 500, "both": 1500, "test": 250}


def scores(figures: Mapping[tuple[Cell, str, str, int], float], **told: Any) -> pl.DataFrame:
    """figures: by cell, domain, metric and seed."""
    rows = [
        {**cell._asdict(), "k": 2, "domain": domain, "metric": metric, "seed": seed, "value": value}
        | {"low": None, "high": None, "questions": 50, "note": ""}
        | told
        for (cell, domain, metric, seed), value in figures.items()
    ]
    schema = {name: pl.DataFrame(SCORES.empty_table()).schema[name] for name in SCORES.names} | {"seed": pl.Int64}
    return pl.DataFrame(rows, schema=schema)


def results_of(by_cell: Mapping[Cell, tuple[float, ...]], metric: str = "cider_d", **told: Any) -> Results:
    """CIDEr-D (or another metric) of seeds 1, 2, … of the whole set."""
    figures = {(c, "", metric, seed): value for c, values in by_cell.items() for seed, value in enumerate(values, 1)}
    return Results(scores(figures, **told), ())


def lines_of(report: str, *cells: object) -> list[list[str]]:
    """The rows of the report's tables that begin with these cells."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line.startswith("|")
    ]
    return [row for row in rows if row[: len(cells)] == list(map(str, cells))]


def test_a_score_is_the_mean_over_seeds_with_students_interval_times_100() -> None:
    report = markdown(results_of({NONE: (0.5, 0.6, 0.7)}))
    (line,) = lines_of(report, "none", "none", 0)
    assert line[4] == "60.0 ± 24.8"  # 4.303 · 10 / √3


def test_one_seed_has_no_interval() -> None:
    assert lines_of(markdown(results_of({NONE: (0.5,)})), "none")[0][4] == "50.0"


def test_a_gain_is_taken_within_a_seed() -> None:
    """Seeds that differ much, and an arm that is better by the same in all of them."""
    results = results_of({NONE: (0.2, 0.5, 0.8), CROSS_OWN: (0.3, 0.6, 0.9), CROSS_OTHER: (0.1, 0.4, 0.7)})
    own, other = (lines_of(markdown(results), "cross", database, 0)[1] for database in ("own", "other"))
    assert own[3] == "+10.0 ± 0.0"
    assert other[3] == "-10.0 ± 0.0"
    assert not results.gain(NONE)


def test_a_gain_is_over_the_same_number_of_shots_and_seeds_that_both_have() -> None:
    with_shots = NONE._replace(shots=4, examples="rices")
    cross_with_shots = with_shots._replace(model="cross", database="own")
    results = results_of({NONE: (0.2,), with_shots: (0.6,), CROSS_OWN: (0.3, 0.9), cross_with_shots: (0.7,)})
    assert results.gain(CROSS_OWN) == results.gain(cross_with_shots) == pytest.approx({1: 0.1})
    assert not results.gain(CROSS_OWN._replace(shots=8))


def test_rows_stand_in_the_order_in_which_people_compare_them() -> None:
    prefix = Cell("prefix", "both", 0, "text alone", 20)
    given = [CROSS_OTHER, CROSS_OWN._replace(shots=4), prefix, CROSS_OWN, NONE]
    assert results_of(dict.fromkeys(given, (0.5,))).cells == [
        *(NONE, prefix, CROSS_OWN, CROSS_OWN._replace(shots=4), CROSS_OTHER)
    ]


def test_domains_stand_beside_the_whole_set() -> None:
    figures = {(NONE, domain, "cider_d", 1): value for domain, value in (("", 0.5), ("in", 0.7), ("out", 0.3))}
    report = markdown(Results(scores(figures), ()))
    assert "| CIDEr-D | CIDEr-D, in | CIDEr-D, out |" in report
    assert lines_of(report, "none")[0][4:7] == ["50.0", "70.0", "30.0"]


def test_costs_stand_beside_the_scores_of_their_arm() -> None:
    def cost(stage: Any, mode: Any, flops: int) -> Cost:
        return Cost(stage=stage, mode=mode, seed=1, updates=5, samples=1600, tokens=9, flops=flops, figures={})

    costs = (
        cost("pretrain", "none", 10**12),
        cost("pretrain", "cross", 2 * 10**12),
        cost("retrofit", "cross", 5 * 10**11),
    )
    report = markdown(Results(results_of({NONE: (0.5,), CROSS_OWN: (0.6,)}).scores, costs))
    assert lines_of(report, "none", "none")[0][-3:] == ["1,600", "1", ""]
    assert lines_of(report, "cross", "own")[0][-3:] == ["1,600", "2", "0.5"]


def test_what_the_trainings_found_stands_in_their_table() -> None:
    figures = {"neighbor_empty": (0.125, 0.1, 0.2)}
    told: dict[str, Any] = {"updates": 5, "samples": 9, "tokens": 9, "flops": 10**12, "figures": figures}
    costs = (Cost(stage="retrofit", mode="cross", seed=1, **told), Cost(stage="retrofit", mode="cross", seed=2, **told))
    report = markdown(Results(results_of({NONE: (0.5,)}).scores, costs))
    assert lines_of(report, "cross", "retrofit")[0][-1] == "0.125 ± 0.000"


def test_the_nearest_captions_score_stands_once_a_database_and_number_of_shots() -> None:
    with_shots = CROSS_OWN._replace(shots=4, examples="rices")
    figures = {CROSS_OWN: (0.25, 0.25), CROSS_OTHER: (0.125, 0.125), with_shots: (0.5, 0.5)}
    nearest = markdown(results_of(figures, "nearest/cider_d")).split("## The nearest")[1]
    assert lines_of(nearest, "own") == [["own", "0", "25.0"], ["own", "4", "50.0"]]
    assert lines_of(nearest, "other") == [["other", "0", "12.5"]]


def test_a_score_of_a_part_of_the_set_is_told_to_be_one() -> None:
    whole, part = results_of({NONE: (0.5,)}), results_of({NONE: (0.5,)}, note="partial: 3 of 50 have no answer")
    assert "Not of the whole set" not in heading(RECIPE, whole, PAIRS)
    assert "**Not of the whole set:** partial: 3 of 50" in heading(RECIPE, part, PAIRS)


def test_test_pictures_that_were_learned_are_told() -> None:
    assert "No test picture" in heading(RECIPE, results_of({NONE: (0.0,)}, "in_trained_on"), PAIRS)
    assert "4 stand in own" in heading(RECIPE, results_of({NONE: (4.0,)}, "in_trained_on"), PAIRS)


def test_every_figure_is_in_the_table_for_machines() -> None:
    means = results_of({NONE: (0.2, 0.4), CROSS_OWN: (0.3, 0.6)}).means()
    found = {(row["model"], row["metric"]): row["mean"] for row in means.to_dicts()}
    assert found == pytest.approx({("none", "cider_d"): 0.3, ("cross", "cider_d"): 0.45, ("cross", "gain"): 0.15})


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    plot(results_of({NONE: (0.5, 0.6), CROSS_OWN: (0.6, 0.7)}), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def pretrainings(recipe: ResultsRecipe = RECIPE, seed: int = 1) -> dict[str, Training]:
    return {stage.recipe.mode: stage for stage in Seed(recipe, seed).stages() if stage.recipe.stage == "pretrain"}


def test_all_arms_are_pretrained_on_the_same_samples() -> None:
    sections = [stage.recipe.pretrain for stage in pretrainings().values()]
    assert len(sections) == 3
    for section in sections:
        assert section is not None
        assert section.sources == sections[0].sources  # type: ignore[union-attr]
        assert (section.updates, section.micro_batch) == (5, 32)
    assert len({stage.recipe.seed for stage in pretrainings().values()}) == 1, "so the same order too"


def test_no_arm_learns_from_other_or_test() -> None:
    """Neither pictures nor neighbours; a language model alone reads the words of both."""
    for stage in Seed(RECIPE, 1).stages():
        _, section = stage.recipe.stage_and_section
        named = {
            root for source in section.sources.values() for root in (source.corpus, source.neighbors, source.samples)
        }
        named |= {root for source in section.sources.values() for root in source.patches}
        parts = ("both", "text") if stage.name == "language" else ("own", "neighbors", "five", "patches")
        assert named - {None} <= {f"/runs/results/{part}" for part in parts}
        assert named - {None} <= {source.root for source in stage.inputs}, "so that a change of theirs is noticed"


def test_cross_alone_waits_for_a_retrofit() -> None:
    waits = {mode: {source.stage for source in stage.inputs} for mode, stage in pretrainings().items()}
    assert "retrofit" in waits["cross"]
    assert "language" in waits["none"] & waits["prefix"]
    assert "retrofit" not in waits["none"] | waits["prefix"]


def test_another_seed_leaves_the_trainings_of_this_one_as_they_were() -> None:
    more = ResultsRecipe.model_validate({**SMALL, "seeds": [1, 2, 3, 4]})
    for stage, same in zip(Seed(RECIPE, 1).stages(), Seed(more, 1).stages(), strict=True):
        assert stage.settings() == same.settings()
    assert Seed(more, 2).name != Seed(more, 1).name


def test_another_number_of_updates_is_another_training() -> None:
    course = SMALL["training"]["pretrain"] | {"updates": 6}
    longer = ResultsRecipe.model_validate(SMALL | {"training": SMALL["training"] | {"pretrain": course}})
    for mode, stage in pretrainings().items():
        assert stage.settings() != pretrainings(longer)[mode].settings()


@pytest.mark.parametrize("name", ["results_demo.yaml", "results_coco.yaml"])
def test_the_recipes_that_are_there_fit_together(name: str) -> None:
    assert load_recipe(ResultsRecipe, RECIPES / name).seeds == (1, 2, 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"world": None}, "either world, which draws all lists, or own, other and test"),
        ({"own": {"sources": [{"name": "a", "preset": "cc3m", "files": ["a"]}]}}, "either world"),
        ({"encoder": None}, "an encoder section goes with embed.model: encoder"),
        ({"tower": None}, "what the models see with"),
        ({"modes": []}, "at least 1 item"),
        ({"root": "s3://bucket/results"}, "give a folder"),
        ({"interleave": {"neighbors": "/runs/a"}}, "leave it out"),
        ({"training": SMALL["training"] | {"language": None}}, "either language"),
    ],
    ids=[
        "no lists",
        "world and a list",
        "no encoder",
        "no tower",
        "no arms",
        "a url",
        "neighbours",
        "no language model",
    ],
)
def test_a_recipe_that_does_not_fit_together_is_refused(change: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ResultsRecipe.model_validate({**SMALL, **change})
