"""Which FAISS index to build: the rule behind `auto`, and what is refused before anything is written.

`auto`, from N rows, D wide, of which T may be trained on:
    nlist   the power of two nearest to 4·√N, halved until there are 39 training vectors a list
    code    PQ of D/8 sub-quantisers of 8 bits (64 bytes at D = 512); below 39·256 training vectors, which 8 bits need,
            D/4 sub-quantisers of 4 bits (as many bytes); below 39·16, the vectors themselves
A number of sub-quantisers divides D. 39 training vectors a centroid is the least that FAISS asks for; with fewer, its
k-means warns and centroids settle on single vectors.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import RecipeError
from pipeline.recipe import Json
from stages.index.recipe import IndexRecipe

PER_CENTROID = 39
ENOUGH_PER_LIST, ENOUGH_FOR_CODES = 64, 65_536  # training vectors beyond which nothing is gained; FAISS draws 256·256
QUERY_SHARE = 10


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
    """Raises RecipeError where the index cannot be made, trained or served."""
    queries = min(recipe.queries, rows // QUERY_SHARE)
    trainable = min(rows - queries, recipe.train_sample or rows)
    factory = auto_factory(recipe, rows, width, trainable) if recipe.factory == "auto" else recipe.factory
    index = empty_index(factory, width)
    nlist = inverted_file(index).nlist
    faults = list(_untrainable(recipe, factory, index, trainable))
    if faults:
        more = "raise index.train_sample" if trainable == recipe.train_sample else "add sources"
        raise RecipeError("\n".join(f"index: {fault} or {more}. Nothing was written." for fault in faults))
    enough = max(ENOUGH_PER_LIST * nlist, ENOUGH_FOR_CODES)
    return Choice(factory, nlist, queries, trainable if recipe.train_sample else min(trainable, enough))


def auto_factory(recipe: IndexRecipe, rows: int, width: int, trainable: int) -> str:
    nlist = recipe.nlist or 2 ** round(math.log2(4 * math.sqrt(rows)))
    while recipe.nlist is None and nlist > max(trainable // PER_CENTROID, 1):
        nlist //= 2
    if trainable >= PER_CENTROID * 256:
        return f"IVF{nlist},PQ{_divisor(width, 8)}"
    if trainable >= PER_CENTROID * 16:
        return f"IVF{nlist},PQ{_divisor(width, 4)}x4"
    return f"IVF{nlist},Flat"


def empty_index(factory: str, width: int) -> Any:
    """An untrained FAISS index for inner products. Raises RecipeError where it is none that can be served."""
    import faiss

    try:
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = re.sub(r"^Error in .*? at \S+:\d+: (Error: '.*?' failed: )?", "", str(error))
        raise RecipeError(
            f"index.factory {factory!r} cannot be made by FAISS {faiss.__version__} for vectors {width} wide: "
            f"{reason}. Set another string, or auto. Nothing was written."
        ) from None
    fault = _why_not_served(index)
    if fault:
        raise RecipeError(f"index.factory {factory!r}: {fault}, or set auto. Nothing was written.")
    return index


def inverted_file(index: Any) -> Any:
    """The IndexIVF behind the vector transforms. It belongs to `index`, which has to outlive it."""
    import faiss

    return faiss.downcast_index(faiss.extract_index_ivf(index))


def before_lists(index: Any, vectors: Any) -> Any:
    """(n, D) float32 → as the inverted file gets them, after rotations and the like."""
    import faiss

    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain  # a C++ vector
        for number in range(chain.size()):
            vectors = faiss.downcast_VectorTransform(chain.at(number)).apply(vectors)
    return vectors


def _why_not_served(index: Any) -> str | None:
    import faiss

    inner: Any = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    kind = type(inner).__name__
    if not isinstance(inner, faiss.IndexIVF):
        return f"{kind} is no inverted file; write [transform,]IVF…,code (stored vectors re-rank the results anyway)"
    if inner.metric_type != faiss.METRIC_INNER_PRODUCT:
        return f"{kind} does not compare by inner product; write another code such as PQ64"
    lists: Any = inner.invlists
    if type(faiss.downcast_InvertedLists(lists)) is not faiss.ArrayInvertedLists:
        return f"{kind} packs its codes in blocks, which cannot be memory-mapped; write it without `fs` or `Panorama`"
    return None


def _untrainable(recipe: IndexRecipe, factory: str, index: Any, found: int) -> Iterator[str]:
    """What there are too few training vectors for, each with what to set instead."""
    import faiss

    ivf = inverted_file(index)
    lists_knob = "index.nlist" if recipe.factory == "auto" else "the IVF number of index.factory"
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


def _divisor(width: int, at_least: int) -> int:
    """Sub-quantisers: as many as divide the width and leave each one `at_least` dimensions."""
    return max(m for m in range(1, width + 1) if width % m == 0 and m <= max(width // at_least, 1))
