"""Recall of held-out queries against exact search.

recall@k: a result is a hit when its exact similarity reaches the exact k-th; the share of hits in the first k, averaged
over the queries. A query with fewer than k rows to find is asked for those; one with none is left out. The query's own
row and all rows of the same image are excluded by id, for image queries and for caption queries alike, so that no query
is answered by its own pair.
coverage@k: the share of the exact first k that lie in the probed lists, whatever the code makes of their order.
Shapes: Q queries, D width, R candidates in the order of their codes, K = KNOWN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.intervals import interval
from stages.index.exact import Floats, exact_search, exact_similarity
from stages.index.lists import Lists
from stages.index.serving import Scores, candidates
from stages.index.vectors import Direction, Half, Ids, Vectors

KS = (1, 2, 4, 10)
BLOCK = 64  # queries searched at once: an image that 100,000 rows show makes as many candidates of each of them
KNOWN = 64  # exact neighbours that are remembered of a query
DEPTHS = (10, 20, 50, 100, 200, 500, 1000)
CODE_US, RERANKED_US = 0.02, 2.0
"""Modelled cost of a code scanned and of a vector re-ranked, measured for RaBitQ of 512 bits and rows in the page cache
(64-byte PQ: twice as much for each code). Only their ratio decides anything, and no clock does."""


@dataclass(frozen=True)
class Queries:
    """Held-out rows of one direction (their images, or their captions) and what exact search says of them."""

    direction: Direction
    vectors: Scores  # (Q, D), stored float16 widened
    excluded: Sequence[Ids]
    neighbors: Ids  # (Q, K) exact; −1 where there are no more
    similarity: Floats  # (Q, K) of these; −inf where there are no more


@dataclass(frozen=True)
class Point:
    """A row of the report. depth None: by the codes alone, not re-ranked."""

    direction: Direction
    k: int
    nprobe: int
    depth: int | None
    recall: float
    low: float  # 95 % interval
    high: float
    coverage: float
    codes_scanned: float  # a query, on average
    cost_us: float  # a query, modelled


def prepare(
    asked: Mapping[Direction, Half],
    vectors: Vectors,
    same: Sequence[Ids],
    alive: npt.NDArray[np.bool_] | None,
) -> list[Queries]:
    """asked: by direction, the images or the captions (Q, D) of the held-out rows. All are compared with every vector
    in one pass over them.

    Raises InputError where no query has anything to find.
    """
    everything = np.concatenate([half.astype(np.float32) for half in asked.values()])
    neighbors, similarity = exact_search(vectors, everything, KNOWN, [*same] * len(asked), alive)
    found = []
    for number, direction in enumerate(asked):
        here = np.arange(number * len(same), (number + 1) * len(same))
        here = here[similarity[here, 0] > -np.inf]
        if not here.size:
            raise InputError(
                f"index: recall cannot be measured: no other image is left for any of {len(same):,} queries to find. "
                "Add sources, or delete less"
            )
        excluded = [same[query % len(same)] for query in here]
        found.append(Queries(direction, everything[here], excluded, neighbors[here], similarity[here]))
    return found


def measure(queries: Queries, lists: Lists, vectors: Vectors, nprobe: int) -> list[Point]:
    """Recall at every k and depth, from one search as deep as the deepest."""
    blocks = [slice(first, first + BLOCK) for first in range(0, len(queries.vectors), BLOCK)]
    found = [
        candidates(lists.serving, queries.vectors[some], max(DEPTHS), nprobe, queries.excluded[some])[0]
        for some in blocks
    ]
    similarity = remembered(queries, vectors, np.concatenate(found))
    inside, scanned = lists.covered(queries.vectors, queries.neighbors, nprobe)
    there = queries.similarity > -np.inf
    points = []
    for k in KS:
        coverage = float(inside[:, :k][there[:, :k]].mean())
        for depth in (None, *DEPTHS):
            recall = float(recall_of_each(similarity[:, : depth or k], queries.similarity, k).mean())
            bounds, cost = interval(recall, len(similarity)), cost_us(scanned, depth or 0)
            points.append(Point(queries.direction, k, nprobe, depth, recall, *bounds, coverage, scanned, cost))
    return points


def remembered(queries: Queries, vectors: Vectors, ids: Ids) -> Floats:
    """ids (Q, R) → their exact similarities (Q, R); −inf where a row is too far away to be a hit at any k.

    Looked up among the exact neighbours: gathering every candidate at every number of probes took 1,000 times as many
    reads as a search, and most of the report's time. Where more rows tie with the last k-th than are remembered, they
    are gathered.
    """
    similarity = np.full(ids.shape, -np.inf)
    query = np.arange(len(ids))[:, None]
    size = int(max(queries.neighbors.max(), ids.max())) + 1
    there = queries.neighbors >= 0
    known = (query * size + queries.neighbors)[there]
    order = np.argsort(known)
    wanted = np.where(ids < 0, -1, query * size + ids)
    place = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    hit = known[place] == wanted
    similarity[hit] = queries.similarity[there][place[hit]]
    last = queries.similarity[:, -1]
    tied = np.flatnonzero((last >= queries.similarity[:, max(KS) - 1]) & (last > -np.inf))
    similarity[tied] = exact_similarity(vectors, queries.vectors[tied], ids[tied])
    return similarity


def recall_of_each(similarity: Floats, exact: Floats, k: int) -> Floats:
    """similarity (Q, R) of what was found, in any order; exact (Q, K) best first → recall@k of each query (Q,).

    Re-ranking puts all hits first, so what it finds is the number of hits, up to k."""
    there = np.minimum((exact > -np.inf).sum(axis=1), k)
    kth = np.take_along_axis(exact, there[:, None] - 1, axis=1)
    recall: Floats = np.minimum((similarity >= kth).sum(axis=1), there) / there
    return recall


def cost_us(codes_scanned: float, depth: int) -> float:
    return CODE_US * codes_scanned + RERANKED_US * depth
