"""Search a finished index: what captioning, neighbour mining, the service and jobs/search.py ask.

Shapes: Q queries, D width, k results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.filter import CorpusReader
from stages.index.exact import best_first, exact_similarity
from stages.index.index_file import IndexFile
from stages.index.serving import Scores, Serving
from stages.index.train import ONLY
from stages.index.vectors import Ids, Vectors


class Retriever:
    """The index of a run root, its vectors and its pairs, all memory-mapped or read when asked for.

    nprobe, depth: lists probed and candidates re-ranked; None: as the build tuned them.
    Raises InputError where the index is not finished, or the root's corpus or serving shards are not those it was
    measured with, or a file is missing or truncated.
    """

    def __init__(self, root: str, *, nprobe: int | None = None, depth: int | None = None) -> None:
        report = Whole.open(root, "index_report")
        with report.read(ONLY).open("index") as file:
            self.index = IndexFile.model_validate_json(file.read())
        self.nprobe = nprobe or self.index.nprobe
        self.depth = depth or self.index.depth
        root = report.folder.root  # where the index was made, if it was taken from a base
        self.corpus = CorpusReader(root)
        self._images = Vectors(_same(root, "corpus", self.index.corpora[0].identity), "img_emb")
        self._serving = Serving.open(_same(root, "index", self.index.index_identity))
        self.width = self._images.width

    def search(
        self, vectors: npt.ArrayLike, k: int, *, exclude: Sequence[Ids] | None = None, rerank: bool = True
    ) -> tuple[Ids, Scores]:
        """vectors (Q, D), of norm 1 → row ids (Q, k) int64 and cosines (Q, k) float32, by cosine and then by row id.

        exclude: row ids that each query must not find; as many more candidates are fetched.
        rerank: False gives the order and the approximate cosines of the codes.
        Where fewer than k rows lie in the probed lists: id −1, cosine −inf.
        """
        queries = np.ascontiguousarray(vectors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise InputError(f"queries have shape {queries.shape}, and this index holds vectors {self.width} wide")
        count = max(self.depth, k) if rerank else k
        ids, scores = self._serving.candidates(queries, count, self.nprobe, exclude)
        if not rerank:
            return ids, scores
        ids, similarity = best_first(ids, exact_similarity(self._images, queries, ids), k)
        return ids, similarity.astype(np.float32)

    def pairs(self, ids: npt.ArrayLike) -> list[dict[str, Any]]:
        """(n,) row ids → their rows of the corpus' metadata (schema PAIRS): caption, source, url, the picture's place.
        `self.corpus.picture(row)` reads the picture. Raises IndexError where an id is no row (−1, say)."""
        return [self.corpus.row(int(row_id)) for row_id in np.asarray(ids)]

    def tar_of(self, pair: Mapping[str, Any]) -> str:
        """Path or url of the tar that holds a pair's picture: `bytes` of it at `offset`."""
        number, shard = pair["input"], pair["shard"]
        whole = Whole.open(self.corpus.roots[number], "download") if number >= 0 else self._images.corpus
        return f"{whole.folder.store.root}/{whole.read(shard).entry('images').path}"


def _same(root: str, stage: str, identity: str) -> Whole:
    whole = Whole.open(root, stage)
    if whole.identity != identity:
        raise InputError(f"{root}/{stage} is another one than its index was measured with; build the index again")
    return whole
