"""Which rows of a corpus show the same image as a given row: equal stored bytes, one image_id of one source, or one
perceptual hash with cosine ≥ 0.98 (the hash alone confuses flat pictures)."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from pipeline.commits import Whole
from stages.filter import SAME_IMAGE_COSINE
from stages.index.vectors import Ids, Vectors

BLOCK = 65_536  # pairs whose vectors are in memory at once: 1 GiB at width 512
BYTES, IMAGE_ID, HASH = ["stored_sha256"], ["source", "image_id"], ["phash"]


def same_image_rows(corpus: Whole, images: Vectors, rows: Ids) -> list[Ids]:
    """For each of the rows, the ids of all that show the same image, itself among them, in order."""
    queries = pl.DataFrame({"row_id": rows, "query": np.arange(len(rows))})
    asked = pl.concat([shard.join(queries, on="row_id") for shard in _keys(corpus)])
    itself = np.column_stack([np.arange(len(rows)), rows])
    same, hashed = [itself], [itself[:0]]
    for shard in _keys(corpus):
        same += [_sharing(shard, asked, BYTES), _sharing(shard, asked, IMAGE_ID)]
        hashed.append(_sharing(shard, asked, HASH))
    same.append(_alike(np.concatenate(hashed), images, rows))
    pairs = np.unique(np.concatenate(same), axis=0)
    return np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, len(rows))))


def _keys(corpus: Whole) -> Iterator[pl.DataFrame]:
    for shard in corpus.shards:
        yield pl.DataFrame(corpus.read(shard).table("metadata", ["row_id", *BYTES, *IMAGE_ID, *HASH]))


def _sharing(shard: pl.DataFrame, asked: pl.DataFrame, keys: Sequence[str]) -> Ids:
    """(pairs, 2): the number of a query, and a row of the shard with the same keys. Null is equal to nothing."""
    joined = asked.select("query", *keys).join(shard.select("row_id", *keys), on=list(keys))
    pairs: Ids = joined.select("query", "row_id").to_numpy()
    return pairs


def _alike(pairs: Ids, images: Vectors, rows: Ids) -> Ids:
    """Those of the pairs (query number, row) whose images are near enough."""
    alike = np.zeros(len(pairs), np.bool_)
    for start in range(0, len(pairs), BLOCK):
        some = pairs[start : start + BLOCK]
        asked, found = images.gather(rows[some[:, 0]]), images.gather(some[:, 1])
        cosine = np.einsum("nd,nd->n", asked.astype(np.float64), found.astype(np.float64))
        alike[start : start + BLOCK] = cosine >= SAME_IMAGE_COSINE
    kept: Ids = pairs[alike]
    return kept
