"""Five-pair samples: the supports in a seeded order, the query last (Re-ViLM §4.2).

Reads   interleave_mine shard by shard; interleave_keys, for captions and places; the corpora, for pictures;
        interleave_neighbors and what it was made of, where interleave.neighbors says so
Writes  samples (SAMPLES): a row a sample · tar, where interleave.materialize says so, in webdataset's layout: of each
        sample the members KEY.0.jpg, KEY.0.txt … KEY.4.txt and KEY.json, where KEY is the query's pair_id
Rejects starved: a query with fewer supports than asked for, where interleave.on_starved says skip
Memory  the samples of a shard, and the pictures of BATCH of them
"""

import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import SAMPLES
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.tars import add_member
from pipeline.writer import ShardWriter, Task
from stages.filter import CorpusReader
from stages.interleave.corpora import Corpora, InterleaveKeys
from stages.interleave.mine import InterleaveMine
from stages.interleave.neighbors import InterleaveNeighbors, SampleNeighbors
from stages.interleave.recipe import InterleaveRecipe
from stages.neighbors import Keys

BATCH = 2000  # samples whose pictures are in memory at once: 400 MB
TOLD = ["pair_id", "caption", "input", "shard", "offset", "bytes"]

Row = dict[str, Any]
Place = tuple[int, int, str, int]
place_of = itemgetter("corpus", "input", "shard", "offset")  # of a picture


@dataclass(frozen=True)
class Opened:
    keys: Keys
    corpora: Sequence[CorpusReader]
    neighbors: SampleNeighbors | None


@dataclass(frozen=True)
class Interleaved(Stage[Opened]):
    corpora: Corpora
    recipe: InterleaveRecipe
    stored: tuple[Input, ...] = ()  # of the neighbours; none: they are not asked for
    name, version, stateful = "interleaved", 1, True

    @property
    def inputs(self) -> Sequence[Input]:
        by_row = [Input(InterleaveNeighbors.name, Need.WHOLE)] if self.stored else []
        keys = Input(InterleaveKeys.name, Need.WHOLE)
        return [Input(InterleaveMine.name), *self.corpora.inputs, keys, *by_row, *self.stored]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"on_starved", "seed", "materialize"})

    def open(self, task: Task) -> Opened:
        whole = {source.key: task.whole(source.key) for source in self.inputs if source.need is Need.WHOLE}
        neighbors = SampleNeighbors.open(whole, self.stored, self.corpora.inputs[0]) if self.stored else None
        readers = [CorpusReader(root) for root in self.corpora.roots]
        return Opened(Keys.open(whole[InterleaveKeys.name]), readers, neighbors)

    def process(self, task: Task, out: ShardWriter, state: Opened) -> Counts:
        mined = self._told(task.read(InterleaveMine.name).table("supports"), state)
        samples = pa.Table.from_pylist([row for row in mined if not self._rejected(row, out)], schema=SAMPLES)
        counted: Mapping[str, int] = {}
        if state.neighbors:
            neighbors, counted = state.neighbors.of(samples)
            samples = samples.drop(["neighbors"]).append_column(SAMPLES.field("neighbors"), neighbors)
        out.table("samples", "samples_{stem}.parquet", samples)
        if self.recipe.materialize:
            with tarfile.open(out.file("tar", "{stem}.tar"), "w") as tar:
                for first in range(0, samples.num_rows, BATCH):
                    add_samples(tar, samples.slice(first, BATCH).to_pylist(), state.corpora)
        return Counts(len(mined), samples.num_rows, counted)

    def _rejected(self, row: Row, out: ShardWriter) -> bool:
        found, wanted = len(row["supports"]), self.recipe.supports
        starved = found < wanted and self.recipe.on_starved == "skip"
        if starved:
            out.reject(row["pair_id"], Reason.STARVED, f"{found} of {wanted} supports")
        return starved

    def _told(self, mined: pa.Table, state: Opened) -> list[Row]:
        """Rows of SAMPLES, starved ones too."""
        rows = mined.to_pylist()
        ids = np.array([pair for row in rows for pair in (*row["supports"], row["row_id"])], np.int64)
        pairs = iter(self._pairs(ids, state))
        return [self._sample(row, list(islice(pairs, len(row["supports"]) + 1))) for row in rows]

    def _pairs(self, ids: np.ndarray[Any, Any], state: Opened) -> list[Row]:
        starts = np.cumsum([0, *(corpus.rows for corpus in state.corpora)])
        corpus = np.searchsorted(starts, ids, side="right") - 1
        told = state.keys.rows(ids, TOLD).to_pylist()
        places = zip(corpus.tolist(), (ids - starts[corpus]).tolist(), strict=True)
        return [{"corpus": n, "row_id": row, **pair} for (n, row), pair in zip(places, told, strict=True)]

    def _sample(self, mined: Row, pairs: list[Row]) -> Row:
        """pairs: the supports by caption similarity, the query last."""
        *supports, query = pairs
        order = shuffled(query["pair_id"], [pair["pair_id"] for pair in supports], self.recipe.seed)
        return {
            "pair_id": query["pair_id"],
            "supports": [pair["pair_id"] for pair in supports],
            "distances": self.recipe.band.distances(np.array(mined["image_cosines"])).tolist(),
            "caption_similarities": mined["caption_cosines"],
            "order": order,
            "pairs": [*(supports[place] for place in order), query],
            "neighbors": None,
        }


def shuffled(query: str, supports: Sequence[str], seed: int) -> list[int]:
    """The supports' places in a seeded order of their own, which depends on nothing but these pair ids."""
    drawn = [blake2b(f"{seed}/{query}/{support}".encode(), digest_size=8).digest() for support in supports]
    return sorted(range(len(supports)), key=drawn.__getitem__)


def add_samples(tar: tarfile.TarFile, samples: Sequence[Row], corpora: Sequence[CorpusReader]) -> None:
    pictures = read_pictures([pair for sample in samples for pair in sample["pairs"]], corpora)
    for sample in samples:
        for number, pair in enumerate(sample["pairs"]):
            add_member(tar, f"{sample['pair_id']}.{number}.jpg", pictures[place_of(pair)])
            add_member(tar, f"{sample['pair_id']}.{number}.txt", pair["caption"].encode())
        told = {"pair_ids": [pair["pair_id"] for pair in sample["pairs"]]}
        told |= {name: sample[name] for name in ("distances", "caption_similarities", "order", "neighbors")}
        add_member(tar, f"{sample['pair_id']}.json", json.dumps(told, ensure_ascii=False).encode())


def read_pictures(pairs: Iterable[Row], corpora: Sequence[CorpusReader]) -> dict[Place, bytes]:
    """Stored JPEGs by place, each read once, tar by tar and front to back."""
    distinct = {place_of(pair): pair for pair in pairs}
    return {place: corpora[place[0]].picture(distinct[place]) for place in sorted(distinct)}
