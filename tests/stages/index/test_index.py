"""A finished index finds what exact search finds, holds every row once, and says truly how well it does."""

import os
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.commits import Whole
from pipeline.errors import InputError, ShardFailed
from pipeline.executor import LocalExecutor
from pipeline.run import Base, Run
from stages.index import IndexRecipe, IndexSettings, Retriever, index_stages, refuse_below_floor
from stages.index.exact import exact_search
from stages.index.lists import Lists
from stages.index.recall import KNOWN, Queries, measure
from stages.index.report import draw_queries
from stages.index.retriever import open_serving
from stages.index.train import read_template
from stages.index.vectors import Vectors
from tests.stages.index.corpora import Drawn, index, run_index

CORPUS = Drawn(rows=3000)
RECIPE = {"factory": "IVF64,PQ16x4", "vectors_per_task": 1000, "serving_shards": 3}
Ids = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return index(tmp_path_factory.mktemp("index"), CORPUS, **RECIPE)


@pytest.fixture(scope="module")
def similarity() -> npt.NDArray[np.float64]:
    """(N, N), exact."""
    images = CORPUS.images.astype(np.float64)
    return images @ images.T


def ordered(similarity: npt.NDArray[np.float64], k: int) -> Ids:
    """The slow obvious way: by similarity, then by row id."""
    rows = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    return np.lexsort((rows, -similarity), axis=1)[:, :k]


def held_out(root: str) -> Ids:
    sample = Whole.open(root, "index_train").read("000000").array("sample")
    return draw_queries(CORPUS.rows, sample, None, wanted=1000, seed=0)


def showing_same_image(rows: Ids) -> list[Ids]:
    stored = np.array([CORPUS.row(row)["stored_sha256"] for row in range(CORPUS.rows)])
    return [np.flatnonzero(stored == stored[row]) for row in rows]


def served(root: str) -> list[Any]:
    whole = Whole.open(root, "index")
    return [faiss.read_index(str(whole.read(shard).path("serving"))) for shard in whole.shards]


def ids_of(shard: Any) -> Ids:
    lists = shard.invlists
    ids = [faiss.rev_swig_ptr(lists.get_ids(n), lists.list_size(n)).copy() for n in range(shard.nlist)]
    return np.concatenate(ids)


# ── what it finds ──


def test_probing_and_reranking_everything_is_exact_search_with_ties_by_row_id(
    root: str, similarity: npt.NDArray[np.float64]
) -> None:
    everything = Retriever(root, nprobe=64, depth=CORPUS.rows)
    ids, cosines = everything.search(CORPUS.images[::10], 20)
    np.testing.assert_array_equal(ids, ordered(similarity[::10], 20))
    np.testing.assert_array_equal(cosines, np.take_along_axis(similarity[::10], ids, axis=1).astype(np.float32))


def test_several_serving_shards_find_what_one_faiss_index_finds(root: str) -> None:
    whole = read_template(Whole.open(root, "index_train"))
    images = CORPUS.images.astype(np.float32)
    whole.add_with_ids(images, np.arange(CORPUS.rows))
    whole.nprobe = 5
    scores, ids = whole.search(images[:200], 10)
    found, approximate = Retriever(root, nprobe=5).search(images[:200], 10, rerank=False)
    np.testing.assert_array_equal(approximate, scores)
    assert all(set(a[s > s[-1]]) == set(b[s > s[-1]]) for a, b, s in zip(found, ids, scores, strict=True))


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "IVF16,Flat", "PCAR32,IVF16,SQfp16", "IVF1,Flat", "IVF16,RaBitQ"])
def test_other_codes_and_transforms_are_served_as_faiss_itself_would(factory: str, tmp_path: Path) -> None:
    corpus = Drawn(rows=1200, shards=2)
    root = index(tmp_path, corpus, factory=factory, serving_shards=1, vectors_per_task=700, min_recall=None)
    whole = read_template(Whole.open(root, "index_train"))
    images = corpus.images.astype(np.float32)
    whole.add_with_ids(images, np.arange(corpus.rows))
    faiss.extract_index_ivf(whole).nprobe = 3
    scores, _ = whole.search(images[:100], 10)
    _, found = Retriever(root, nprobe=3).search(images[:100], 10, rerank=False)
    np.testing.assert_allclose(found, scores, rtol=1e-5)  # a rotation rounds other batches otherwise


def test_excluded_rows_are_not_found_and_others_take_their_place(
    root: str, similarity: npt.NDArray[np.float64]
) -> None:
    everything = Retriever(root, nprobe=64, depth=CORPUS.rows)
    best = ordered(similarity[:50], 7)
    ids, _ = everything.search(CORPUS.images[:50], 4, exclude=[row[:3] for row in best])
    np.testing.assert_array_equal(ids, best[:, 3:])


def test_excluding_does_not_eat_up_the_candidates(root: str) -> None:
    retriever = Retriever(root, nprobe=64, depth=10)
    nearest, _ = retriever.search(CORPUS.images[:5], 100, rerank=False)
    ids, _ = retriever.search(CORPUS.images[:5], 10, exclude=[*nearest])
    assert (ids >= 0).all()


def test_where_too_few_rows_are_probed_the_rest_is_padding(root: str) -> None:
    ids, cosines = Retriever(root, nprobe=1).search(CORPUS.images[:3], 2000)
    for found, cosine in zip(ids, cosines, strict=True):
        real = found >= 0
        assert 0 < real.sum() < 2000
        assert (np.flatnonzero(real) == np.arange(real.sum())).all()
        assert (cosine[~real] == -np.inf).all()


def test_pairs_are_the_corpus_rows_in_the_order_asked_for(root: str) -> None:
    pairs = Retriever(root).pairs([2999, 0, 601])
    assert [pair["caption"] for pair in pairs] == [f"the caption of {row}" for row in (2999, 0, 601)]


def test_queries_of_another_width_are_refused(root: str) -> None:
    with pytest.raises(InputError, match=r"64 wide, found shape \(1, 32\)"):
        Retriever(root).search(np.zeros((1, 32)), 1)


# ── what it holds ──


def test_every_row_is_in_exactly_one_list_of_one_serving_shard(root: str) -> None:
    shards = served(root)
    assert len(shards) == 3
    assert [shard.ntotal for shard in shards] == [len(ids_of(shard)) for shard in shards]
    np.testing.assert_array_equal(np.sort(np.concatenate([ids_of(shard) for shard in shards])), np.arange(CORPUS.rows))


def test_a_serving_shard_holds_only_its_range_of_lists_each_in_order_of_row_id(root: str) -> None:
    for shard, held in zip(served(root), Retriever(root).index.serving[0].ranges, strict=True):
        filled = [number for number in range(shard.nlist) if shard.invlists.list_size(number)]
        assert held.first_list <= min(filled) <= max(filled) < held.end_list
        for number in filled:
            ids = faiss.rev_swig_ptr(shard.invlists.get_ids(number), shard.invlists.list_size(number))
            assert (np.diff(ids) > 0).all()


def test_queries_are_kept_out_of_the_training_sample(root: str) -> None:
    queries, sample = held_out(root), Whole.open(root, "index_train").read("000000").array("sample")
    assert len(queries) == 300  # a tenth
    assert len(np.unique(np.concatenate([queries, sample]))) == len(queries) + len(sample) == CORPUS.rows


def test_the_same_corpus_and_recipe_give_the_same_bytes(root: str, tmp_path: Path) -> None:
    again = index(tmp_path, CORPUS, **RECIPE)
    for stage in ("index_train", "index_add", "index", "index_report", "index_gate"):
        assert Whole.open(again, stage).identity == Whole.open(root, stage).identity, stage


# ── what it says of itself ──


def test_the_reported_recall_is_that_of_the_retriever(root: str, similarity: npt.NDArray[np.float64]) -> None:
    index_file, queries = Retriever(root).index, held_out(root)
    same = showing_same_image(queries)
    vectors = {"image": CORPUS.images[queries], "text": CORPUS.captions[queries]}
    assert {said["direction"] for said in index_file.recall} == {"image", "text"}
    for said in index_file.recall:
        retriever = Retriever(root, direction="text" if said["direction"] == "text" else "image")
        query = vectors[str(said["direction"])].astype(np.float64)
        exact = query @ CORPUS.images.astype(np.float64).T
        ids, _ = retriever.search(query, int(said["k"]), exclude=same)
        hits = []
        for row, rows, found in zip(exact, same, ids, strict=True):
            kth = np.sort(np.delete(row, rows))[-int(said["k"])]
            hits.append(np.mean([row[one] >= kth for one in found if one >= 0] + [False] * int((found < 0).sum())))
        assert said["recall"] == pytest.approx(np.mean(hits))
        assert said["low"] < said["recall"] < said["high"] or said["recall"] == said["high"] == 1


def test_the_reported_coverage_is_the_share_of_neighbors_in_the_nearest_lists(
    root: str, similarity: npt.NDArray[np.float64]
) -> None:
    retriever, queries = Retriever(root), held_out(root)
    template = read_template(Whole.open(root, "index_train"))
    centroids = template.quantizer.reconstruct_n(0, template.nlist)
    images = CORPUS.images.astype(np.float32)
    lists = np.argmax(images @ centroids.T, axis=1)
    probed = np.argsort(-(images[queries] @ centroids.T), axis=1)[:, : retriever.nprobe]
    inside = []
    for row, near, same in zip(queries, probed, showing_same_image(queries), strict=True):
        left = similarity[row].copy()
        left[same] = -np.inf
        inside += [lists[neighbor] in near for neighbor in ordered(left[None], 2)[0]]
    said = next(r for r in retriever.index.recall if r["direction"] == "image" and r["k"] == 2)
    assert said["coverage"] == pytest.approx(np.mean(inside))


def test_the_chosen_point_reaches_the_target_and_no_cheaper_one_does(root: str) -> None:
    rows = Whole.open(root, "index_report").tables("report").to_pylist()
    index_file = Retriever(root).index
    for direction, tuned in index_file.tuned.items():
        judged = [row for row in rows if row["direction"] == direction and row["k"] == 2 and row["depth"]]
        chosen = next(row for row in judged if (row["nprobe"], row["depth"]) == (tuned.nprobe, tuned.depth))
        assert chosen["recall"] >= 0.95
        assert all(row["recall"] < 0.95 for row in judged if row["cost_us"] < chosen["cost_us"])


def test_an_index_below_its_floor_is_refused_with_the_figures_and_the_knob(tmp_path: Path) -> None:
    weak: dict[str, Any] = {"factory": "IVF8,PQ2x4", "target_recall": 1.0}
    report = run_index(tmp_path / "floor", CORPUS, min_recall=1.0, **weak)
    assert report.exit_code == 1
    (cause,) = report.failed.values()
    assert "recall@2 of 300 image queries is at best 0." in cause
    assert "below index.min_recall 1.0" in cause
    with pytest.raises(InputError, match="index_gate is not whole"):
        Retriever(str(tmp_path / "floor"))
    assert run_index(tmp_path / "floor", CORPUS, min_recall=0.1, **weak).exit_code == 0


def test_a_floor_that_is_raised_is_asked_of_a_finished_index_too(tmp_path: Path) -> None:
    root = index(tmp_path, CORPUS, factory="IVF8,PQ2x4", target_recall=1.0, min_recall=None)
    report = Whole.open(root, "index_report")
    assert refuse_below_floor(report, IndexSettings(min_recall=0.1)).factory == "IVF8,PQ2x4"
    with pytest.raises(ShardFailed, match="recall@2 of 300 image queries is at best 0.*below index.min_recall 0.99"):
        refuse_below_floor(report, IndexSettings(min_recall=0.99, target_recall=1.0))


def test_without_a_floor_it_is_kept_with_the_best_that_it_reaches(tmp_path: Path) -> None:
    root = index(tmp_path, CORPUS, factory="IVF8,PQ2x4", target_recall=1.0, min_recall=None)
    said = next(r for r in Retriever(root).index.recall if r["direction"] == "image" and r["k"] == 2)
    assert 0.3 < said["recall"] < 1


# ── where it lies ──


def test_serving_files_are_memory_mapped(root: str) -> None:
    retriever = Retriever(root)
    retriever.search(CORPUS.images[:1], 1)
    mapped = Path("/proc/self/maps").read_text()
    assert all(str(path) in mapped for path in Path(root, "index", "data", "shards").iterdir())


def test_a_run_that_takes_the_corpus_from_a_base_has_an_index_of_its_own(root: str, tmp_path: Path) -> None:
    stages = [CORPUS, *index_stages(IndexRecipe(factory="IVF64,PQ16x4", vectors_per_task=1000, serving_shards=1))]
    Run(str(tmp_path), stages, Base(root=root)).execute(LocalExecutor())
    ours, theirs = Retriever(str(tmp_path)), Retriever(root)
    assert (len(ours.index.serving[0].ranges), len(theirs.index.serving[0].ranges)) == (1, 3)
    queries = CORPUS.images[:50]
    np.testing.assert_array_equal(ours.search(queries, 2), theirs.search(queries, 2))


def test_a_corpus_of_more_shards_than_a_process_may_commonly_open_is_gathered(tmp_path: Path) -> None:
    corpus, limits = Drawn(rows=300, width=8, shards=150), resource.getrlimit(resource.RLIMIT_NOFILE)
    Run(str(tmp_path), [corpus]).execute(LocalExecutor())
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, limits[1]))
    try:
        found = Vectors([Whole.open(str(tmp_path), "corpus")], "image").gather(np.arange(300))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    np.testing.assert_array_equal(found, corpus.images)


def test_an_image_that_many_rows_show_does_not_make_candidates_of_all_queries(root: str) -> None:
    shown, images = np.arange(20_000), CORPUS.images.astype(np.float32)
    retriever, nothing = Retriever(root), np.empty(0, np.int64)
    vectors = retriever.database.vectors()
    neighbors, similarity = exact_search(vectors, images[:500], KNOWN)
    queries = Queries("image", images[:500], [shown, *[nothing] * 499], neighbors, similarity)
    template = read_template(Whole.open(root, "index_train"))
    lists = Lists.read(template, open_serving(retriever.database), CORPUS.rows, None)
    tracemalloc.start()
    measure(queries, lists, vectors, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 * 20_000 * 3 * 8  # the ids alone of three shards, if each query had as many candidates


# ── what goes wrong ──


def test_a_serving_file_that_is_missing_or_cut_off_is_named_and_made_again_alone(tmp_path: Path) -> None:
    root = index(tmp_path, Drawn(rows=400, shards=1), factory="IVF4,Flat", serving_shards=2, min_recall=None)
    first, second = sorted(Path(root, "index", "data", "shards").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{first.name} has .* bytes instead of"):
        Retriever(root)
    first.unlink()
    with pytest.raises(InputError, match=f"{first.name} is missing"):
        Retriever(root)
    kept = second.stat().st_mtime_ns
    index(tmp_path, Drawn(rows=400, shards=1), factory="IVF4,Flat", serving_shards=2, min_recall=None)
    assert second.stat().st_mtime_ns == kept  # that one alone was made again
    ids, _ = Retriever(root, nprobe=4).search(Drawn(rows=400).images, 1)
    np.testing.assert_array_equal(Drawn(rows=400).images[ids[:, 0]], Drawn(rows=400).images)


def test_a_corpus_whose_row_ids_do_not_count_from_0_is_refused(tmp_path: Path) -> None:
    report = run_index(tmp_path, Drawn(rows=400, shards=1, first_row_id=1), factory="IVF4,Flat")
    (cause,) = report.failed.values()
    assert "corpus shard 000000: its row_id column does not count from 0" in cause


def test_a_corpus_of_a_few_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 9 pairs, and an index whose recall can be measured needs 10"):
        run_index(tmp_path, Drawn(rows=9, shards=1))


def test_the_smallest_corpus_gets_an_index(tmp_path: Path) -> None:
    root = index(tmp_path, Drawn(rows=10, shards=1))
    ids, _ = Retriever(root).search(Drawn(rows=10).images, 1)
    np.testing.assert_array_equal(ids[:, 0], np.arange(10))
