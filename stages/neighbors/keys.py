"""What the leakage rules compare, and what is told of a neighbour, of every row of the databases by its place.

Reads   the metadata of the databases' corpora
Writes  keys (NEIGHBOR_KEYS): an uncompressed Arrow file that is memory-mapped, so that all processes of a node share
        its pages and a row costs one read

Values are compared by 64-bit hashes, BLAKE2b (RFC 7693) of their UTF-8: equal values have equal hashes, so nothing that
a rule forbids gets by. That a neighbour is lost to two different values of one hash has odds of 2^-64 a comparison:
15 million queries with 30 candidates and four hashes each lose one with odds of 1 in 10 billion.
Shapes: n rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.commits import Committed, Whole
from pipeline.recipe import Json
from pipeline.schemas import NEIGHBOR_KEYS, NEIGHBOR_LIST
from pipeline.stage import Counts, Input, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter import normalised
from stages.index import by_shard

RULES = ("pair", "image_id", "sha256", "phash", "caption")  # in the order in which they are asked
COLUMNS = ("pair_id", "source", "image_id", "stored_sha256", "phash", "caption")  # of the metadata
NONE = 0  # the hash of no image_id
ROWS = 1_000_000  # of a shard: some 200 MB

Hashes = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairKeys(Stage[None]):
    """Of some corpora, in their order. A stage that wants other columns told names itself and its schema."""

    corpora: tuple[Input, ...]
    schema: ClassVar[pa.Schema]

    @property
    def inputs(self) -> Sequence[Input]:
        return self.corpora

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=1)

    def settings(self) -> Mapping[str, Json]:
        return {}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        tasks = [
            {"corpus": source.key, "corpus_shards": names}
            for source in self.inputs
            for names in consecutive(whole[source.key], ROWS)
        ]
        return Plan([Shard(shard_id(number), params) for number, params in enumerate(tasks)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        corpus = task.whole(task.params["corpus"])
        parts = [_told(corpus.read(name), self.schema) for name in task.params["corpus_shards"]]
        table = pa.concat_tables(parts).combine_chunks()
        with pa.ipc.new_file(out.file("keys", "keys_{stem}.arrow"), self.schema) as file:
            file.write_table(table)
        return Counts(table.num_rows, table.num_rows)


class NeighborKeys(PairKeys):
    name, version, schema = "neighbor_keys", 1, NEIGHBOR_KEYS


@dataclass(frozen=True)
class Keys:
    """All shards of the stage, memory-mapped. A row's place counts through the databases and their corpora."""

    batches: Sequence[pa.RecordBatch]
    hashed: Sequence[Sequence[Hashes]]  # of each batch, by rule
    starts: Ids  # (batches + 1,)

    @classmethod
    def open(cls, whole: Whole) -> "Keys":
        batches = [_mapped(whole.read(shard)) for shard in whole.shards]
        hashed = [[batch[f"same_{rule}"].to_numpy() for rule in RULES] for batch in batches]
        return cls(batches, hashed, np.cumsum([0, *(batch.num_rows for batch in batches)]))

    def hashes(self, places: Ids) -> Hashes:
        """(n,) → (rules, n)."""
        found = np.empty((len(RULES), len(places)), np.uint64)
        for number, wanted, rows in by_shard(self.starts, places):
            for rule, values in enumerate(self.hashed[number]):
                found[rule, wanted] = values[rows]
        return found

    def rows(self, places: Ids, columns: Sequence[str]) -> pa.Table:
        """(n,) → n rows."""
        order, parts = [np.empty(0, np.int64)], [pa.table(self.batches[0].select(columns).slice(0, 0))]
        for number, wanted, rows in by_shard(self.starts, places):
            order.append(wanted)
            parts.append(pa.table(self.batches[number].select(columns).take(pa.array(rows))))
        return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(order))))

    def told(self, places: Ids, similarities: npt.NDArray[np.floating], bases: Ids) -> pa.StructArray:
        """(n,) each → n items of NEIGHBOR_LIST. bases: (databases + 1,) the place of each one's first row."""
        database = np.searchsorted(bases, places, side="right") - 1
        texts = self.rows(places, ["pair_id", "caption"])
        columns = {
            "database": database.astype(np.int32),
            "row_id": places - bases[database],
            "pair_id": texts["pair_id"],
            "similarity": similarities.astype(np.float32),
            "caption": texts["caption"],
        }
        items: pa.StructArray = pa.table(columns, pa.schema(list(NEIGHBOR_LIST.value_type))).to_struct_array()
        return items.combine_chunks()


def rule_hashes(metadata: pa.Table) -> Hashes:
    """(rules, n) of rows of a corpus' metadata."""
    told = {name: metadata[name].to_pylist() for name in COLUMNS if name != "phash"}
    images = zip(told["source"], told["image_id"], strict=True)
    image_ids = _hashed(f"{source}/{image_id}".encode() for source, image_id in images)  # no source holds a slash
    pairs, pictures = (_hashed(map(str.encode, told[name])) for name in ("pair_id", "stored_sha256"))
    captions = _hashed(map(comparable, told["caption"]))
    there = np.array([image_id is not None for image_id in told["image_id"]])
    named = np.where(there, np.maximum(image_ids, 1), NONE)
    return np.stack([pairs, named, pictures, metadata["phash"].to_numpy(), captions])


def comparable(caption: str) -> bytes:
    """Equal exactly where captions are the same: their words; where there are none (emoji), as they stand."""
    return (normalised(caption) or caption).encode()


def consecutive(corpus: Whole, rows: int) -> Iterator[list[str]]:
    """Shards that follow each other, until they have as many rows."""
    names: list[str] = []
    taken = 0
    for name, summary in corpus.shards.items():
        names.append(name)
        taken += summary.rows_out
        if taken >= rows:
            yield names
            names, taken = [], 0
    if names:
        yield names


def _told(shard: Committed, schema: pa.Schema) -> pa.Table:
    compared = [f"same_{rule}" for rule in RULES]
    copied = [field for field in schema if field.name not in compared]
    metadata = shard.table("metadata", sorted({*COLUMNS, *(field.name for field in copied)}))
    hashes = dict(zip(compared, rule_hashes(metadata), strict=True))
    return pa.table(hashes | {field.name: metadata[field.name].cast(field.type) for field in copied}, schema=schema)


def _hashed(values: Iterable[bytes]) -> Hashes:
    return np.frombuffer(b"".join(blake2b(value, digest_size=8).digest() for value in values), "<u8")


def _mapped(shard: Committed) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(shard.path("keys")))).get_batch(0)
