"""Say of every row of an index whether it may be found. What is deleted keeps its id, so that no other row moves.

Reads   the corpora, which tell the pair ids; alive of the index that is updated, where it has one
Writes  alive: bit id % 8 of byte id // 8 is set where the row may be found
Rejects removed_on_request
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.checksums import sha256_of_json
from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Plan, Shard, Stage
from pipeline.writer import ShardWriter, Task
from stages.index.database import ALIVE, ONLY, read_alive

_PAIR_ID = re.compile(r"[a-z0-9_-]+-[0-9]{10}")


@dataclass(frozen=True)
class IndexAlive(Stage[None]):
    """delete: pair ids. before: index_alive of the index that is updated; None: nothing was deleted from it."""

    delete: frozenset[str]
    corpora: Sequence[Input]
    before: Input | None = None
    name, version = ALIVE, 1

    @property
    def inputs(self) -> Sequence[Input]:
        return [*self.corpora, *([self.before] if self.before else [])]

    def settings(self) -> Mapping[str, Json]:
        return {"delete": sha256_of_json(sorted(self.delete))}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        """Raises InputError where nothing would be left, for then no recall can be measured."""
        alive = self._alive_before(whole)
        if len(self.delete) >= alive.sum():
            alive[[number for number, _ in self._to_delete(whole)]] = False
            if not alive.any():
                raise InputError("update.delete leaves no pair in the index; keep some. Nothing was written.")
        return Plan([Shard(ONLY)], {"size": len(alive)})

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        whole = {source.key: task.whole(source.key) for source in self.inputs}
        alive, asked = self._alive_before(whole), dict(self._to_delete(whole))
        rows, deleted = int(alive.sum()), [number for number in asked if alive[number]]
        for number in deleted:
            out.reject(asked[number], Reason.REMOVED_ON_REQUEST)
        alive[deleted] = False
        out.array("alive", "alive_{stem}.npy", np.packbits(alive, bitorder="little"))
        others = {"deleted_before": len(asked) - len(deleted), "unknown": len(self.delete) - len(asked)}
        return Counts(rows, rows - len(deleted), others)

    def _alive_before(self, whole: Mapping[str, Whole]) -> npt.NDArray[np.bool_]:
        """(N,) by id."""
        alive = np.ones(sum(whole[source.key].rows for source in self.corpora), np.bool_)
        if self.before:
            before = read_alive(whole[self.before.key])
            alive[: len(before)] = before
        return alive

    def _to_delete(self, whole: Mapping[str, Whole]) -> Iterator[tuple[int, str]]:
        """Ids and pair ids of the rows that the recipe names, in order; also of those deleted before."""
        first = 0
        for _, pair_ids in pair_ids_of(whole[source.key] for source in self.corpora):
            yield from ((first + row, pair_id) for row, pair_id in enumerate(pair_ids) if pair_id in self.delete)
            first += len(pair_ids)


def pair_ids_of(corpora: Iterable[Whole]) -> Iterator[tuple[Whole, list[str]]]:
    """Shard by shard, in order of id, and the corpus that each belongs to."""
    for corpus in corpora:
        for shard in corpus.shards:
            yield corpus, corpus.read(shard).table("metadata", ["pair_id"])["pair_id"].to_pylist()


def read_pair_ids(delete: Iterable[str] | str) -> frozenset[str]:
    """delete: pair ids, or the path of a text file with one a line (blank lines and # comments are skipped).

    Raises RecipeError where the file cannot be read, or names the first line that is no pair id.
    """
    pair_ids = frozenset(_lines(delete) if isinstance(delete, str) else delete)
    wrong = min((line for line in pair_ids if not _PAIR_ID.fullmatch(line)), default=None)
    if wrong is not None:
        raise RecipeError(f"update.delete: {wrong!r} is no pair id such as cc3m-0000000042")
    return pair_ids


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"update.delete: {path} is no text file that can be read: {error}. Pair ids themselves stand in brackets: "
            "update.delete='[cc3m-0000000042]'"
        ) from None
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]
