"""Search a finished index: what captioning, neighbour mining, the service and jobs/search.py ask.

Shapes: Q queries, D width, k results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from stages.index.database import Database
from stages.index.exact import best_first, exact_similarity
from stages.index.index_file import IndexFile
from stages.index.serving import Owners, Scores, Serving, candidates
from stages.index.vectors import Direction, Ids


class Retriever:
    """The index of a run root, its vectors and its pairs, all memory-mapped or read when asked for.

    nprobe, depth: lists probed and candidates re-ranked; None: as the build tuned them for the queries' direction, by
    pictures (`image`) or by captions (`text`). owners: who holds the serving shards; None: this process does.
    Raises InputError where the index is not finished, or a corpus or serving shards are not those it was measured with,
    or a file is missing or truncated.
    """

    def __init__(
        self,
        root: str,
        *,
        direction: Direction = "image",
        nprobe: int | None = None,
        depth: int | None = None,
        owners: Owners | None = None,
    ) -> None:
        self.database = Database.of_index(root)
        tuned = self.index.tuned[direction]
        self.nprobe, self.depth = nprobe or tuned.nprobe, depth or tuned.depth
        self._vectors = self.database.vectors()
        self._owners = owners or open_serving(self.database)
        self.width = self._vectors.width

    @property
    def index(self) -> IndexFile:
        assert self.database.index is not None, "opened by its index"
        return self.database.index

    def search(
        self, vectors: npt.ArrayLike, k: int, *, exclude: Sequence[Ids] | None = None, rerank: bool = True
    ) -> tuple[Ids, Scores]:
        """vectors (Q, D), of norm 1 → ids (Q, k) int64 and cosines (Q, k) float32, by cosine and then by id.

        exclude: ids that each query must not find; as many more candidates are fetched.
        rerank: False gives the order and the approximate cosines of the codes.
        Where fewer than k rows lie in the probed lists: id −1, cosine −inf.
        """
        queries = np.ascontiguousarray(vectors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.width or not np.isfinite(queries).all():
            raise InputError(
                f"queries should be finite vectors {self.width} wide, found shape {queries.shape}"
                f"{'' if np.isfinite(queries).all() else ' with values that are not finite'}"
            )
        count = max(self.depth, k) if rerank else k
        ids, scores = candidates(self._owners, queries, count, self.nprobe, exclude)
        if not rerank:
            return ids, scores
        ids, similarity = best_first(ids, exact_similarity(self._vectors, queries, ids), k)
        return ids, similarity.astype(np.float32)

    def pairs(self, ids: npt.ArrayLike) -> list[dict[str, Any]]:
        """(n,) ids → their rows of the corpora's metadata (schema PAIRS): caption, source, url, the picture's place.
        Raises IndexError where an id is no row (−1, say)."""
        return [self.database.pair(int(row_id)) for row_id in np.asarray(ids)]

    def picture(self, pair: Mapping[str, Any]) -> bytes:
        """The JPEG of a pair."""
        return self.database.picture(pair)

    def tar_of(self, pair: Mapping[str, Any]) -> str:
        """Path or url of the tar that holds a pair's picture: `bytes` of it at `offset`."""
        return self.database.tar_of(pair)


def open_serving(database: Database) -> Serving:
    """All serving shards of an index in this process."""
    index = database.index
    assert index is not None, "a database with an index"
    parts = [(part.open(database.root, "index"), part.ranges) for part in index.serving]
    return Serving.open(parts, database.alive)
