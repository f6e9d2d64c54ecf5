"""The codes that the add tasks write are those that FAISS itself puts into its lists."""

import faiss
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.threads import set_threads
from stages.index.add import Encoder
from stages.index.faiss_index import empty_index, fingerprint, inverted_file
from tests.stages.index.corpora import Drawn

VECTORS = Drawn(rows=400, width=16).images


@pytest.mark.parametrize(
    "factory",
    [
        "IVF300,PQ4x4",
        "IVF8,PQ2",
        "IVF8,PQ4x6",
        "OPQ2,IVF8,PQ2",
        "IVF8,SQ8",
        "IVF8,SQ4",
        "IVF8,Flat",
        "IVF8,RaBitQ",
        "IVF30_HNSW8,PQ4x4",
    ],
)
def test_encode_writes_what_add_stores(factory: str) -> None:
    index = empty_index(factory, 16)
    set_threads(1)
    index.train(VECTORS.astype(np.float32))
    lists, codes = Encoder.of(index, exact="HNSW" not in factory).encode(VECTORS, np.arange(len(VECTORS)))
    index.add_with_ids(VECTORS.astype(np.float32), np.arange(len(VECTORS)))
    ivf = inverted_file(index)
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
        stored = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), size * ivf.code_size).reshape(size, -1)
        np.testing.assert_array_equal(np.flatnonzero(lists == number), ids)
        np.testing.assert_array_equal(codes[lists == number], stored)


def test_vectors_that_are_not_finite_are_refused() -> None:
    index = empty_index("IVF4,Flat", 16)
    index.train(VECTORS.astype(np.float32))
    broken = VECTORS.copy()
    broken[7, 3] = np.nan
    with pytest.raises(InputError, match="the vector of id 107 holds values that are not finite"):
        Encoder.of(index, exact=True).encode(broken, np.arange(100, 100 + len(broken)))


@pytest.mark.parametrize("factory", ["PCA8,IVF4,Flat", "ITQ8,IVF4,Flat", "IVF4,RQ2x4", "OPQ2,IVF4,PQ2x4", "IVF4,SQ8"])
def test_the_fingerprint_is_that_of_all_that_was_trained(factory: str) -> None:
    trained, other, same = (empty_index(factory, 16) for _ in range(3))
    for index, vectors in ((trained, VECTORS), (same, VECTORS), (other, VECTORS + np.float16(0.5))):
        set_threads(1)
        index.train(vectors.astype(np.float32))
    assert fingerprint(trained) == fingerprint(same)
    quantizers = [inverted_file(index).quantizer for index in (trained, other)]
    for quantizer in quantizers:  # of one bytes, so that what is behind or before them tells
        quantizer.reset()
        quantizer.add(np.eye(4, inverted_file(trained).d, dtype=np.float32))
    assert fingerprint(trained) != fingerprint(other)
