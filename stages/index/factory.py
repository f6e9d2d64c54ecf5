"""Which FAISS index to build: the rule behind `auto`, and what is refused before anything is written.

`auto`, from N rows, D wide, of which T may be trained on, and the memory that codes, ids and centroids may take:
    nlist   the power of two nearest to 4·√N, from 10 M rows on to 8·√N; halved until there are 39 training vectors a
            list. Up to 8,192 lists a query is compared with every centroid, beyond it asks a graph of them (HNSW32)
    code    the first that fits the memory: RaBitQ behind a random rotation (D/8 + 8 bytes), which reaches with 20 rows
            re-ranked what PQ of as many bytes needs 200 for, and scans twice as fast (docs/results.md); then PQ of
            D/8, … D/64 sub-quantisers of 8 bits, or of 4 below the 39·256 training vectors that 8 bits need
A number of sub-quantisers divides D. 39 training vectors a centroid is the least that FAISS asks for; with fewer, its
k-means warns and centroids settle on single vectors.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RecipeError
from pipeline.recipe import Json
from stages.index.faiss_index import empty_index, inverted_file, transforms
from stages.index.recipe import IndexRecipe
from stages.index.size import GIB, index_bytes

PER_CENTROID = 39
ENOUGH_PER_LIST, ENOUGH_FOR_CODES = 64, 65_536  # training vectors beyond which nothing is gained; FAISS draws 256·256
MANY_ROWS, COMPARED_LISTS = 10_000_000, 8192
QUERY_SHARE = 10
HALF_BYTES, FLOAT_BYTES, TRAINING_GIB = 2, 4, 0.5


@dataclass(frozen=True)
class Choice:
    """What `auto` and the numbers left open came to."""

    factory: str
    nlist: int
    queries: int  # rows that are kept out of the training sample
    sample: int  # rows to train on

    def resolved(self) -> dict[str, Json]:
        return dict(vars(self))


def choose(recipe: IndexRecipe, rows: int, width: int) -> Choice:
    """Raises RecipeError where the index cannot be made, trained or served, or takes too much memory."""
    queries = min(recipe.queries, rows // QUERY_SHARE)
    trainable = min(rows - queries, recipe.train_sample or rows)
    factory = _factory(recipe, rows, width, trainable)
    index = empty_index(factory, width)
    nlist = inverted_file(index).nlist
    faults = list(_untrainable(recipe, factory, index, trainable))
    if faults:
        more = "raise index.train_sample" if trainable == recipe.train_sample else "add sources"
        raise RecipeError("\n".join(f"index: {fault} or {more}. Nothing was written." for fault in faults))
    if recipe.factory != "autofaiss":  # which does not count centroids
        _check_memory(recipe, [factory], rows, width)
    enough = max(ENOUGH_PER_LIST * nlist, ENOUGH_FOR_CODES)
    sample = trainable if recipe.train_sample else min(trainable, enough)
    _check_training(recipe, factory, sample, width)
    return Choice(factory, nlist, queries, sample)


def _factory(recipe: IndexRecipe, rows: int, width: int, trainable: int) -> str:
    if recipe.factory == "auto":
        return auto_factory(recipe, rows, width, trainable)
    if recipe.factory == "autofaiss":
        from stages.index.autofaiss import ask_autofaiss

        assert recipe.memory_gib is not None, "checked with the recipe"
        return ask_autofaiss(rows, width, int(recipe.memory_gib * GIB))
    return recipe.factory


def auto_factory(recipe: IndexRecipe, rows: int, width: int, trainable: int) -> str:
    """Raises RecipeError where nothing fits the memory."""
    nlist = recipe.nlist or 2 ** round(math.log2((4 if rows < MANY_ROWS else 8) * math.sqrt(rows)))
    while recipe.nlist is None and nlist > max(trainable // PER_CENTROID, 1):
        nlist //= 2
    lists = f"IVF{nlist}" if nlist <= COMPARED_LISTS else f"IVF{nlist}_HNSW32"
    factories = [f"RR{width},{lists},RaBitQ"]
    factories += [f"{lists},{code}" for code in _product_codes(width, trainable)]
    return _check_memory(recipe, factories, rows, width)


def _product_codes(width: int, trainable: int) -> Iterator[str]:
    """From the longest. `np` leaves out polysemous training, which takes eight times as long and serves no one here."""
    bits = "" if trainable >= PER_CENTROID * 256 else "x4"
    for m in range(max(width // 8, 1), max(width // 64, 1) - 1, -1):
        if width % m == 0:
            yield f"PQ{m}{bits}np"


def _check_memory(recipe: IndexRecipe, factories: list[str], rows: int, width: int) -> str:
    """The first that fits. Raises RecipeError where none does."""
    if recipe.memory_gib is None:
        return factories[0]
    takes = {factory: index_bytes(factory, width, rows).total for factory in factories}
    fitting = [factory for factory, size in takes.items() if size <= recipe.memory_gib * GIB]
    if not fitting:
        least = min(takes, key=lambda factory: takes[factory])
        raise RecipeError(
            f"index.memory_gib is {recipe.memory_gib:g}, and {rows:,} rows {width} wide take at least "
            f"{takes[least] / GIB:.3g} GiB (as {least}). Raise it, or set fewer lists with index.nlist. Nothing was "
            "written."
        )
    return fitting[0]


def _check_training(recipe: IndexRecipe, factory: str, sample: int, width: int) -> None:
    """As stored, widened, and once more where a rotation comes before the lists."""
    copies = HALF_BYTES + FLOAT_BYTES * (2 if transforms(empty_index(factory, width)) else 1)
    needed = sample * width * copies / GIB + TRAINING_GIB
    if needed > recipe.train_memory_gib:
        raise RecipeError(
            f"index: training {factory} on {sample:,} vectors {width} wide takes {needed:.1f} GiB, and "
            f"index.train_memory_gib is {recipe.train_memory_gib:g}. Raise it, or set index.train_sample to fewer "
            "vectors. Nothing was written."
        )


def _untrainable(recipe: IndexRecipe, factory: str, index: Any, found: int) -> Iterator[str]:
    """What there are too few training vectors for, each with what to set instead."""
    import faiss

    ivf = inverted_file(index)
    lists_knob = {"auto": "index.nlist", "autofaiss": "index.factory to auto, or to one with its IVF number"}.get(
        recipe.factory, "the IVF number of index.factory"
    )
    if ivf.nlist > max(found // PER_CENTROID, 1):
        need = ivf.nlist * PER_CENTROID
        yield (
            f"nlist {ivf.nlist} needs {need:,} training vectors ({PER_CENTROID} per list), found {found:,}. "
            f"Set {lists_knob} ≤ {max(found // PER_CENTROID, 1)}"
        )
    bits = max(ivf.pq.nbits if isinstance(ivf, faiss.IndexIVFPQ) else 0, 8 if "OPQ" in factory else 0)
    if bits and found < PER_CENTROID << bits:
        yield (
            f"the product quantiser of {factory} needs {PER_CENTROID << bits:,} training vectors ({PER_CENTROID} for "
            f"each of its {1 << bits} centroids), found {found:,}. Set index.factory to auto or to fewer bits (PQ…x4)"
        )
