"""Beside every pair of a sample stand the neighbours stored for it, in their order, but for those that would give the
caption or the image of any of the sample's pairs away."""

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jobs.make_interleaved import main
from pipeline.commits import Whole
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from pipeline.stage import Counts
from pipeline.writer import ShardWriter, Task
from stages.interleave import InterleaveRecipe, interleave_stages
from tests.stages.index.corpora import finish
from tests.stages.neighbors.crowded import Crowded, Searched, found_in, precompute, rule_broken

Row = dict[str, Any]
RULES = ("pair", "image_id", "sha256", "phash", "caption")
K = 6


@dataclass(frozen=True)
class Pictured(Crowded):
    """With pictures of ten bytes, those of all rows in the tar of each shard."""

    def row(self, number: int) -> Row:
        return super().row(number) | {"input": -1, "offset": 10 * number}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        out.file("images", "{stem}.tar").write_bytes(b"".join(b"%010d" % number for number in range(self.rows)))
        return super().process(task, out, state)


NEAR = Pictured(rows=120)
FAR = Crowded(rows=90, seed=8, own="far", shards=2)


def asked(**recipe: Any) -> InterleaveRecipe:
    """A band that holds about a third of all pairs."""
    band = {"metric": "cosine", "lo": 0.3, "hi": 0.9, "probe_queries": 20, "queries_per_task": 50}
    return InterleaveRecipe(**{**band, "materialize": False, **recipe})


def made(root: Path, corpora: Sequence[Path], **recipe: Any) -> Path:
    finish(root, interleave_stages(asked(**recipe), [*map(str, corpora)]))
    return root


def samples_in(root: Path) -> list[Row]:
    rows: list[Row] = Whole.open(str(root), "interleaved").tables("samples").to_pylist()
    return rows


def metrics_of(root: Path) -> Counter[str]:
    whole = Whole.open(str(root), "interleaved")
    return Counter[str](
        {
            name: sum(int(whole.read(shard).record.metrics[name]) for shard in whole.shards)
            for name in whole.read("000000").record.metrics
        }
    )


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """near and far: corpora; alone and both: neighbours of near, in itself, and in far and near."""
    folder = tmp_path_factory.mktemp("roots")
    for name, corpus in {"near": NEAR, "far": FAR}.items():
        finish(folder / name, [corpus])
    near, far = str(folder / "near"), str(folder / "far")
    searched = {"k": K, "over_fetch": 4, "depth": 80, "queries_per_task": 40}
    assert precompute(folder / "alone", folder / "near", **searched).exit_code == 0
    assert precompute(folder / "both", folder / "near", databases=[far, near], **searched).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def clear(roots: Path) -> Path:
    return made(roots / "clear", [roots / "near"], neighbors=str(roots / "alone"), materialize=True)


# ── told by hand ──


rows_of = cache(lambda corpus: Searched(corpus).rows())


def broken(target: Row, neighbor: Row, databases: Sequence[Crowded]) -> str | None:
    """By a neighbour, against one pair of its sample."""
    ours, image = rows_of(NEAR)[target["row_id"]]
    theirs, other = rows_of(databases[neighbor["database"]])[neighbor["row_id"]]
    return rule_broken(ours, theirs, float(image @ other))


def judged(
    samples: Sequence[Row], root: Path, databases: Sequence[Crowded]
) -> Iterator[tuple[list[Row], Counter[str]]]:
    """Of every pair of every sample: what stays, and what each rule removes."""
    stored = [row["neighbors"] for row in found_in(root)]
    for sample in samples:
        for pair in sample["pairs"]:
            marks = [
                (neighbor, {broken(target, neighbor, databases) for target in sample["pairs"]})
                for neighbor in stored[pair["row_id"]]
            ]
            first = [next((rule for rule in RULES if rule in rules), None) for _, rules in marks]
            kept = [neighbor for (neighbor, _), rule in zip(marks, first, strict=True) if rule is None]
            yield kept, Counter(f"removed_{rule}" for rule in first if rule)


@pytest.mark.parametrize(("name", "databases"), [("alone", [NEAR]), ("both", [FAR, NEAR])])
def test_every_pair_keeps_its_stored_neighbors_that_are_clear_of_all_five(
    name: str, databases: Sequence[Crowded], roots: Path, tmp_path: Path
) -> None:
    root = made(tmp_path, [roots / "near"], neighbors=str(roots / name))
    samples = samples_in(root)[::3]
    assert all(len(sample["pairs"]) == 5 for sample in samples)
    expected = [kept for kept, _ in judged(samples, roots / name, databases)]
    assert [neighbors for sample in samples for neighbors in sample["neighbors"]] == expected
    assert {len(kept) for kept in expected} >= {0, 1, 2, 3}


def test_what_each_rule_removes_and_who_is_left_with_none_is_counted(clear: Path, roots: Path) -> None:
    samples, totals = samples_in(clear), Counter[str]()
    for kept, removed in judged(samples, roots / "alone", [NEAR]):
        totals.update(removed, neighbors=len(kept), pairs_without_neighbors=not kept)
    assert metrics_of(clear) == totals
    assert all(totals[f"removed_{rule}"] for rule in RULES)


def test_leaks_across_the_pairs_of_a_sample_are_removed(clear: Path, roots: Path) -> None:
    """A neighbour of one support that shows another support's picture, and one that says what the query says."""
    stored, pictures, captions = found_in(roots / "alone"), 0, 0
    for sample in samples_in(clear):
        *supports, query = sample["pairs"]
        for place, support in enumerate(supports):
            for neighbor in stored[support["row_id"]]["neighbors"]:
                others = [broken(other, neighbor, [NEAR]) for other in supports if other is not support]
                picture, caption = "sha256" in others, broken(query, neighbor, [NEAR]) == "caption"
                pictures, captions = pictures + picture, captions + caption
                assert not (picture or caption) or neighbor not in sample["neighbors"][place]
    assert min(pictures, captions) > 0


def test_the_tar_holds_the_same_neighbors(clear: Path) -> None:
    whole = Whole.open(str(clear), "interleaved")
    for shard in whole.shards:
        with tarfile.open(whole.read(shard).path("tar")) as tar:
            for sample in whole.read(shard).table("samples").to_pylist():
                member = tar.extractfile(f"{sample['pair_id']}.json")
                assert member is not None
                told = json.load(member)
                columns = ("distances", "caption_similarities", "order", "neighbors")
                assert told == {name: sample[name] for name in columns} | {
                    "pair_ids": [pair["pair_id"] for pair in sample["pairs"]]
                }


def test_without_a_root_of_neighbors_there_are_none(roots: Path, tmp_path: Path) -> None:
    root = made(tmp_path, [roots / "near"])
    assert {sample["neighbors"] for sample in samples_in(root)} == {None}
    assert not (root / "interleave_neighbors").exists()


def test_short_samples_are_judged_against_the_pairs_that_they_have(roots: Path, tmp_path: Path) -> None:
    narrow = {"lo": 0.1, "hi": 0.35, "on_starved": "short", "max_starved": 1}
    root = made(tmp_path, [roots / "near"], neighbors=str(roots / "alone"), **narrow)
    samples = samples_in(root)
    assert {len(sample["pairs"]) for sample in samples} >= {1, 3, 5}
    expected = [kept for kept, _ in judged(samples, roots / "alone", [NEAR])]
    assert [neighbors for sample in samples for neighbors in sample["neighbors"]] == expected


def test_a_shard_without_a_sample_is_written(roots: Path, tmp_path: Path) -> None:
    empty = {"lo": 1.9, "hi": 1.95, "max_starved": 1}
    assert samples_in(made(tmp_path, [roots / "near"], neighbors=str(roots / "alone"), **empty)) == []


def test_how_the_work_is_cut_changes_nothing(
    clear: Path, roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in {"ROWS": 40, "JUDGED": 7}.items():
        monkeypatch.setattr(f"stages.interleave.neighbors.{name}", size)
    root = made(tmp_path, [roots / "near"], neighbors=str(roots / "alone"), queries_per_task=1)
    assert len(Whole.open(str(root), "interleave_neighbors").shards) > 1
    assert samples_in(root) == samples_in(clear)


# ── whose neighbours ──


def test_where_the_neighbors_lie_is_no_part_of_the_fingerprint(roots: Path, clear: Path, tmp_path: Path) -> None:
    shutil.copytree(clear, tmp_path / "clear")
    shutil.copytree(roots / "alone", tmp_path / "moved")
    made(tmp_path / "clear", [roots / "near"], neighbors=str(tmp_path / "moved"), materialize=True)
    assert samples_in(tmp_path / "clear") == samples_in(clear)
    with pytest.raises(FingerprintMismatch, match="interleave_neighbors was made with other settings: inputs"):
        made(tmp_path / "clear", [roots / "near"], neighbors=str(roots / "both"), materialize=True)


def refused(corpora: Sequence[Path], neighbors: Path) -> str:
    with pytest.raises((InputError, RecipeError)) as error:
        interleave_stages(asked(neighbors=str(neighbors)), [*map(str, corpora)])
    return str(error.value)


def test_neighbors_of_several_corpora_are_refused(roots: Path) -> None:
    told = refused([roots / "near", roots / "far"], roots / "alone")
    assert "interleave.neighbors holds the neighbours of one corpus, and corpora names 2" in told
    assert "set interleave.neighbors to null" in told


def test_neighbors_of_another_corpus_are_refused(roots: Path) -> None:
    assert "alone holds neighbours of the corpus" in refused([roots / "far"], roots / "alone")


def test_neighbors_that_are_not_finished_are_refused(roots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "near/neighbors is not whole" in refused([roots / "near"], roots / "near")
    recipe = roots / "recipe.yaml"
    told = {"root": str(roots / "never"), "corpora": [str(roots / "near")], "interleave": {"neighbors": "nowhere"}}
    recipe.write_text(json.dumps(told))
    assert main([str(recipe)]) == 2
    assert "nowhere/neighbors is not whole" in capsys.readouterr().err
    assert not (roots / "never").exists()


def test_a_database_that_was_made_anew_is_refused(roots: Path, tmp_path: Path) -> None:
    finish(tmp_path / "other", [FAR])
    found = precompute(tmp_path / "found", roots / "near", databases=[str(tmp_path / "other")], k=2)
    assert found.exit_code == 0
    shutil.rmtree(tmp_path / "other")
    Whole.open.cache_clear()
    Run(str(tmp_path / "other"), [Crowded(rows=90, seed=9)]).execute(LocalExecutor())
    assert "other/corpus is not what the neighbours in" in refused([roots / "near"], tmp_path / "found")
