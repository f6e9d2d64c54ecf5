"""FAISS' indexes as the stages use them: made from a factory string, and looked into behind their transforms."""

import hashlib
import re
from typing import Any

from pipeline.errors import RecipeError


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


def transforms(index: Any) -> list[Any]:
    """The rotations and the like before the inverted file. They belong to `index`, which has to outlive them."""
    import faiss

    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain: Any = index.chain  # a C++ vector
    return [faiss.downcast_VectorTransform(chain.at(number)) for number in range(chain.size())]


def before_lists(index: Any, vectors: Any) -> Any:
    """(n, D) float32 → as the inverted file gets them."""
    for transform in transforms(index):
        vectors = transform.apply(vectors)
    return vectors


def fingerprint(index: Any) -> str:
    """sha256 of what an index was trained to: whatever decides the bytes of a code, and nothing that was added."""
    import faiss

    ivf = inverted_file(index)
    trained = [ivf.quantizer.reconstruct_n(0, ivf.nlist)]
    trained += map(_serialized, transforms(index))
    if isinstance(ivf, faiss.IndexIVFPQ):
        trained.append(faiss.vector_to_array(ivf.pq.centroids))
    if isinstance(ivf, faiss.IndexIVFAdditiveQuantizer):
        trained.append(faiss.vector_to_array(ivf.aq.codebooks))
    if isinstance(ivf, faiss.IndexIVFScalarQuantizer):
        trained.append(faiss.vector_to_array(ivf.sq.trained))
    digest = hashlib.sha256()
    for array in trained:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _serialized(transform: Any) -> Any:
    import faiss

    writer: Any = faiss.VectorIOWriter()
    faiss.write_VectorTransform(transform, writer)
    return faiss.vector_to_array(writer.data)


def _why_not_served(index: Any) -> str | None:
    import faiss

    inner: Any = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    kind = type(inner).__name__
    if not isinstance(inner, faiss.IndexIVF):
        return f"{kind} is no inverted file; write [transform,]IVF…,code (stored vectors re-rank the results anyway)"
    if inner.metric_type != faiss.METRIC_INNER_PRODUCT:
        return f"{kind} does not compare by inner product; write another code such as PQ64"
    if not inner.nlist:
        return "it has no list; write IVF and a number of at least 1"
    if isinstance(faiss.downcast_index(inner.quantizer), faiss.IndexIVF):
        return "its centroids lie in an inverted file, from which FAISS cannot read them back; write IVF4096_HNSW32"
    lists: Any = inner.invlists
    if type(faiss.downcast_InvertedLists(lists)) is not faiss.ArrayInvertedLists:
        return f"{kind} packs its codes in blocks, which cannot be memory-mapped; write it without `fs` or `Panorama`"
    return None
