"""The codes that the add tasks write are those that FAISS itself puts into its lists."""

import faiss
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.threads import set_threads
from stages.index.add import Encoder
from stages.index.faiss_index import empty_index, inverted_file
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
    lists, codes = Encoder.of(index, exact="HNSW" not in factory).encode(VECTORS)
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
    with pytest.raises(InputError, match="row 7 of .* holds values that are not finite"):
        Encoder.of(index, exact=True).encode(broken)
