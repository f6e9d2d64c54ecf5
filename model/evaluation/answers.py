"""What models say of the pictures of an evaluation set, with one database and another.

Reads   evaluation_matches; corpus: the set's, and that of examples of text alone; index_gate: every database's;
        fewshot: the examples
Writes  answers (ANSWERS), a shard a model, a database, k, a number of shots and a block of questions
Rejects starved: a question with fewer examples than asked for; prompt_too_long: one that has no room even alone
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from model.evaluation.contestants import NO_DATABASE, Cell, Contestant, cells
from model.evaluation.evaluation_set import Question
from model.evaluation.examples import Examples, examples_of
from model.evaluation.matches import EvaluationMatches, read_matches
from model.evaluation.recipe import EvaluationRecipe
from model.evaluation.tasks import task_of
from pipeline.checksums import sha256_of_file
from pipeline.commits import Whole
from pipeline.reasons import Reason
from pipeline.recipe import Json
from pipeline.schemas import ANSWERS
from pipeline.stage import Counts, Input, Need, Plan, Resources, Shard, Stage, shard_id
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.filter import Corpus, CorpusReader
from stages.index import Database, QueryEncoder, Vectors

if TYPE_CHECKING:  # what is imported here would make the help of a job wait for torch
    from model.evaluation.examiner import Asked
    from model.evaluation.replies import Reply
    from model.evaluation.sight import Sight

INDEX, FEWSHOT = "index_gate", "fewshot"
NOT_OF_BYTES = {"other_encoder", "device", "cpus", "workers", "trained_on", "meteor", "spice"}
PLACES = {"pictures", "examples", "text_examples", "domains", "vqa"}  # what lies there is an input, or told by content


@dataclass
class Opened:
    """What a process keeps between shards: one model and one database at a time."""

    recipe: EvaluationRecipe
    models: Mapping[str, Contestant]
    databases: Mapping[str, str | None]
    corpus: CorpusReader
    questions: Sequence[Question]
    matches: Mapping[str, Set[str]]
    _sight: "tuple[str, str, Sight] | None" = None
    _examples: dict[int, Examples] = field(default_factory=dict)

    def sight(self, model: str, database: str) -> "Sight":
        from model.evaluation.live_index import LiveIndex
        from model.evaluation.sight import Sight

        if self._sight is None or self._sight[:2] != (model, database):
            answerer = self._sight[2].answerer if self._sight and self._sight[0] == model else None
            self._sight = None  # so that two models, or two indexes, are never in memory
            root = None if database == NO_DATABASE else self.databases[database]
            answerer = answerer or self.models[model].open()
            self._sight = model, database, Sight(answerer, LiveIndex(root) if root else None)
        return self._sight[2]

    def examples(self, shots: int) -> Examples:
        if shots not in self._examples:
            self._examples[shots] = examples_of(self.recipe, shots, task_of(self.recipe).told, self.matches)
        return self._examples[shots]

    @cached_property
    def captions_encoder(self) -> QueryEncoder:
        """Of the set's own embeddings."""
        return QueryEncoder.of(Database.open(self.recipe.pictures))

    @cached_property
    def vectors(self) -> Vectors:
        """Of the set's pictures."""
        return Database.open(self.recipe.pictures).vectors("image")

    def clip_scores(self, given: "Sequence[Reply]") -> list[float | None]:
        """Of captions, cosines of the set's own embeddings of the picture and of the answer, empty ones too."""
        if not given or self.recipe.vqa or self.recipe.choices:
            return [None] * len(given)
        texts = self.captions_encoder.texts([reply.answer for reply in given])
        pictures = self.vectors.gather(np.array([reply.question.row_id for reply in given])).astype(np.float32)
        return [float(cosine) for cosine in (texts * pictures).sum(1)]


@dataclass(frozen=True)
class EvaluationAnswers(Stage[Opened]):
    """models: by name; databases: by name, the root of an index or None."""

    recipe: EvaluationRecipe
    models: Mapping[str, Contestant]
    databases: Mapping[str, str | None]
    name, version, stateful = "evaluation_answers", 1, True

    @property
    def cells(self) -> list[Cell]:
        """Raises RecipeError as contestants.cells does."""
        return cells(self.models, self.databases, self.recipe.neighbors)

    @property
    def inputs(self) -> Sequence[Input]:
        asked = {cell.database for cell in self.cells}
        return [
            Input(EvaluationMatches.name, Need.WHOLE),
            Input(Corpus.name, Need.WHOLE, absolute_root(self.recipe.pictures), "pictures"),
            *(
                Input(INDEX, Need.WHOLE, absolute_root(root), f"database {name}")
                for name, root in self.databases.items()
                if root and name in asked
            ),
            *_optional(FEWSHOT, self.recipe.examples if self.recipe.shots[-1] else None, "examples"),
            *_optional(Corpus.name, None if self.recipe.shots[0] else self.recipe.text_examples, "text examples"),
        ]

    @property
    def resources(self) -> Resources:
        recipe = self.recipe
        gpus = 1 if recipe.device == "cuda" else 0
        return Resources(cpus=recipe.cpus, gpus=gpus, memory_gib=4, threads=recipe.cpus, workers=recipe.workers)

    def settings(self) -> Mapping[str, Json]:
        told = self.recipe.model_dump(mode="json", exclude=NOT_OF_BYTES | PLACES)
        models = {name: model.identity for name, model in self.models.items()}
        files = {name: sha256_of_file(path) for name, path in self._files.items()}
        template = self.recipe.vqa.template if self.recipe.vqa else None
        return told | {"models": models, "files": files, "template": template}

    def conditions(self) -> Mapping[str, Json]:
        return {"device": self.recipe.device, "threads": self.recipe.cpus}

    @property
    def _files(self) -> dict[str, Path]:
        vqa = vars(self.recipe.vqa) if self.recipe.vqa else {}
        named = {"domains": self.recipe.domains} | vqa
        return {name: path for name, path in named.items() if isinstance(path, Path)}

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        questions, size = len(self._questions()), self.recipe.questions_per_shard
        blocks = [
            {"model": cell.model, "database": cell.database, "k": cell.k, "shots": shots}
            | {"first": first, "end": min(first + size, questions)}
            for cell in self.cells
            for shots in self.recipe.shots
            for first in range(0, questions, size)
        ]
        return Plan([Shard(shard_id(number), params) for number, params in enumerate(blocks)], {"questions": questions})

    def open(self, task: Task) -> Opened:
        corpus = CorpusReader(self.recipe.pictures)
        matches: dict[str, set[str]] = {}
        for match in read_matches(task.whole(EvaluationMatches.name)):
            matches.setdefault(match.picture, set()).add(match.pair_id)
        return Opened(self.recipe, self.models, self.databases, corpus, self._questions(), matches)

    def process(self, task: Task, out: ShardWriter, state: Opened) -> Counts:
        some = state.questions[task.params["first"] : task.params["end"]]
        size = self.recipe.batch_size
        batches = [some[first : first + size] for first in range(0, len(some), size)]
        rows = [row for batch in batches for row in self._answered(batch, task, out, state)]
        out.table("answers", "answers_{stem}.parquet", pa.Table.from_pylist(rows, schema=ANSWERS))
        return Counts(len(some), len({row["question"] for row in rows}))

    def _answered(
        self, batch: Sequence[Question], task: Task, out: ShardWriter, state: Opened
    ) -> Iterator[Mapping[str, Any]]:
        from model.evaluation.examiner import Examiner
        from model.evaluation.replies import replies

        sight = state.sight(task.params["model"], task.params["database"])
        examples = state.examples(task.params["shots"])
        examiner = Examiner(sight, state.corpus, task.params["k"], state.matches)
        asked = _with_examples(batch, examples, out)
        given = list(replies(examiner, asked, self.recipe))
        for question in _without(asked, given):
            out.reject(question, Reason.PROMPT_TOO_LONG, "even without examples")
        cell = {name: task.params[name] for name in ("model", "database", "k", "shots")}
        for reply, clip_score in zip(given, state.clip_scores(given), strict=True):
            yield {**cell, **_told(reply), "examples": examples.selection, "clip_score": clip_score}

    def _questions(self) -> list[Question]:
        return task_of(self.recipe).questions(CorpusReader(self.recipe.pictures))


def _with_examples(questions: Sequence[Question], examples: Examples, out: ShardWriter) -> "list[Asked]":
    from model.evaluation.examiner import Asked

    found = [(question, examples.of(question)) for question in questions]
    for question, some in found:
        if some is None:
            out.reject(question.id, Reason.STARVED, "fewer examples than shots")
    return [Asked(question, some) for question, some in found if some is not None]


def _without(asked: "Sequence[Asked]", given: "Sequence[Reply]") -> list[str]:
    """Questions that have no reply."""
    replied = {reply.question.id for reply in given}
    return [each.question.id for each in asked if each.question.id not in replied]


def _told(reply: "Reply") -> Mapping[str, Any]:
    """Columns of ANSWERS."""
    question, neighbors = reply.question, reply.prompted.neighbors
    return {
        "new_tokens": reply.new_tokens,
        "question": question.id,
        "pair_id": question.pair_id,
        "image_id": question.image_id,
        "domain": question.domain,
        "asked": question.asked,
        "references": question.references,
        "answer": reply.answer,
        "shown": reply.prompted.shown,
        "row_id": question.row_id,
        "neighbors": [
            {"pair_id": each.pair["pair_id"], "similarity": each.similarity, "caption": each.caption}
            for each in neighbors.kept
        ],
        "removed": neighbors.removed,
    }


def _optional(stage: str, root: str | None, label: str) -> list[Input]:
    return [Input(stage, Need.WHOLE, absolute_root(root), label)] if root else []
