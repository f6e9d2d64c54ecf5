"""Which pictures of a train split accompany one of a test split: which rows show one picture, and three selections.

Rows count through the train corpora and, behind them, the test corpus. A picture has several rows, one a caption: rows
of equal stored bytes or of one image_id of one source show the same, and so do rows of equal pair id and caption
(splits of one list each number their pairs from 0, so the id alone may name two pairs). A row stands for its picture if
it is the smallest that shows it.
Shapes: N rows, Q queries, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count as numbers
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stages.filter import SAME_IMAGE_COSINE
from stages.index import Vectors, exact_search, exact_similarity
from stages.interleave.pairs import Pairs
from stages.interleave.samples import shuffled
from stages.interleave.supports import Engine, Hashes, Ids
from stages.neighbors import NONE, RULES, Keys


@dataclass(frozen=True)
class Pictures:
    shown: Ids  # (N,) the row that stands for the row's picture; a train row where the picture is in both splits
    phash: npt.NDArray[np.uint64]  # (N,)
    train_rows: int

    @classmethod
    def of(cls, keys: Keys, train_rows: int) -> "Pictures":
        told = dict(zip(RULES, keys.hashes(np.arange(keys.starts[-1])), strict=True))
        every = np.ones(len(told["pair"]), np.bool_)
        same = [(told["sha256"], every), (told["image_id"], told["image_id"] != NONE)]
        same.append((told["pair"] ^ told["caption"], every))
        shown = np.arange(len(every))
        before = np.empty(0, np.int64)
        while not np.array_equal(shown, before):  # what two rows share may lead on to a third
            before = shown.copy()
            for values, there in same:
                shown[there] = _smallest(shown[there], values[there])
        return cls(shown, told["phash"], train_rows)

    @property
    def train(self) -> Ids:
        """The rows that stand for the train split's pictures, ascending."""
        return np.flatnonzero(self.shown[: self.train_rows] == np.arange(self.train_rows))

    @property
    def test(self) -> Ids:
        """The first test row of each of the test split's pictures, ascending."""
        _, first = np.unique(self.shown[self.train_rows :], return_index=True)
        return np.sort(first) + self.train_rows

    @property
    def most_captions(self) -> int:
        """Train rows of one picture."""
        return int(np.bincount(self.shown[: self.train_rows]).max())

    def references(self, ids: Ids) -> list[Ids]:
        """Of each query, the test rows that show its picture, ascending."""
        found = _places(self.shown[ids], self.shown[self.train_rows :])
        return [rows + self.train_rows for rows in found]

    def barred(self, ids: Ids, images: Vectors) -> list[Ids]:
        """Of each query, the train rows that show its picture, or one that may be it by the perceptual hash: two rows
        have the same one and a cosine of at least 0.98."""
        same = _places(self.shown[ids], self.shown[: self.train_rows])
        hashed = _places(self.phash[ids], self.phash[: self.train_rows])
        alike = [self._alike(*asked, images) for asked in zip(ids, hashed, strict=True)]
        return [np.union1d(*rows) for rows in zip(same, map(self._with_their_pictures, alike), strict=True)]

    def _with_their_pictures(self, rows: Ids) -> Ids:
        """Train rows → all that show the same: another one may stand for the picture."""
        return np.flatnonzero(np.isin(self.shown[: self.train_rows], self.shown[rows])) if len(rows) else rows

    def _alike(self, query: np.int64, rows: Ids, images: Vectors) -> Ids:
        similarity = exact_similarity(images, images.gather(np.array([query])), rows[None])[0]
        alike: Ids = rows[similarity >= SAME_IMAGE_COSINE]
        return alike

    def told_to(self, keys: Keys) -> Keys:
        """Keys by whose rules of pair and image_id a query is barred from its picture, and from nothing else."""
        parts = np.split((self.shown + 1).astype(np.uint64), keys.starts[1:-1])
        own = {RULES.index("pair"), RULES.index("image_id")}
        hashed = [
            [part if rule in own else values for rule, values in enumerate(batch)]
            for part, batch in zip(parts, keys.hashed, strict=True)
        ]
        return replace(keys, hashed=hashed)


@dataclass(frozen=True)
class Asked:
    """Queries: test pictures, as their first rows tell them."""

    ids: Ids  # (Q,)
    pair_ids: Sequence[str]
    barred: Sequence[Ids]  # of each, the train rows that show its picture


class Choice(Protocol):
    def best(self, asked: Asked) -> list[Ids]:
        """Of each query its supports, best first: `count` rows of as many pictures, or all there are. The first n are
        what n shots show."""

    def prompt(self, query: str, supports: Ids) -> Ids:
        """Supports of a query (by pair id), best first, in the order in which a prompt shows them."""


@dataclass(frozen=True)
class AtRandom:
    """Any pictures, in the order in which they are drawn: by the query's pair id, independent of all other queries."""

    pictures: Pictures
    count: int
    seed: int

    def best(self, asked: Asked) -> list[Ids]:
        rows = self.pictures.train
        return [self._drawn(*query, rows) for query in zip(asked.pair_ids, asked.barred, strict=True)]

    def _drawn(self, query: str, barred: Ids, rows: Ids) -> Ids:
        left = len(rows) - int(np.isin(rows, barred).sum())
        refused, chosen = set(barred.tolist()), dict[int, None]()
        for place in drawn_places(query, len(rows), self.seed):
            if len(chosen) == min(self.count, left):
                break
            if (row := int(rows[place])) not in refused:
                chosen[row] = None
        return np.array([*chosen], np.int64)

    def prompt(self, query: str, supports: Ids) -> Ids:
        return supports


def drawn_places(query: str, places: int, seed: int) -> Iterator[int]:
    """Without end, with repetition; the same on every machine and with every version of a library."""
    for number in numbers():
        drawn = blake2b(f"{seed}/{query}/{number}".encode(), digest_size=8).digest()
        yield int.from_bytes(drawn, "big") % places


@dataclass(frozen=True)
class Rices:
    """The nearest pictures, exactly, the most similar last: nearest to the query (RICES, as in Flamingo's and
    open_flamingo's evaluation). Of equally near ones the smaller row is the nearer."""

    images: Vectors
    pictures: Pictures
    count: int
    device: str

    def best(self, asked: Asked) -> list[Ids]:
        standing = np.zeros(self.images.rows, np.bool_)
        standing[self.pictures.train] = True
        queries = self.images.gather(asked.ids)
        found, _ = exact_search(self.images, queries, self.count, asked.barred, standing, device=self.device)
        return [rows[rows >= 0] for rows in found]

    def prompt(self, query: str, supports: Ids) -> Ids:
        return supports[::-1]


@dataclass(frozen=True)
class Mined:
    """As samples are mined (Re-ViLM §4.2), by image band and by similarity to the caption of the query's first row,
    except that a picture counts once, with its best caption; in a sample's order.

    Of (count − 1) · most_captions + 1 pairs, at least `count` show different pictures; as many more are mined as a
    query may lose, because the engine looks at the hashes of single rows and not of all that show a picture.
    """

    engine: Engine
    pairs: Pairs
    pictures: Pictures
    count: int
    seed: int

    def best(self, asked: Asked) -> list[Ids]:
        mined = self.engine.mine(self.pairs.queries(asked.ids)).rows
        free = [rows[(rows >= 0) & ~np.isin(rows, barred)] for rows, barred in zip(mined, asked.barred, strict=True)]
        return [self._of_different_pictures(rows)[: self.count] for rows in free]

    def _of_different_pictures(self, rows: Ids) -> Ids:
        _, first = np.unique(self.pictures.shown[rows], return_index=True)
        return rows[np.sort(first)]

    def prompt(self, query: str, supports: Ids) -> Ids:
        pair_ids = self.pairs.keys.rows(supports, ["pair_id"])["pair_id"].to_pylist()
        return supports[shuffled(query, pair_ids, self.seed)]


def _smallest(shown: Ids, values: Hashes) -> Ids:
    """(n,) → (n,) of each row, the smallest `shown` among the rows of its value."""
    known, group = np.unique(values, return_inverse=True)
    smallest = np.full(len(known), np.iinfo(np.int64).max)
    np.minimum.at(smallest, group, shown)
    return smallest[group]


def _places(asked: npt.NDArray[np.generic], there: npt.NDArray[np.generic]) -> list[Ids]:
    """Of each value asked, its places in `there`, ascending."""
    order = np.argsort(there, kind="stable")
    ordered = there[order]
    bounds = zip(np.searchsorted(ordered, asked), np.searchsorted(ordered, asked, side="right"), strict=True)
    return [order[first:end] for first, end in bounds]
