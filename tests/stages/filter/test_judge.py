"""One reason a row, the first that applies; thresholds are the source's; removals are obeyed."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.reasons import Reason
from pipeline.recipe import Section, dump_recipe, load_recipe
from pipeline.schemas import JUDGED
from stages.filter import FilterRecipe, TextRules, Thresholds
from stages.filter.exclusions import Exclusions
from stages.filter.judge import SETTING_OF, fault_of
from stages.filter.rules import Pair
from tests.stages.filter.making import Made, crawl, filtered, in_shards, random_pairs

ALL_LIMITS = Thresholds(max_nsfw=0.5, max_watermark=0.5)


def judged_pair(**changes: Any) -> Pair:
    pair = Made(**changes)
    return cast(Pair, pair.row() | {"pair_id": pair.pair_id, "clip_score": pair.clip_score})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"size": (64, 64)}, None),
        ({"size": (63, 640)}, Reason.SMALL_IMAGE),
        ({"size": (300, 100)}, None),
        ({"size": (100, 301)}, Reason.EXTREME_ASPECT),
        ({"nsfw": 0.5}, None),
        ({"nsfw": 0.51}, Reason.NSFW),
        ({"watermark": 0.51}, Reason.WATERMARK),
        ({"caption": "IMG_1234.jpg"}, Reason.CAPTION_FILE_NAME),
        ({"clip_score": 0.28}, None),
        ({"clip_score": 0.2799}, Reason.LOW_CLIP_SCORE),
        ({"clip_score": float("nan")}, Reason.LOW_CLIP_SCORE),
        # the first reason counts
        ({"size": (10, 100), "nsfw": 1.0, "caption": "!!!", "clip_score": 0.0}, Reason.SMALL_IMAGE),
        ({"nsfw": 1.0, "watermark": 1.0, "caption": "!!!", "clip_score": 0.0}, Reason.NSFW),
        ({"watermark": 1.0, "caption": "!!!", "clip_score": 0.0}, Reason.WATERMARK),
        ({"caption": "!!!", "clip_score": 0.0}, Reason.CAPTION_NO_LETTERS),
    ],
)
def test_a_pair_leaves_with_the_first_reason_that_applies(changes: dict[str, Any], reason: Reason | None) -> None:
    fault = fault_of(judged_pair(**changes), ALL_LIMITS)
    assert (fault[0] if fault else None) is reason


def test_the_detail_says_what_was_found_and_what_is_asked() -> None:
    fault = fault_of(judged_pair(clip_score=0.125), ALL_LIMITS)
    assert fault == (Reason.LOW_CLIP_SCORE, "min_clip_score 0.28: found 0.125")


def test_null_switches_every_rule_off() -> None:
    nothing = Thresholds(min_clip_score=None, min_short_side_px=None, max_aspect=None, text=None)
    worst = judged_pair(size=(1, 500), nsfw=1.0, watermark=1.0, caption="!!!", clip_score=-1.0)
    assert fault_of(worst, nothing) is None


def test_every_reason_names_a_setting_that_exists() -> None:
    for setting in SETTING_OF.values():
        kind: Any = {"filter": FilterRecipe}
        for name in setting.split("."):
            kind = {"defaults": Thresholds, "text": TextRules}.get(name) or (
                kind[name] if isinstance(kind, dict) else kind.model_fields[name]
            )


# ── thresholds per source ──


class Recipe(Section):
    filter: FilterRecipe


def test_a_source_overrides_field_by_field_also_within_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "filter: {defaults: {min_clip_score: 0.3, text: {min_characters: 5, max_characters: 99}},"
        " sources: {ccs: {min_clip_score: null, text: {min_characters: 2}}, coyo: {text: null}}}"
    )
    recipe = load_recipe(Recipe, tmp_path / "recipe.yaml").filter
    assert recipe.thresholds("another") == recipe.defaults
    ccs, coyo = recipe.thresholds("ccs"), recipe.thresholds("coyo")
    assert (ccs.min_clip_score, ccs.min_short_side_px) == (None, 64)
    assert ccs.text is not None
    assert (ccs.text.min_characters, ccs.text.max_characters) == (2, 99)
    assert (coyo.min_clip_score, coyo.text) == (0.3, None)


def test_the_resolved_recipe_reads_back_as_the_same_recipe(tmp_path: Path) -> None:
    thresholds = Thresholds(min_clip_score=0.31)
    recipe = Recipe(filter=FilterRecipe(defaults=thresholds, sources={"ccs": Thresholds(max_nsfw=0.2)}))
    assert recipe.filter.thresholds("ccs") == Thresholds(min_clip_score=0.31, max_nsfw=0.2)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(Recipe, tmp_path / "recipe.yaml") == recipe


# ── removals ──

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("entry", "changes", "leaves"),
    [
        ("cc3m-0000000000", {}, True),
        ("cc3m-0000000001", {}, False),
        ("https://pictures.example.org/star.jpg", {}, True),
        ("https://pictures.example.org/", {}, False),
        ("example.org", {}, True),
        ("Pictures.Example.ORG", {}, True),
        ("example.org", {"url": "HTTPS://user:pass@EXAMPLE.org:8080/a?b@other.com"}, True),
        ("example.org", {"url": "https://notexample.org/a"}, False),
        ("example.org", {"url": "https://a.com/?u=https://example.org"}, False),
        ("example.org", {"url": "http://[::1/example.org"}, False),
        ("example.org", {"url": None}, False),
        (Made().stored_sha256.upper(), {}, True),
        (SHA, {}, False),
    ],
)
def test_what_is_excluded_leaves(entry: str, changes: dict[str, Any], leaves: bool) -> None:
    fault = Exclusions.load([entry]).fault(judged_pair(**changes))
    assert (fault is not None) is leaves
    assert fault is None or fault[0] is Reason.REMOVED_ON_REQUEST


def test_the_bytes_as_fetched_may_be_excluded_too() -> None:
    pair = judged_pair()
    assert Exclusions.load([pair["sha256"]]).fault(pair) == (Reason.REMOVED_ON_REQUEST, f"exclude: {pair['sha256']}")


def test_a_file_of_exclusions_is_the_same_as_a_list(tmp_path: Path) -> None:
    listed = tmp_path / "takedowns.txt"
    listed.write_text(f"# asked for in May\n\nexample.org\n{SHA}\ncc3m-0000000007\n")
    assert Exclusions.load(str(listed)) == Exclusions.load([SHA, "cc3m-0000000007", "Example.org"])
    assert Exclusions.load(str(listed)).checksum != Exclusions.load([SHA]).checksum


@pytest.mark.parametrize("entry", ["cc3m", "cc3m-7", "ab" * 31, "two words.org", "example.org/path", ""])
def test_an_exclusion_of_no_known_kind_is_refused(entry: str) -> None:
    with pytest.raises(RecipeError, match="filter.exclude: .* is no pair id"):
        Exclusions.load([entry])


def test_a_missing_file_of_exclusions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="filter.exclude: .*gone.txt is no text file"):
        Exclusions.load(str(tmp_path / "gone.txt"))


# ── the stage ──


def test_kept_and_rejects_are_the_embedded_rows_and_each_is_judged_by_its_source(tmp_path: Path) -> None:
    pairs = random_pairs(Random(1), "cc3m", 60) + random_pairs(Random(2), "coyo", 60)
    recipe = FilterRecipe(
        sources={"cc3m": Thresholds(min_clip_score=None, text=None)}, exclude=("coyo-0000000007", "cc3m-0000000008")
    )
    root = filtered(tmp_path, recipe, in_shards(pairs, 25))
    judged = Whole.open(root, "filter_judge").tables("judged")
    rejects = pq.read_table(tmp_path / "filter_judge" / "rejects").to_pylist()
    embedded = [pair for pair in pairs if pair.reason is None]
    expected = {}
    for pair in embedded:
        fault = fault_of(judged_pair(**vars(pair)), recipe.thresholds(pair.source))
        expected[pair.pair_id] = fault[0].value if fault else None
    expected |= dict.fromkeys(recipe.exclude, Reason.REMOVED_ON_REQUEST.value)
    assert judged.schema == JUDGED
    assert judged["pair_id"].to_pylist() == [name for name, reason in expected.items() if reason is None]
    assert {row["pair_id"]: row["reason"] for row in rejects} == {k: v for k, v in expected.items() if v}


def test_another_list_of_exclusions_is_another_fingerprint(tmp_path: Path) -> None:
    shards = [[Made()]]
    first = filtered(tmp_path / "a", FilterRecipe(), shards)
    second = filtered(tmp_path / "b", FilterRecipe(exclude=("example.com",)), shards)
    fingerprints = {Whole.open(root, "filter_judge").manifest.fingerprint for root in (first, second)}
    assert len(fingerprints) == 2


# ── several roots ──


def test_roots_embedded_by_different_models_are_refused(tmp_path: Path) -> None:
    roots = (crawl(tmp_path / "a", [[Made()]]), crawl(tmp_path / "b", [[Made("coyo-0000000000")]], weights="two"))
    with pytest.raises(InputError, match=r"embed\.weights is 'one' in .* and 'two' in"):
        filtered(tmp_path / "both", FilterRecipe(inputs=roots))


def test_one_source_name_for_two_lists_is_refused(tmp_path: Path) -> None:
    pair, other = Made(), Made("cc3m-0000000001")
    first = crawl(tmp_path / "a", [[pair]], lists={"cc3m": "aa"})
    same = crawl(tmp_path / "b", [[other]], lists={"coyo": "bb", "cc3m": "aa"})
    unlike = crawl(tmp_path / "c", [[other]], lists={"cc3m": "cc"})
    filtered(tmp_path / "fine", FilterRecipe(inputs=(first, same)))
    with pytest.raises(InputError, match="source cc3m is made of other lists"):
        filtered(tmp_path / "both", FilterRecipe(inputs=(first, unlike)))


def test_a_root_named_twice_is_refused(tmp_path: Path) -> None:
    root = crawl(tmp_path / "a", [[Made()]])
    with pytest.raises(InputError, match="twice"):
        filtered(tmp_path / "both", FilterRecipe(inputs=(root, root)))


def test_the_same_pair_of_two_roots_is_refused(tmp_path: Path) -> None:
    pairs = [Made(f"cc3m-{row:010d}") for row in range(20)]
    first = crawl(tmp_path / "a", in_shards(pairs[::2], 3))
    second = crawl(tmp_path / "b", in_shards([*pairs[1:10:2], pairs[14], pairs[19]], 2))
    with pytest.raises(InputError, match="cc3m-0000000014 is in two of filter.inputs"):
        filtered(tmp_path / "both", FilterRecipe(inputs=(first, second)))


def test_the_same_pair_twice_in_one_root_is_refused(tmp_path: Path) -> None:
    pair = replace(Made(), pair_id="cc3m-0000000004")
    for number, shards in enumerate([[[pair, pair]], [[pair], [pair]]]):
        with pytest.raises(InputError, match="cc3m-0000000004 stands after cc3m-0000000004"):
            filtered(tmp_path / str(number), FilterRecipe(), shards)
