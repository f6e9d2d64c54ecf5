"""A wrong recipe stops before anything starts, with every fault in one report and the nearest name suggested."""

from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe import Section, dump_recipe, load_recipe


class Filter(Section):
    min_clip_score: float | None = 0.28
    min_short_side: int = 64


class Source(Section):
    name: str
    files: tuple[str, ...] = ()


class Toy(Section):
    root: str
    filter: Filter = Filter()
    sources: tuple[Source, ...] = ()


def write(folder: Path, text: str) -> Path:
    path = folder / "toy.yaml"
    path.write_text(text)
    return path


def test_overrides_are_yaml_values_and_win(tmp_path: Path) -> None:
    path = write(tmp_path, "root: here\nfilter: {min_short_side: 10}")
    recipe = load_recipe(Toy, path, ["filter.min_clip_score=null", "root=there"])
    assert recipe == Toy(root="there", filter=Filter(min_clip_score=None, min_short_side=10))


def test_what_is_written_beside_the_output_reads_back_as_the_same_recipe(tmp_path: Path) -> None:
    recipe = Toy(root="ä", sources=(Source(name="a", files=("x", "y")),))
    assert load_recipe(Toy, write(tmp_path, dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("root: a\nfilter: {min_clipscore: 1}", [], "did you mean filter.min_clip_score"),
        ("root: a", ["fliter.min_clip_score=1"], "fliter is not a setting; did you mean filter"),
        ("root: a", ["filter.min_short_side=wide"], "filter.min_short_side: .*found 'wide'"),
        ("root: a\nsources: [{nam: x}]", [], "sources.0.nam is not a setting; did you mean sources.0.name"),
        ("filter: {}", [], "root: Field required"),
        ("root: a", ["root"], "write section.key=value"),
        ("root: a", ["root.inner=1"], "root holds 'a', which has no settings inside"),
        ("root: [a", [], "is not YAML"),
        ("- a", [], "should hold sections"),
    ],
)
def test_a_fault_is_named_with_what_is_allowed(text: str, overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(Toy, write(tmp_path, text), overrides)


def test_all_faults_come_in_one_report(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as found:
        load_recipe(Toy, write(tmp_path, "filter: {min_short_side: x, nope: 1}"), ["oops"])
    assert len(str(found.value).splitlines()) == 4


def test_a_missing_recipe_is_said_to_be_missing() -> None:
    with pytest.raises(RecipeError, match="missing.yaml does not exist; recipes lie in jobs/recipes"):
        load_recipe(Toy, Path("missing.yaml"))
