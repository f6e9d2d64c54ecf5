"""Where the right answer stands among all candidates, by exact cosine.

Inner products of stored float16 vectors are exact in float64, in any order of summation (stages/index/exact.py), so a
rank does not depend on library or machine, and what is equal is a real tie.
Shapes: Q queries, K candidates, D width.
"""

import numpy as np
import numpy.typing as npt

Half = npt.NDArray[np.float16]
Ids = npt.NDArray[np.int64]
AT_ONCE = 1 << 22  # similarities in memory: 32 MiB


def ranks(queries: Half, wanted: Ids, candidates: Half, labels: Ids) -> Ids:
    """queries (Q, D), candidates (K, D), float16; wanted (Q), labels (K): a candidate is right for a query that wants
    its label → (Q) how many wrong candidates are as similar as the best right one, or more: 0 is the first place.

    A tie counts against the query: a model of which all vectors are equal finds nothing. Raises ValueError where a
    query has no right candidate.
    """
    if not np.isin(wanted, labels).all():
        raise ValueError(f"{(~np.isin(wanted, labels)).sum():,} of {len(wanted):,} queries have no right candidate")
    wide, found = candidates.astype(np.float64).T, np.empty(len(queries), np.int64)
    step = max(AT_ONCE // len(candidates), 1)
    for first in range(0, len(queries), step):
        some = slice(first, first + step)
        similarity = queries[some].astype(np.float64) @ wide
        right = wanted[some, None] == labels
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        found[some] = (~right & (similarity >= best)).sum(axis=1)
    return found
