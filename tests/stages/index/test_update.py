"""An index changes without training: what is added is found, what is deleted never is, and recall is told."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from pydantic import ValidationError

from jobs import update_index
from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.run import Run
from pipeline.stage import Stage
from stages.index import Database, IndexRecipe, IndexSettings, Retriever, UpdateRecipe, index_stages, update_stages
from stages.index.exact import exact_search
from stages.index.report import draw_queries
from stages.report import tables
from stages.report.coverage import not_covered
from stages.report.root import RunRoot
from tests.stages.index.corpora import Drawn, Model, finish
from tests.toys import data_of

ROOT = Path(__file__).parents[3]
OLD = Drawn(rows=1500, width=32, source="old")
MORE = Drawn(rows=400, width=32, seed=9, shards=2, source="more")
LAST = Drawn(rows=200, width=32, seed=11, shards=1, source="last")
LISTS = 8
SETTINGS = {"min_recall": None, "queries": 40, "vectors_per_task": 300}
FACTORY = f"IVF{LISTS},PQ16x4"
GONE = [3, 10, 20, 40, 1499]  # of OLD; 10, 20 and 40 include pictures that others show too
Ids = npt.NDArray[np.int64]


def indexed(root: Path, corpus: Drawn, factory: str = FACTORY) -> str:
    recipe = IndexRecipe(factory=factory, min_recall=None, queries=40, serving_shards=2, vectors_per_task=600)
    return finish(root, [Model(), corpus, *index_stages(recipe)])


def updates(index: str, **update: Any) -> list[Stage[Any]]:
    return update_stages(UpdateRecipe(index=index, **update), IndexSettings.model_validate(SETTINGS))


def updated(root: Path, index: str, **update: Any) -> str:
    return finish(root, updates(index, **update))


def pair_ids(corpus: Drawn, rows: Sequence[int]) -> list[str]:
    return [str(corpus.row(row)["pair_id"]) for row in rows]


def exact(corpora: Sequence[Drawn], queries: npt.ArrayLike, k: int, dead: Sequence[int] = ()) -> Ids:
    """The slow obvious way: everything that is left, by similarity and then by id."""
    everything = np.concatenate([corpus.images for corpus in corpora]).astype(np.float64)
    similarity = np.asarray(queries, np.float64) @ everything.T
    similarity[:, list(dead)] = -np.inf
    return np.lexsort((np.broadcast_to(np.arange(len(everything)), similarity.shape), -similarity), axis=1)[:, :k]


def found(root: str, queries: npt.ArrayLike, k: int) -> Ids:
    """By probing every list and comparing with all that lies in them."""
    return Retriever(root, nprobe=LISTS, depth=3000).search(queries, k)[0]


def assert_recall_is_true(root: str, corpora: Sequence[Drawn], dead: Sequence[int]) -> None:
    """Measured again by hand: image queries among all that are left."""
    retriever, database = Retriever(root), Database.of_index(root)
    images = np.concatenate([corpus.images for corpus in corpora])
    alive = np.isin(np.arange(len(images)), dead, invert=True)
    template = retriever.index.template
    sample = Whole.open(template.found(root), "index_train").read("000000").array("sample")
    queries = draw_queries(len(images), sample, alive, wanted=40, seed=0)
    stored = np.array([corpus.row(row)["stored_sha256"] for corpus in corpora for row in range(corpus.rows)])
    same = [np.flatnonzero(stored == stored[row]) for row in queries]
    similarity = images[queries].astype(np.float64) @ images.astype(np.float64).T
    similarity[:, ~alive] = -np.inf
    for row, rows in zip(similarity, same, strict=True):
        row[rows] = -np.inf
    for said in retriever.index.recall:
        if said["direction"] == "image":
            ids, _ = retriever.search(images[queries], int(said["k"]), exclude=same)
            kth = np.sort(similarity, axis=1)[:, -int(said["k"])]
            hits = (np.take_along_axis(similarity, ids, axis=1) >= kth[:, None]) & (ids >= 0)
            assert said["recall"] == pytest.approx(hits.mean())
    assert retriever.index.rows == alive.sum() == database.size - len(dead)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Roots: an index `old`, corpora `more` and `last`, and updates of the index."""
    folder = tmp_path_factory.mktemp("update")
    indexed(folder / "old", OLD)
    finish(folder / "more", [Model(), MORE])
    finish(folder / "last", [Model(), LAST])
    updated(folder / "added", str(folder / "old"), add=[str(folder / "more")])
    gone = [*pair_ids(OLD, GONE), "old-0000099999", "other-0000000001"]
    updated(folder / "less", str(folder / "old"), delete=gone)
    return folder


# ── what is found ──


def test_what_is_added_is_found_behind_the_old_ids(made: Path) -> None:
    root, queries = str(made / "added"), np.concatenate([OLD.images[::50], MORE.images[::20], MORE.captions[::20]])
    np.testing.assert_array_equal(found(root, queries, 10), exact([OLD, MORE], queries, 10))
    pairs = Retriever(root).pairs([OLD.rows - 1, OLD.rows, OLD.rows + MORE.rows - 1])
    assert [pair["pair_id"] for pair in pairs] == ["old-0000001499", "more-0000000000", "more-0000000399"]
    assert_recall_is_true(root, [OLD, MORE], [])


def test_without_what_was_added_the_answers_are_the_old_ones(made: Path) -> None:
    old, queries = Retriever(str(made / "old"), nprobe=3, depth=20), OLD.images[:100]
    new = Retriever(str(made / "added"), nprobe=3, depth=20)
    ids, cosines = new.search(queries, 5, exclude=[np.arange(OLD.rows, OLD.rows + MORE.rows)] * len(queries))
    before, exactly = old.search(queries, 5)
    np.testing.assert_array_equal(cosines, exactly)
    np.testing.assert_array_equal(OLD.images[ids], OLD.images[before])  # which of several copies is up to FAISS


def test_what_is_deleted_is_never_found_and_others_take_its_place(made: Path) -> None:
    root, queries = str(made / "less"), np.concatenate([OLD.images[GONE], OLD.captions[GONE], OLD.images[::30]])
    np.testing.assert_array_equal(found(root, queries, 10), exact([OLD], queries, 10, GONE))
    everything, _ = Retriever(root, nprobe=LISTS).search(queries, OLD.rows, rerank=False)
    assert not np.isin(everything, GONE).any()
    assert (np.sort(everything, axis=1)[:, len(GONE) :] == np.setdiff1d(np.arange(OLD.rows), GONE)).all()
    database = Database.open(root)
    nothing: list[Ids] = [np.empty(0, np.int64)] * len(queries)
    ids, _ = exact_search(database.vectors(), queries, 10, nothing, database.alive)
    np.testing.assert_array_equal(ids, exact([OLD], queries, 10, GONE))
    assert_recall_is_true(root, [OLD], GONE)


def test_deleted_pairs_are_accounted_for_and_unknown_ones_counted(made: Path) -> None:
    record = Whole.open(str(made / "less"), "index_alive").read("000000").record
    assert (record.rows_in, record.rows_out) == (OLD.rows, OLD.rows - len(GONE))
    assert record.rejects == {"removed_on_request": len(GONE)}
    assert record.metrics == {"unknown": 2, "deleted_before": 0}
    (lost,) = tables(str(made / "less"))["losses"].to_dicts()
    assert (lost["stage"], lost["reason"], lost["of old"]) == ("index_alive", "removed_on_request", len(GONE))


def test_updates_stand_on_updates(made: Path, tmp_path: Path) -> None:
    gone = [*pair_ids(OLD, [2, 3]), *pair_ids(MORE, range(100)), *pair_ids(LAST, [0, 7])]
    root = updated(tmp_path / "2", str(made / "less"), add=[str(made / "more"), str(made / "last")], delete=gone)
    record = Whole.open(root, "index_alive").read("000000").record
    assert (record.rows_in, record.rows_in - record.rows_out) == (2100 - len(GONE), 103)
    assert record.metrics == {"unknown": 0, "deleted_before": 1}
    assert_compacting_changes_no_answer(
        root, tmp_path / "3", [OLD, MORE, LAST], [*GONE, 2, *range(1500, 1600), 1900, 1907]
    )


@pytest.mark.parametrize(
    "factory",
    [f"IVF{LISTS},RaBitQ", pytest.param(f"PCAR16,IVF{LISTS}_HNSW8,PQ8x4", marks=pytest.mark.slow)],
)
def test_other_codes_transforms_and_graphs_of_centroids(factory: str, made: Path, tmp_path: Path) -> None:
    dead, old = range(0, 500, 2), indexed(tmp_path / "old", OLD, factory)
    root = updated(tmp_path / "1", old, add=[str(made / "more")], delete=pair_ids(OLD, dead))
    assert_compacting_changes_no_answer(root, tmp_path / "2", [OLD, MORE], dead)


def assert_compacting_changes_no_answer(
    root: str, compact: Path, corpora: Sequence[Drawn], dead: Sequence[int]
) -> None:
    """Less which of several copies comes in last, which is up to FAISS. Where everything is probed and compared, both
    answer as exact search does."""
    images = np.concatenate([corpus.images for corpus in corpora])
    queries = images[::10]
    updated(compact, root, compact=True)
    for nprobe, depth, rerank in [(3, 20, True), (3, 20, False), (LISTS, 50, True), (LISTS, 50, False)]:
        before, after = (Retriever(one, nprobe=nprobe, depth=depth) for one in (root, str(compact)))
        ids, cosines = before.search(queries, 20, rerank=rerank)
        again, exactly = after.search(queries, 20, rerank=rerank)
        np.testing.assert_array_equal(exactly, cosines)
        np.testing.assert_array_equal(images[again], images[ids])
    for one in (root, str(compact)):
        np.testing.assert_array_equal(found(one, queries, 10), exact(corpora, queries, 10, dead))
        assert_recall_is_true(one, corpora, dead)
    assert held_by(str(compact)) == len(images) - len(dead) < held_by(root)
    assert [part.root for part in Retriever(str(compact)).index.serving] == ["."]
    assert measured(str(compact)) == measured(root)


def held_by(root: str) -> int:
    """Rows in the serving shards, deleted ones too."""
    return sum(held.rows for part in Retriever(root).index.serving for held in part.ranges)


def measured(root: str) -> dict[tuple[Any, ...], tuple[float, float]]:
    """At every number of probes that is tried whatever the others come to."""
    rows = Whole.open(root, "index_report").tables("report").to_pylist()
    told = {(row["direction"], row["k"], row["nprobe"], row["depth"]): (row["recall"], row["coverage"]) for row in rows}
    return {point: figures for point, figures in told.items() if point[2] <= 4}


# ── what is refused before anything is written ──


@pytest.mark.parametrize(
    ("made_of", "update", "said"),
    [
        ([Model(), OLD], {}, "the corpus of .*new is that of .*old, which the index holds"),
        ([Model(), Drawn(rows=50, width=32, seed=2, source="old")], {}, "pair old-0000000000 of .*new is in .*old too"),
        ([Model(), Drawn(rows=50, width=16, source="new")], {}, "vectors of .*new are 16 wide, those of the index 32"),
        ([Model("ViT-L-14"), LAST], {}, r"made in .*new by ViT-L-14 \(drawn\), those of the index by ViT-B-32"),
        ([LAST], {}, "new/embed holds no plan.json, which says what model"),
        ([Model()], {}, "new/corpus is not whole"),
        ([], {"add": []}, "nothing to do"),
        ([], {"add": [], "delete": ["old-1"]}, "update.delete: 'old-1' is no pair id such as"),
        ([], {"add": [], "delete": "nowhere.txt"}, "update.delete: nowhere.txt is no text file"),
        ([], {"add": [], "delete": pair_ids(OLD, range(OLD.rows))}, "leaves no pair in the index"),
    ],
)
def test_what_cannot_be_added_or_deleted(
    made_of: list[Stage[Any]], update: dict[str, Any], said: str, made: Path, tmp_path: Path
) -> None:
    finish(tmp_path / "new", made_of)
    with pytest.raises((InputError, RecipeError), match=said):
        updated(tmp_path / "root", str(made / "old"), **({"add": [str(tmp_path / "new")]} | update))
    assert not (tmp_path / "root").exists()


def test_a_corpus_is_added_once(made: Path, tmp_path: Path) -> None:
    more, last = str(made / "more"), str(made / "last")
    with pytest.raises(InputError, match="the corpus of .*more is that of .*more, which the index holds"):
        updates(str(made / "added"), add=[more])
    with pytest.raises(InputError, match="or is given already"):
        updates(str(made / "old"), add=[last, more, last])
    other = finish(tmp_path / "other", [Model(), Drawn(rows=60, width=32, seed=4, source="last")])
    with pytest.raises(InputError, match="pair last-0000000000 of .*last is in .*other too"):
        updates(str(made / "old"), add=[last, other])


def test_how_it_was_trained_cannot_be_set(made: Path) -> None:
    for name, value in {"factory": FACTORY, "key": "text", "nlist": 3}.items():
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            IndexSettings.model_validate({name: value})


def test_a_root_that_was_moved_or_made_anew_is_named(made: Path, tmp_path: Path) -> None:
    corpus = finish(tmp_path / "corpus", [Model(), LAST])
    root = updated(tmp_path / "root", str(made / "old"), add=[corpus])
    Whole.open.cache_clear()
    shutil.rmtree(corpus)
    for opened in (lambda: Retriever(root), lambda: updates(root, compact=True)):
        with pytest.raises(InputError, match="corpus/corpus is not whole.*if it was moved, move it back"):
            opened()
    finish(tmp_path / "corpus", [Model(), Drawn(rows=200, width=32, seed=12, source="last")])
    for opened in (lambda: Retriever(root), lambda: updates(root, compact=True)):
        with pytest.raises(InputError, match="corpus/corpus is another one than its index was measured with"):
            opened()


# ── the job ──

ASKED = ["old-0000000003", "more-0000000001", "nobody-0000000001"]


def job(folder: Path, made: Path) -> list[str]:
    """Arguments of an update with every stage that it may have."""
    (folder / "gone.txt").write_text("\n".join(["# asked for on Monday", "", *ASKED]))
    update = {"index": str(made / "old"), "add": [str(made / "more")], "delete": str(folder / "gone.txt")}
    recipe = {"root": str(folder / "root"), "engine": "local", "update": update, "index": SETTINGS}
    (folder / "update.yaml").write_text(yaml.safe_dump(recipe))
    return [str(folder / "update.yaml")]


@pytest.fixture(scope="module")
def quiet(made: Path) -> str:
    return updated(made / "quiet", str(made / "old"), add=[str(made / "more")], delete=ASKED)


@pytest.mark.parametrize(("stage", "step"), [("index_alive", "renamed"), ("index", "written")])
def test_killed_and_run_again_the_root_is_the_same_and_what_changed_is_said(
    stage: str, step: str, made: Path, quiet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "jobs/update_index.py", *job(tmp_path, made)]
    environment = os.environ | {"REVILM_FAILPOINT": f"{stage}:{step}", "PYTHONPATH": str(ROOT)}
    died = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    assert update_index.main(job(tmp_path, made)) == 0
    said = capsys.readouterr().out
    assert "Added 400 pairs. Deleted 2 pairs; of those asked for, 0 were deleted before and 1 are in no corpus." in said
    assert "1,898 pairs can be found now, 1,500 could before." in said
    assert "recall@2 of image queries: " in said
    assert f"python jobs/search.py {tmp_path}/root" in said
    for name in ("index_alive", "index_add", "index", "index_report", "index_gate"):
        assert data_of(str(tmp_path / "root"), name) == data_of(quiet, name), name


def test_a_root_that_the_update_reads_is_no_new_root(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for read in ("old", "more"):
        assert update_index.main([*job(tmp_path, made), f"root={made / read}"]) == 2
        assert "roots are never edited: name a new one" in capsys.readouterr().err


def test_roots_that_the_index_stands_on_are_no_new_roots_either(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*job(tmp_path, made), f"update.index={made / 'added'}", "update.add=[]"]
    for below in ("old", "more"):
        assert update_index.main([*arguments, f"root={made / below}"]) == 2
        assert "roots are never edited: name a new one" in capsys.readouterr().err
        assert not (made / below / "index_alive").exists()
        assert not (made / below / "recipe.yaml").exists()


@pytest.mark.slow
def test_a_root_with_another_index_is_refused_and_left_as_it_is(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = indexed(tmp_path / "other", OLD)
    arguments = [*job(tmp_path, made), "update.add=[]", f"root={other}"]
    assert update_index.main(arguments) == 2
    assert "other/index_report was made with other settings" in capsys.readouterr().err
    assert not (tmp_path / "other" / "index_alive").exists()
    assert not (tmp_path / "other" / "recipe.yaml").exists()


def test_the_report_of_an_update_says_where_the_rest_is_told(made: Path, tmp_path: Path) -> None:
    assert update_index.main(job(tmp_path, made)) == 0
    first, *others = not_covered(RunRoot(str(tmp_path / "root")))
    assert first.startswith(f"How the pairs of {made / 'old'}, {made / 'more'} were collected, and the index trained: ")
    assert not any("nothing is committed yet" in line for line in others)


@pytest.mark.usefixtures("ray_cluster")
def test_both_engines_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    from pipeline.ray_executor import RayExecutor

    assert Run(str(tmp_path), updates(str(made / "less"), compact=True)).execute(RayExecutor()).exit_code == 0
    local = updated(made / "compact", str(made / "less"), compact=True)
    for name in ("index_alive", "index", "index_report", "index_gate"):
        assert Whole.open(str(tmp_path), name).identity == Whole.open(local, name).identity, name
