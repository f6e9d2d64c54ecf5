"""How well the pictures and texts of an encoder find each other: recall in both directions, zero-shot classification.

Reads   corpus of the evaluation set; encoder_classes, for classification
Writes  ENCODER_SCORES: a row a figure. The intervals are bootstraps over pictures
Source  Radford et al. 2021 (CLIP), §3.1; recall as papers state it for COCO and Flickr30k: a caption looks for its
        picture among all pictures, a picture for any of its captions among all captions
Memory  all vectors once, as float64, and a block of similarities (ranks.py)

Pairs of one source and image_id show one picture; a pair without an image_id shows that of its stored bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from model.evaluation.bootstrap import Floats, clustered
from model.evaluation.class_vectors import ClassVectors, class_names
from model.evaluation.encoder_recipe import EncoderEvaluationRecipe
from model.evaluation.evaluation_set import picture_of, what_is_missing
from model.evaluation.ranks import Half, Ids, ranks
from pipeline.commits import Whole
from pipeline.recipe import Json
from pipeline.schemas import ENCODER_SCORES
from pipeline.stage import Counts, Input, Need, Resources, Stage, shard_id
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.embed import Embedder
from stages.filter import Corpus, CorpusReader
from stages.index import Vectors

RECALL_AT, ACCURACY_AT = (1, 5, 10), (1, 5)
SEED = 0  # of the bootstrap

Row = dict[str, Json]


@dataclass(frozen=True)
class EncoderScores(Stage[None]):
    recipe: EncoderEvaluationRecipe

    name: ClassVar[str] = "encoder_scores"
    version: ClassVar[int] = 1

    @property
    def inputs(self) -> Sequence[Input]:
        classes = [Input(ClassVectors.name, Need.WHOLE)] if "classification" in self.recipe.tasks else []
        return [Input(Corpus.name, Need.WHOLE, absolute_root(self.recipe.pictures)), *classes]

    @property
    def resources(self) -> Resources:
        return Resources(memory_gib=2)

    def settings(self) -> Mapping[str, Json]:
        return {"tasks": sorted(set(self.recipe.tasks)), "missing": what_is_missing(self.recipe.pictures)}

    def news(self, whole: Whole) -> str:
        told = whole.tables("scores", ["task", "metric", "at", "value"]).to_pylist()
        return ", ".join(
            f"{row['task']} {row['metric']}@{row['at']} {row['value']:.3f}" for row in told if row["value"] is not None
        )

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        pairs = Pairs.of(task.whole(Corpus.name))
        rows = list(retrieval_scores(pairs)) if "retrieval" in self.recipe.tasks else []
        if "classification" in self.recipe.tasks:
            classes = task.whole(ClassVectors.name).read(shard_id(0))
            rows += classification_scores(pairs, classes.json("names"), classes.array("class_emb"))
        partial = what_is_missing(self.recipe.pictures)
        noted = [row | {"note": row["note"] or partial} for row in rows]
        out.table("scores", "scores_{stem}.parquet", pa.Table.from_pylist(noted, schema=ENCODER_SCORES))
        return Counts(len(pairs.captions), len(pairs.captions))


@dataclass(frozen=True)
class Pairs:
    """N pairs that show P pictures."""

    vectors: tuple[Half, Half]  # of images and captions, (N, D) each
    captions: Sequence[str]
    picture: Ids  # (N,) the number of the picture that a pair shows

    @classmethod
    def of(cls, corpus: Whole) -> "Pairs":
        told = corpus.tables("metadata", ["source", "image_id", "stored_sha256", "caption"]).to_pylist()
        numbers: dict[tuple[str, ...], int] = {}
        picture = [numbers.setdefault(picture_of(row), len(numbers)) for row in told]
        every = np.arange(len(told))
        images, captions = (Vectors([corpus], key).gather(every) for key in ("image", "text"))
        return cls((images, captions), [row["caption"] for row in told], np.array(picture))


def retrieval_scores(pairs: Pairs) -> Iterator[Row]:
    """Rows of ENCODER_SCORES. A picture's vector is that of its first pair."""
    images, captions = pairs.vectors
    pictures, first = np.unique(pairs.picture, return_index=True)
    to_image = ranks(captions, pairs.picture, images[first], pictures)
    to_text = ranks(images[first], pictures, captions, pairs.picture)
    for at in RECALL_AT:
        yield _row("text_to_image", "recall", at, to_image, pairs.picture, len(pictures))
    for at in RECALL_AT:
        yield _row("image_to_text", "recall", at, to_text, pictures, len(captions))


def classification_scores(pairs: Pairs, names: Sequence[str], vectors: Half) -> Iterator[Row]:
    """names, vectors (C, D): of the classes → rows of ENCODER_SCORES."""
    numbers = {name: number for number, name in enumerate(names)}
    wanted = np.array([numbers[caption] for caption in pairs.captions])
    found = ranks(pairs.vectors[0], wanted, vectors, np.arange(len(names)))
    for at in ACCURACY_AT:
        yield _row("classification", "accuracy", at, found, pairs.picture, len(names))
    of_class = 1 / np.bincount(wanted)[wanted]  # every class of the set weighs the same
    yield _row("classification", "mean_class_accuracy", 1, found, pairs.picture, len(names), of_class)


def _row(
    task: str, metric: str, at: int, found: Ids, pictures: Ids, candidates: int, weights: Floats | None = None
) -> Row:
    """found (Q): ranks; pictures (Q): of the queries; weights (Q): None: all are equal."""
    row: Row = {"task": task, "metric": metric, "at": at, "queries": len(found), "candidates": candidates}
    if at >= candidates:
        return row | {"note": f"not computed: all {candidates} candidates are among the first {at}"}
    figure = clustered((found < at).astype(np.float64), pictures, weights=weights, seed=SEED)
    return row | {"value": figure.value, "low": figure.low, "high": figure.high, "note": ""}


def encoder_stages(recipe: EncoderEvaluationRecipe) -> list[Stage[Any]]:
    """In the order in which they run, under a root of their own.

    Raises InputError where the corpus is not finished; for classification also where its encoder is not here, or its
    captions are not names of classes.
    """
    root = absolute_root(recipe.pictures)
    captions = Whole.open(root, Corpus.name).tables("metadata", ["caption"])["caption"]
    if "classification" not in recipe.tasks:
        return [EncoderScores(recipe)]
    class_names(recipe, captions)
    embedder = Embedder.of(CorpusReader(root).roots[0], recipe.device)
    return [ClassVectors(recipe, embedder), EncoderScores(recipe)]
