"""`auto` gives an index that can be trained, and what cannot be made is refused before anything is written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import RecipeError
from stages.index import IndexRecipe
from stages.index.factory import choose
from tests.stages.index.corpora import Drawn, run_index


@pytest.mark.parametrize(
    ("rows", "width", "factory"),
    [
        (100, 64, "RR64,IVF2,RaBitQ"),
        (2_000, 512, "RR512,IVF32,RaBitQ"),
        (200_000, 512, "RR512,IVF2048,RaBitQ"),
        (1_000_000, 768, "RR768,IVF4096,RaBitQ"),
        (5_000_000, 512, "RR512,IVF8192,RaBitQ"),
        (15_000_000, 512, "RR512,IVF32768_HNSW32,RaBitQ"),
        (119_000_000, 512, "RR512,IVF65536_HNSW32,RaBitQ"),
        (200_000, 31, "RR31,IVF2048,RaBitQ"),
    ],
)
def test_auto(rows: int, width: int, factory: str) -> None:
    assert choose(IndexRecipe(train_memory_gib=100), rows, width).factory == factory


@pytest.mark.parametrize(
    ("rows", "width", "memory_gib", "factory"),
    [
        (1_000_000, 512, 0.09, "RR512,IVF4096,RaBitQ"),
        (1_000_000, 512, 0.08, "IVF4096,PQ64np"),
        (1_000_000, 512, 0.05, "IVF4096,PQ32np"),
        (10_900, 512, 0.001, "IVF128,PQ64x4np"),
        (11_500, 100, 0.00043, "IVF256,PQ10np"),
        (119_000_000, 512, 10, "RR512,IVF65536_HNSW32,RaBitQ"),
        (119_000_000, 512, 8.5, "IVF65536_HNSW32,PQ64np"),
    ],
)
def test_auto_takes_shorter_codes_where_memory_is_short(rows: int, width: int, memory_gib: float, factory: str) -> None:
    recipe = IndexRecipe(memory_gib=memory_gib, train_memory_gib=100)
    assert choose(recipe, rows, width).factory == factory


@given(st.integers(10, 300_000), st.integers(1, 1100), st.integers(1, 2000))
def test_auto_is_never_refused_for_want_of_vectors(rows: int, width: int, queries: int) -> None:
    choice = choose(IndexRecipe(queries=queries), rows, width)
    assert choice.nlist == 1 or choice.nlist * 39 <= choice.sample <= rows - choice.queries
    assert 1 <= choice.queries <= rows / 10


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            IndexRecipe(nlist=4096),
            r"index: nlist 4096 needs 159,744 training vectors \(39 per list\), found 61,440. Set index.nlist ≤ 1575 "
            "or add sources. Nothing was written.",
        ),
        (
            IndexRecipe(factory="IVF2048,PQ64", queries=1000),
            "Set the IVF number of index.factory ≤ 1575 or add sources",
        ),
        (IndexRecipe(nlist=64, train_sample=2000), "Set index.nlist ≤ 51 or raise index.train_sample"),
        (
            IndexRecipe(factory="IVF16,PQ64", train_sample=5000),
            r"PQ64 needs 9,984 training vectors \(39 for each of its 256 centroids\), found 5,000",
        ),
        (IndexRecipe(factory="OPQ16,IVF16,PQ16x4", train_sample=5000), "needs 9,984 training vectors"),
        (IndexRecipe(factory="IVF16,PQ60"), "for vectors 512 wide: .*should be a multiple of the number of subquant"),
        (IndexRecipe(factory="IVF16,PQ"), "cannot be made by FAISS .*could not parse"),
        (IndexRecipe(memory_gib=0.0001), r"memory_gib is 0.0001, and 62,440 rows 512 wide take at least .* \(as IVF"),
        (IndexRecipe(factory="IVF16,PQ64", memory_gib=0.004), r"take at least 0.0047\d GiB \(as IVF16,PQ64\)"),
        (IndexRecipe(factory="Flat"), "IndexFlat is no inverted file"),
        (IndexRecipe(factory="HNSW32"), "IndexHNSWFlat is no inverted file"),
        (IndexRecipe(factory="IVF16,PQ16,RFlat"), "IndexRefineFlat is no inverted file"),
        (IndexRecipe(factory="IVF16,PQ16x4fs"), "packs its codes in blocks.*without `fs`"),
        (IndexRecipe(factory="IVF16,RaBitQfs"), "packs its codes in blocks"),
        (IndexRecipe(factory="IVF0,PQ16"), "it has no list; write IVF and a number of at least 1"),
        (IndexRecipe(factory="IVF256(IVF16,Flat),PQ16"), "its centroids lie in an inverted file, .*; write IVF4096_H"),
        (IndexRecipe(factory="IVF16,ITQ,SH1.5"), "does not compare by inner product"),
    ],
)
def test_what_cannot_be_trained_or_served_is_refused_with_the_reason(recipe: IndexRecipe, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        choose(recipe, rows=62_440, width=512)


def test_training_that_needs_more_memory_than_it_is_given_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"on 4,194,304 vectors 512 wide takes 20.5 GiB, and index.train_memory_gib"):
        choose(IndexRecipe(), rows=119_000_000, width=512)


def test_a_refusal_leaves_nothing_in_the_root(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nlist 100 needs 3,900 training vectors \(39 per list\), found 360"):
        run_index(tmp_path, Drawn(rows=400, shards=1), nlist=100)
    assert not (tmp_path / "index_train").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"factory": "IVF16,PQ16", "nlist": 8}, "nlist is 8, but factory 'IVF16,PQ16' names its own"),
        ({"factory": "autofaiss"}, "asks how much memory there is: set memory_gib"),
        ({"target_recall": 0.9}, "min_recall is 0.95, but the index is tuned to target_recall 0.9 only"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        IndexRecipe.model_validate(settings)
