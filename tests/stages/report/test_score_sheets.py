"""The scores of a source, to choose its threshold by: exact counts, and the pictures at the ends and at the border."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.filter import FilterRecipe
from stages.report.examples import Example
from stages.report.root import RunRoot
from stages.report.score_sheets import PER_STRIP, Sheet, sheets
from tests.stages.filter.making import Made, crawl, filtered, in_shards
from tests.stages.report.roots import make_pairs, take_back
from tests.stages.report.test_page import Reader, read

Strips = Sequence[tuple[str, Sequence[Example]]]
LIMIT = 0.375  # and one pair has exactly this score
FREE = FilterRecipe.model_validate(
    {"defaults": {"min_clip_score": LIMIT}, "sources": {"cc3m": {"min_clip_score": None}}}
)


@pytest.fixture(scope="module")
def made() -> list[Made]:
    pairs = make_pairs(200)
    row = next(row for row, pair in enumerate(pairs) if (pair.source, pair.reason) == ("a-b_2", None))
    pairs[row] = replace(pairs[row], clip_score=LIMIT)
    return pairs


@pytest.fixture(scope="module")
def scored(made: list[Made], tmp_path_factory: pytest.TempPathFactory) -> str:
    return filtered(tmp_path_factory.mktemp("scored"), FREE, in_shards(made, 20))


@pytest.fixture(scope="module")
def found(scored: str) -> dict[str, tuple[Sheet, Strips]]:
    return {sheet.source: (sheet, strips) for sheet, strips in sheets(RunRoot(scored))}


def scores(made: Sequence[Made], source: str) -> dict[str, float]:
    """pair_id → the stored score, of the embedded pairs, by score."""
    own = {
        pair.pair_id: float(np.float32(pair.clip_score))
        for pair in made
        if (pair.source, pair.reason) == (source, None)
    }
    return dict(sorted(own.items(), key=lambda item: (item[1], item[0])))


def shown(strips: Strips, number: int) -> list[str]:
    return [example.pair_id for example in strips[number][1]]


def test_the_table_counts_what_each_threshold_keeps(made: list[Made], found: dict[str, tuple[Sheet, Strips]]) -> None:
    assert found.keys() == {"a-b_2", "cc3m"}
    for source, (sheet, _) in found.items():
        own = [*scores(made, source).values()]
        rows = sheet.table().rows()
        assert 8 < len(rows) <= 13
        for limit, pairs, share, _ in rows:
            assert pairs == sum(score >= limit for score in own)
            assert share == pairs / len(own)
    assert [row[0] for row in found["a-b_2"][0].table().rows() if row[3]] == [LIMIT]
    assert not [row for row in found["cc3m"][0].table().rows() if row[3]]


def test_the_strips_are_the_ends_and_both_sides_of_the_threshold(
    made: list[Made], found: dict[str, tuple[Sheet, Strips]]
) -> None:
    own = scores(made, "a-b_2")
    below = [pair_id for pair_id, score in own.items() if score < LIMIT]
    above = [pair_id for pair_id, score in own.items() if score >= LIMIT]
    _, strips = found["a-b_2"]
    assert shown(strips, 0) == [*own][:PER_STRIP]
    assert shown(strips, 1) == below[-6:] + above[:6]
    assert shown(strips, 2) == [*own][-PER_STRIP:]


def test_without_a_threshold_the_pairs_at_three_shares_are_shown(
    made: list[Made], found: dict[str, tuple[Sheet, Strips]]
) -> None:
    own = scores(made, "cc3m")
    title, examples = found["cc3m"][1][1]
    assert "(5%)" in title
    assert "(20%)" in title
    ranks = [[*own].index(example.pair_id) / len(own) for example in examples]
    assert ranks == sorted(ranks)
    for share in (0.05, 0.1, 0.2):
        assert min(abs(rank - share) for rank in ranks) < 0.03


def test_each_pair_says_whether_it_was_kept_and_why_not(scored: str, found: dict[str, tuple[Sheet, Strips]]) -> None:
    kept = set(RunRoot(scored).table("corpus").collect()["pair_id"])
    reasons = {}
    for _, strips in found.values():
        for _, examples in strips:
            for example in examples:
                assert (example.reason == "") == (example.pair_id in kept) == (example.detail == "kept")
                reasons[example.pair_id] = example.reason
    assert {"", "low_clip_score"} < set(reasons.values())


def test_shards_read_one_by_one_give_the_same(scored: str, found: dict[str, tuple[Sheet, Strips]]) -> None:
    again = {sheet.source: (sheet, strips) for sheet, strips in sheets(RunRoot(scored), files=1)}
    for source, (sheet, strips) in found.items():
        assert again[source][0].table().equals(sheet.table())
        assert again[source][1] == strips


def test_several_crawls_are_looked_at_as_one(
    made: list[Made], tmp_path: Path, found: dict[str, tuple[Sheet, Strips]]
) -> None:
    halves = [[pair for pair in made if pair.source == source] for source in ("cc3m", "a-b_2")]
    roots = tuple(crawl(tmp_path / str(n), in_shards(half, 20)) for n, half in enumerate(halves))
    both = filtered(tmp_path / "both", FREE.model_copy(update={"inputs": roots}))
    Path(both, "recipe.yaml").write_text(f"filter: {{inputs: [{', '.join(roots)}]}}")
    for sheet, strips in sheets(RunRoot(both)):
        assert [shown(strips, number) for number in range(3)] == [shown(found[sheet.source][1], n) for n in range(3)]


def test_the_page_shows_the_strips_small_and_marked(scored: str, found: dict[str, tuple[Sheet, Strips]]) -> None:
    reader = read(scored)
    text = " ".join(reader.text)
    assert "What a threshold would keep of cc3m" in text
    assert "On both sides of the threshold, 0.375" in text
    marks = [value for name, value in reader.attributes if name == "class" and value in ("in", "gone")]
    assert len(marks) == sum(len(examples) for _, strips in found.values() for _, examples in strips)
    assert sum(max(picture.size) <= 160 for picture in reader.pictures) >= len(marks)


def test_a_root_on_which_nothing_is_judged_shows_its_scores_all_the_same(tmp_path: Path) -> None:
    root = crawl(tmp_path, in_shards(make_pairs(), 20))
    take_back(root, "embed", "000001")
    reader: Reader = read(root)
    assert "No threshold is set" in " ".join(reader.text)
    assert not [value for name, value in reader.attributes if (name, value) == ("class", "gone")]
