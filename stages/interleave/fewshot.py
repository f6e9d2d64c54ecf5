"""Few-shot evaluation sets of a captioning set: every picture of the test split with supports of the train split.

Reads   the train corpora and the test corpus, one pair a caption
Writes  fewshot_keys: what tells equal pictures and captions · shots_<n> (FEWSHOT), one a number of shots: a row a test
        picture, all tables in one order
Rules   the first row of a picture asks, and all its rows are its references; its supports show different pictures, none
        of them its own (fewshot_supports.py); the smaller sets are the beginnings of the largest, best first, each in
        the order in which a prompt shows it
Rejects starved: a picture with fewer supports than the largest number of shots, where fewshot.on_starved says skip: it
        leaves all sets, so that all ask about the same pictures
Memory  the candidates of a task's queries; 150 bytes a row while pictures are told apart; vectors are memory-mapped
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.commits import Whole
from pipeline.errors import InputError, RecipeError
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import FEWSHOT, FEWSHOT_KEYS
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task
from stages.filter import CorpusReader
from stages.index import Vectors
from stages.interleave.corpora import Corpora, check
from stages.interleave.fewshot_supports import Asked, AtRandom, Choice, Mined, Pictures, Rices
from stages.interleave.pairs import Pairs
from stages.interleave.recipe import FewshotRecipe, Selection
from stages.interleave.supports import Ids
from stages.neighbors import Keys, PairKeys

DECIDES: dict[Selection, set[str]] = {
    "random": {"seed"},
    "rices": set(),
    "paper": {"metric", "lo", "hi", "drop_same_caption", "seed"},
}
"""Settings on which the supports depend."""


class FewshotKeys(PairKeys):
    """What tells equal pictures and captions, and what is told of a pair."""

    name, version, schema = "fewshot_keys", 1, FEWSHOT_KEYS


@dataclass(frozen=True)
class Opened:
    pairs: Pairs  # of which those of the train split may be supports
    pictures: Pictures
    choice: Choice
    starts: Ids  # (corpora + 1,) the first row of each

    def told(self, rows: Ids, kind: pa.StructType) -> pa.StructArray:
        """Of each row what the struct's fields name: its place, and what the keys tell."""
        corpus = np.searchsorted(self.starts, rows, side="right") - 1
        columns = {"corpus": corpus.astype(np.int32), "row_id": rows - self.starts[corpus]}
        told = self.pairs.keys.rows(rows, [name for name in kind.names if name not in columns])
        columns |= {name: told[name] for name in told.column_names}
        schema = pa.schema(list(kind))
        return pa.table({name: columns[name] for name in kind.names}, schema=schema).to_struct_array().combine_chunks()

    def listed(self, rows: Sequence[Ids], kind: pa.ListType) -> pa.ListArray:
        """Such structs of each of several arrays of rows."""
        ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        told = self.told(np.concatenate([np.empty(0, np.int64), *rows]), kind.value_type)
        return pa.ListArray.from_arrays(ends, told, type=kind)


@dataclass(frozen=True)
class Fewshot(Stage[Opened]):
    """corpora: the train split's, then the test split's."""

    corpora: Corpora
    recipe: FewshotRecipe
    name, version, stateful = "fewshot", 1, True

    @property
    def inputs(self) -> Sequence[Input]:
        return [*self.corpora.inputs, Input(FewshotKeys.name, Need.WHOLE)]

    @property
    def resources(self) -> Resources:
        on_gpu = self.recipe.device == "cuda" and self.recipe.selection != "random"
        return Resources(gpus=1 if on_gpu else 0, memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(include={"selection", "shots", "on_starved", *DECIDES[self.recipe.selection]})

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        pictures, recipe = self._pictures(whole), self.recipe
        if len(pictures.train) < recipe.shots[-1]:
            raise RecipeError(
                f"fewshot.shots asks for {recipe.shots[-1]}, and the corpora of supports show {len(pictures.train):,} "
                "different pictures: set fewshot.shots to no more, or name more roots in supports"
            )
        asked, size = len(pictures.test), recipe.queries_per_task
        tasks = [{"first": first, "end": min(first + size, asked)} for first in range(0, asked, size)]
        told = {"selection": recipe.selection, "leaks": recipe.leaks, "shots": list(recipe.shots)}
        places = {"queries": self.corpora.roots[-1], "corpora": list(self.corpora.roots)}
        return Plan([Shard(shard_id(number), task) for number, task in enumerate(tasks)], told | places)

    def news(self, whole: Whole) -> str:
        records = [whole.read(shard).record for shard in whole.shards]
        starved, same = (int(sum(record.metrics[name] for record in records)) for name in ("starved", "same_picture"))
        leak = ", which LEAKS: the caption that is asked for has chosen them" if self.recipe.leaks else ""
        return (
            f"{whole.rows:,} pictures with {', '.join(map(str, self.recipe.shots))} supports by "
            f"{self.recipe.selection}{leak}. {starved:,} starved; {same:,} train pairs show a query's own picture"
        )

    def open(self, task: Task) -> Opened:
        whole = {source.key: task.whole(source.key) for source in self.inputs}
        corpora = [whole[source.key] for source in self.corpora.inputs]
        pictures = self._pictures(whole)
        keys = pictures.told_to(Keys.open(whole[FewshotKeys.name]))
        of_train = np.arange(len(pictures.shown)) < pictures.train_rows
        pairs = Pairs(Vectors(corpora, "image"), Vectors(corpora, "text"), keys, of_train)
        starts = np.cumsum([0, *(corpus.rows for corpus in corpora)])
        return Opened(pairs, pictures, self._choice(pairs, pictures), starts)

    def process(self, task: Task, out: ShardWriter, state: Opened) -> Counts:
        ids = state.pictures.test[task.params["first"] : task.params["end"]]
        pair_ids = state.pairs.keys.rows(ids, ["pair_id"])["pair_id"].to_pylist()
        asked = Asked(ids, pair_ids, state.pictures.barred(ids, state.pairs.images))
        best, wanted = state.choice.best(asked), self.recipe.shots[-1]
        starved = np.array([len(rows) < wanted for rows in best])
        left = starved & (self.recipe.on_starved == "skip")
        for query in np.flatnonzero(left):
            out.reject(pair_ids[query], Reason.STARVED, f"{len(best[query])} of {wanted} supports")
        for shots in self.recipe.shots:
            prompts = [state.choice.prompt(pair_ids[query], best[query][:shots]) for query in np.flatnonzero(~left)]
            table = self._table(shots, ids[~left], prompts, state)
            out.table(f"shots_{shots}", f"{self._named}_{shots}_shots_{{stem}}.parquet", table)
        counted = {"starved": int(starved.sum()), "same_picture": sum(map(len, asked.barred))}
        return Counts(len(ids), int((~left).sum()), counted)

    @property
    def _named(self) -> str:
        return f"{self.recipe.selection}_leaks" if self.recipe.leaks else self.recipe.selection

    def _pictures(self, whole: Mapping[str, Whole]) -> Pictures:
        train_rows = sum(whole[source.key].rows for source in self.corpora.inputs[:-1])
        return Pictures.of(Keys.open(whole[FewshotKeys.name]), train_rows)

    def _choice(self, pairs: Pairs, pictures: Pictures) -> Choice:
        recipe, count = self.recipe, self.recipe.shots[-1]
        if recipe.selection == "random":
            return AtRandom(pictures, count, recipe.seed)
        if recipe.selection == "rices":
            return Rices(pairs.images, pictures, count, recipe.device)
        from stages.interleave.engines import engine_for

        most_barred = max(map(len, pictures.barred(pictures.test, pairs.images)))
        mining = recipe.mining((count - 1) * pictures.most_captions + 1 + most_barred)
        # No probe says what is cheapest; of a captioning set's size, any takes minutes.
        return Mined(engine_for(pairs, mining, cheapest="image"), pairs, pictures, count, recipe.seed)

    def _table(self, shots: int, ids: Ids, prompts: Sequence[Ids], state: Opened) -> pa.Table:
        """prompts: of each of these queries its supports, in order."""
        queries = state.pairs.keys.rows(ids, ["pair_id", "image_id"])
        said = {"shots": shots, "selection": self.recipe.selection, "leaks": self.recipe.leaks}
        columns = {
            "pair_id": queries["pair_id"],
            "image_id": queries["image_id"],
            "query": state.told(ids, FEWSHOT.field("query").type),
            "references": state.listed(state.pictures.references(ids), FEWSHOT.field("references").type),
            "supports": state.listed(prompts, FEWSHOT.field("supports").type),
            **{name: pa.repeat(value, len(ids)) for name, value in said.items()},
        }
        return pa.table(columns, schema=FEWSHOT)


def check_splits(corpora: Corpora) -> None:
    """corpora: the train split's, then the test split's.

    Raises InputError where the two are one, and what `check` raises.
    """
    *train, test = corpora.roots
    identities = {CorpusReader(root).identity: root for root in train}
    same = identities.get(CorpusReader(test).identity)
    if same:
        raise InputError(
            f"fewshot: queries names {test} and supports {same}, which hold the same corpus, and supports come from "
            "the train split alone: make each split a run of its own (`split` of its source), and name both"
        )
    check(corpora, supports=0)  # whether there are enough is known by pictures, not by pairs
