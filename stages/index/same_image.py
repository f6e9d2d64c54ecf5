"""Which rows of some corpora show the same image as a given row: equal stored bytes, one image_id of one source, or one
perceptual hash with cosine ≥ 0.98 (the hash alone confuses flat pictures)."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from pipeline.commits import Whole
from stages.filter import SAME_IMAGE_COSINE
from stages.index.vectors import Ids, Vectors

BLOCK = 65_536  # pairs whose vectors are in memory at once: 1 GiB at width 512
BYTES, IMAGE_ID, HASH = ["stored_sha256"], ["source", "image_id"], ["phash"]


def same_image_rows(corpora: Sequence[Whole], images: Vectors, ids: Ids) -> list[Ids]:
    """For each of the ids, those of all rows that show the same image, itself among them, in order.

    images: the image vectors of the corpora.
    """
    queries = pl.DataFrame({"id": ids, "query": np.arange(len(ids))})
    asked = pl.concat([shard.join(queries, on="id") for shard in _keys(corpora)])
    itself = np.column_stack([np.arange(len(ids)), ids])
    same, hashed = [itself], [itself[:0]]
    for shard in _keys(corpora):
        same += [_sharing(shard, asked, BYTES), _sharing(shard, asked, IMAGE_ID)]
        hashed.append(_sharing(shard, asked, HASH))
    same.append(_alike(np.concatenate(hashed), images, ids))
    pairs = np.unique(np.concatenate(same), axis=0)
    return np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, len(ids))))


def _keys(corpora: Sequence[Whole]) -> Iterator[pl.DataFrame]:
    first = 0
    for corpus in corpora:
        for name in corpus.shards:
            shard = pl.DataFrame(corpus.read(name).table("metadata", [*BYTES, *IMAGE_ID, *HASH]))
            yield shard.with_columns(pl.int_range(first, first + len(shard), dtype=pl.Int64).alias("id"))
            first += len(shard)


def _sharing(shard: pl.DataFrame, asked: pl.DataFrame, keys: Sequence[str]) -> Ids:
    """(pairs, 2): the number of a query, and a row of the shard with the same keys. Null is equal to nothing."""
    joined = asked.select("query", *keys).join(shard.select("id", *keys), on=list(keys))
    pairs: Ids = joined.select("query", "id").to_numpy()
    return pairs


def _alike(pairs: Ids, images: Vectors, ids: Ids) -> Ids:
    """Those of the pairs (query number, row) whose images are near enough."""
    alike = np.zeros(len(pairs), np.bool_)
    for start in range(0, len(pairs), BLOCK):
        some = pairs[start : start + BLOCK]
        asked, found = images.gather(ids[some[:, 0]]), images.gather(some[:, 1])
        cosine = np.einsum("nd,nd->n", asked.astype(np.float64), found.astype(np.float64))
        alike[start : start + BLOCK] = cosine >= SAME_IMAGE_COSINE
    kept: Ids = pairs[alike]
    return kept
