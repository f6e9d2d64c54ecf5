"""The neighbours of a sample's pairs: of those stored for a pair, the ones that are clear of all pairs of the sample,
because each of them is a target (Re-ViLM §3.3, §4.2).

Reads   of the root that interleave.neighbors names: neighbors, neighbor_keys, and the corpora of its databases
Writes  places · similarities: of the neighbours of every pair, (rows, k) arrays aligned with the corpus. The pairs of a
        shard of samples lie anywhere in the corpus, and a memory-mapped row costs one read where a table costs a file
Shapes: S samples, P pairs of the longest, k neighbours stored for a pair.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.recipe import Json
from pipeline.schemas import NEIGHBOR_LIST, SAMPLES
from pipeline.stage import Counts, Input, Plan, Shard, Stage, shard_id
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.filter import CorpusReader
from stages.index import Vectors, by_shard
from stages.interleave.corpora import Corpora, InterleaveKeys
from stages.interleave.supports import Half, Ids
from stages.neighbors import KEPT, NOTHING, RULES, Keys, NeighborReader, consecutive, first_broken

ROWS = 1_000_000  # of a shard: 120 MB of 10 neighbours each
JUDGED = 4096  # samples at once: 200,000 neighbours of five pairs with 10 each
STORED = "neighbors"  # the stage that found them

Marks = npt.NDArray[np.int8]
Singles = npt.NDArray[np.float32]


def stored_neighbors(root: str, corpora: Corpora) -> tuple[Input, ...]:
    """What has to be read of the root, and of the runs that its neighbours lie in.

    Raises RecipeError where there are several corpora; InputError where the neighbours are not finished, are those of
    another corpus, or lie in corpora that were made anew since.
    """
    if len(corpora.roots) > 1:
        raise RecipeError(
            f"interleave.neighbors holds the neighbours of one corpus, and corpora names {len(corpora.roots)}: make "
            "one corpus of them (filter.inputs) and find its neighbours, or set interleave.neighbors to null"
        )
    reader, corpus = NeighborReader(absolute_root(root)), CorpusReader(corpora.roots[0])
    if reader.corpus_identity != corpus.identity:
        raise InputError(
            f"interleave.neighbors: {root} holds neighbours of the corpus {reader.corpus_identity[:12]}, and that of "
            f"{corpora.roots[0]} is {corpus.identity[:12]}: find its neighbours (jobs/precompute_neighbors.py), or "
            "name the root that holds them"
        )
    reader.refuse_remade()
    return reader.inputs


@dataclass(frozen=True)
class InterleaveNeighbors(Stage[None]):
    """The neighbours of every pair, where they can be looked up by row."""

    stored: tuple[Input, ...]
    name, version = "interleave_neighbors", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return self.stored

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        parts = enumerate(consecutive(whole[STORED], ROWS))
        return Plan([Shard(shard_id(number), {"shards": names}) for number, names in parts])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        reader = NeighborReader(task.whole(STORED).folder.root)
        names = [name for name, shard in reader.shards.items() if shard in task.params["shards"]]
        places, similarities = zip(*map(reader.places, names), strict=True)
        out.array("places", "places_{stem}.npy", np.concatenate(places))
        out.array("similarities", "similarities_{stem}.npy", np.concatenate(similarities))
        rows = sum(map(len, places))
        return Counts(rows, rows)


@dataclass(frozen=True)
class Listed:
    """The arrays of the stage, memory-mapped, one of each a shard."""

    starts: Ids  # (shards + 1,) the first row of each
    places: Sequence[Ids]  # (rows, k) through the databases; −1 behind the last
    similarities: Sequence[Singles]  # (rows, k)

    @classmethod
    def open(cls, whole: Whole) -> "Listed":
        shards = [whole.read(shard) for shard in whole.shards]
        places, similarities = ([shard.array(name) for shard in shards] for name in ("places", "similarities"))
        return cls(np.cumsum([0, *map(len, places)]), places, similarities)

    def of(self, rows: Ids) -> tuple[Ids, Singles]:
        """(n,) → (n, k) each."""
        shape = len(rows), self.places[0].shape[1]
        places, similarities = np.empty(shape, np.int64), np.empty(shape, np.float32)
        for number, wanted, here in by_shard(self.starts, rows):
            places[wanted], similarities[wanted] = self.places[number][here], self.similarities[number][here]
        return places, similarities


@dataclass(frozen=True)
class Picked:
    """Vectors of some rows, read when they are asked for: few pictures share a perceptual hash."""

    vectors: Vectors
    ids: Ids

    def __getitem__(self, numbers: Ids) -> Half:
        return self.vectors.gather(self.ids[numbers])


@dataclass(frozen=True)
class SampleNeighbors:
    """Everything that a process keeps open."""

    listed: Listed
    bases: Ids  # (databases + 1,) the place of each one's first row
    found_keys: Keys  # of the neighbours, by place
    found_images: Vectors
    keys: Keys  # of the pairs, by row
    images: Vectors

    @classmethod
    def open(cls, whole: Mapping[str, Whole], stored: Sequence[Input], corpus: Input) -> "SampleNeighbors":
        """whole: every input of the samples, by key."""
        neighbors, keys, *corpora = (whole[source.key] for source in stored)
        return cls(
            Listed.open(whole[InterleaveNeighbors.name]),
            NeighborReader(neighbors.folder.root).bases,
            Keys.open(keys),
            Vectors(corpora, "image"),
            Keys.open(whole[InterleaveKeys.name]),
            Vectors([whole[corpus.key]], "image"),
        )

    def of(self, samples: pa.Table) -> tuple[pa.ChunkedArray, Counter[str]]:
        """SAMPLES (S,) → their `neighbors`, and how many stay, how many each rule removed, and how many pairs are left
        with none."""
        field, totals = SAMPLES.field("neighbors"), Counter[str]()
        lists = []
        for first in range(0, samples.num_rows, JUDGED):
            pairs = _rows_of(samples["pairs"].slice(first, JUDGED).combine_chunks())
            places, similarities = self._stored(pairs)
            marks = self._judge(pairs, places)
            lists.append(self._lists(pairs >= 0, marks == KEPT, places, similarities))
            totals.update(_totals(pairs >= 0, marks))
        return pa.chunked_array(lists, field.type), totals

    def _stored(self, pairs: Ids) -> tuple[Ids, Singles]:
        """pairs (S, P), −1: none → (S, P, k) each."""
        places, similarities = self.listed.of(np.maximum(pairs, 0).ravel())
        shape = (*pairs.shape, places.shape[1])
        return np.where(pairs[:, :, None] >= 0, places.reshape(shape), -1), similarities.reshape(shape)

    def _judge(self, pairs: Ids, places: Ids) -> Marks:
        """(S, P), (S, P, k) → (S, P, k): of every neighbour the first rule that it breaks against any of the pairs."""
        marks = np.full((len(pairs), places[0].size), NOTHING, np.int8)
        for members in pairs.T:
            there = np.flatnonzero(members >= 0)
            ids, found = members[there], places[there].reshape(len(there), -1)
            asked = self.keys.hashes(ids), Picked(self.images, ids)
            broken = first_broken(found, *asked, self.found_keys, self.found_images)
            marks[there] = np.minimum(marks[there], broken)
        return marks.reshape(places.shape)

    def _lists(
        self, there: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_], places: Ids, similarities: Singles
    ) -> pa.ListArray:
        """there (S, P), kept (S, P, k): what stays of the places and similarities (S, P, k)."""
        items = self.found_keys.told(places[kept], similarities[kept], self.bases)
        ends = _ends(kept.sum(axis=2)[there])
        neighbors = pa.ListArray.from_arrays(ends, items, type=NEIGHBOR_LIST)
        return pa.ListArray.from_arrays(_ends(there.sum(axis=1)), neighbors, type=SAMPLES.field("neighbors").type)


def _rows_of(pairs: pa.ListArray) -> Ids:
    """`pairs` of SAMPLES (S,) → (S, P), −1 behind the last. There is one corpus."""
    sizes = pc.list_value_length(pairs).to_numpy()
    rows = np.full((len(pairs), sizes.max()), -1, np.int64)
    rows[np.arange(sizes.max()) < sizes[:, None]] = pc.list_flatten(pairs).field("row_id")
    return rows


def _totals(there: npt.NDArray[np.bool_], marks: Marks) -> dict[str, int]:
    """there (S, P), marks (S, P, k)."""
    counts = np.bincount(marks.ravel(), minlength=NOTHING + 1)
    removed = {f"removed_{rule}": int(counts[number]) for number, rule in enumerate(RULES)}
    without = int((there & ~(marks == KEPT).any(axis=2)).sum())
    return {"neighbors": int(counts[KEPT]), **removed, "pairs_without_neighbors": without}


def _ends(sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """(n,) → (n + 1,) offsets."""
    ends: npt.NDArray[np.int32] = np.cumsum([0, *sizes], dtype=np.int32)
    return ends
