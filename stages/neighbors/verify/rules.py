"""The leakage rules in the verifier's own words (Re-ViLM §3.3: a neighbour has neither the query's image nor its
caption).

Nothing is shared with the code that applies them, so that one mistake cannot hide the other.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

RULES = ("pair", "image_id", "sha256", "phash", "caption")
"""In the order in which they are counted: a pair that breaks several counts under the first."""

NO_RULE = len(RULES)

COLUMNS = ("pair_id", "source", "image_id", "stored_sha256", "phash", "caption")
SAME_IMAGE_COSINE = 0.98  # under one perceptual hash, which alone confuses flat pictures
WIDENED = 8192  # pairs of vectors whose products are taken at once: 64 MiB at width 512

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float16]


class _Spaced(dict[int, str]):
    """Code point → the character if it is a letter, mark or number, else a space."""

    def __missing__(self, code: int) -> str:
        self[code] = chr(code) if unicodedata.category(chr(code))[0] in "LMN" else " "
        return self[code]


_SPACED = _Spaced()


def caption_key(caption: str) -> str:
    """Equal for captions that the caption rule calls the same; the caption itself where nothing but signs is in it."""
    folded = unicodedata.normalize("NFKC", caption).casefold()
    return " ".join(folded.translate(_SPACED).split()) or caption


def with_caption_keys(rows: pa.Table) -> pa.Table:
    """rows of COLUMNS → the same with a column caption_key."""
    return rows.append_column("caption_key", pa.array(map(caption_key, rows["caption"].to_pylist()), pa.string()))


def broken_rule(queries: pa.Table, others: pa.Table, query_images: Vectors, other_images: Vectors) -> Integers:
    """Row i of the queries against row i of the others (COLUMNS and caption_key; (n, D) images) → (n,) the
    first rule that is broken, by its place in RULES, or NO_RULE."""
    same = {name: _equal(queries[name], others[name]) for name in (*COLUMNS, "caption_key")}
    phash = np.flatnonzero(same["phash"])
    same["phash"][phash] = inner_products(query_images[phash], other_images[phash]) >= SAME_IMAGE_COSINE
    image_id = same["image_id"] & same["source"]
    rules = [same["pair_id"], image_id, same["stored_sha256"], same["phash"], same["caption_key"]]
    first: Integers = np.select(rules, range(NO_RULE), NO_RULE)
    return first


def rules_broken(queries: pa.Table, others: pa.Table, cosines: Floats) -> Sequence[Mask]:
    """Every query (Q,) against every other (n,) (COLUMNS and caption_key); cosines (Q, n) of their images → for each of
    RULES, (Q, n)."""
    same = {name: _equal_pairs(queries[name], others[name]) for name in (*COLUMNS, "caption_key")}
    image_id, phash = same["image_id"] & same["source"], same["phash"] & (cosines >= SAME_IMAGE_COSINE)
    return [same["pair_id"], image_id, same["stored_sha256"], phash, same["caption_key"]]


def inner_products(left: Vectors, right: Vectors) -> Floats:
    """(n, D), (n, D) → (n,). Exact: products of float16 are multiples of 2^-48, and float64 holds their sums whole."""
    products = np.empty(len(left))
    for first in range(0, len(left), WIDENED):
        some = slice(first, first + WIDENED)
        products[some] = np.einsum("nd,nd->n", left[some].astype(np.float64), right[some].astype(np.float64))
    return products


def _equal_pairs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Mask:
    """(Q,), (n,) → (Q, n). Null is equal to nothing."""
    known = left.unique()
    ours, theirs = (pc.index_in(values, known, skip_nulls=True) for values in (left, right))
    equal: Mask = np.equal.outer(ours.fill_null(-1).to_numpy(), theirs.fill_null(-2).to_numpy())
    return equal


def _equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Mask:
    """Null is equal to nothing."""
    equal: Mask = pc.equal(left, right).fill_null(fill_value=False).to_numpy().copy()
    return equal
