"""Which pictures of an evaluation set stand in the corpora that a model was trained on, or of which it is shown pairs.

Reads   corpus: of the set, and of every run that is looked through, shard by shard
Writes  matches (MATCHES), a shard a corpus
Rule    the same image: equal image_id of one source, equal bytes as fetched or as stored, or one perceptual hash and a
        cosine of at least 0.98. Where the two embeddings do not compare the hash alone decides: flat pictures are then
        told too often.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.evaluation.evaluation_set import caption_questions
from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.schemas import MATCHES
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.filter import SAME_IMAGE_COSINE, Corpus, CorpusReader, CorpusShard
from stages.index import model_conflicts

COLUMNS = ("pair_id", "source", "image_id", "sha256", "stored_sha256", "phash")


@dataclass(frozen=True)
class EvaluationMatches(Stage[None]):
    """pictures: the set's root; corpora: those that are looked through."""

    pictures: str
    corpora: tuple[str, ...]
    name, version = "evaluation_matches", 1

    @property
    def inputs(self) -> Sequence[Input]:
        others = [Input(Corpus.name, Need.WHOLE, absolute_root(root), root) for root in self.corpora]
        return [Input(Corpus.name, Need.WHOLE, absolute_root(self.pictures), "pictures"), *others]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return {"corpora": list(self.corpora)}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(number), {"corpus": root}) for number, root in enumerate(self.corpora)])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        root = task.params["corpus"]
        shown = Shown.of(CorpusReader(self.pictures))
        comparable = not list(model_conflicts([self.pictures, root]))
        corpus = CorpusReader(root)
        found = {
            (match["pair_id"], match["matched"]): match | {"corpus": root}
            for shard in corpus.shards()
            for match in shown.matches(shard, comparable=comparable)
        }
        out.table("matches", "matches_{stem}.parquet", pa.Table.from_pylist(list(found.values()), schema=MATCHES))
        return Counts(corpus.rows, corpus.rows, {"pictures": len({picture for picture, _ in found})})


@dataclass(frozen=True)
class Shown:
    """Pictures of a set, each told by the pair_id of its first row, by what tells them apart."""

    image_id: dict[Any, list[str]] = field(default_factory=lambda: defaultdict(list))  # in order: so are the matches
    sha256: dict[Any, list[str]] = field(default_factory=lambda: defaultdict(list))
    phash: dict[Any, dict[str, npt.NDArray[np.float16]]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def of(cls, corpus: CorpusReader) -> "Shown":
        shown = cls()
        asked = iter(sorted(caption_questions(corpus), key=lambda question: question.row_id))
        wanted = next(asked, None)
        for shard in corpus.shards():
            rows = shard.committed.table("metadata", COLUMNS).to_pylist()
            while wanted and wanted.row_id < shard.first_row_id + len(rows):
                place = wanted.row_id - shard.first_row_id
                shown._add(wanted.id, rows[place], shard.img_emb[place])
                wanted = next(asked, None)
        return shown

    def _add(self, question: str, row: Mapping[str, Any], vector: npt.NDArray[np.float16]) -> None:
        if row["image_id"] is not None:
            self.image_id[row["source"], row["image_id"]].append(question)
        for name in ("sha256", "stored_sha256"):
            self.sha256[row[name]].append(question)
        self.phash[row["phash"]][question] = vector

    def matches(self, shard: CorpusShard, *, comparable: bool) -> Iterator[dict[str, Any]]:
        """Without `corpus`. comparable: the embeddings are of one model."""
        rows = shard.committed.table("metadata", COLUMNS)
        hashed = np.isin(rows["phash"].to_numpy(), np.array([*self.phash], np.uint64))
        for place, row in enumerate(rows.to_pylist()):
            surely = self._rules(row)
            for question, rule in surely.items():
                yield {"pair_id": question, "matched": row["pair_id"], "rule": rule, "cosine": None}
            for question, vector in self.phash[row["phash"]].items() if hashed[place] else ():
                cosine = _cosine(vector, shard.img_emb[place]) if comparable else None
                if question not in surely and (cosine is None or cosine >= SAME_IMAGE_COSINE):
                    yield {"pair_id": question, "matched": row["pair_id"], "rule": "phash", "cosine": cosine}

    def _rules(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Question → rule."""
        found = dict.fromkeys(self.image_id.get((row["source"], row["image_id"]), ()), "image_id")
        for name in ("sha256", "stored_sha256"):
            found |= {question: "sha256" for question in self.sha256.get(row[name], ()) if question not in found}
        return found


def _cosine(one: npt.NDArray[np.float16], other: npt.NDArray[np.float16]) -> float:
    return float(one.astype(np.float64) @ other.astype(np.float64))


@dataclass(frozen=True)
class Match:
    picture: str  # the pair_id of its first row
    corpus: str
    pair_id: str


def read_matches(whole: Whole) -> list[Match]:
    names = ["pair_id", "corpus", "matched"]
    tables = [whole.read(shard).table("matches", names).select(names) for shard in whole.shards]
    return [Match(*row.values()) for table in tables for row in table.to_pylist()]
