"""The classes of zero-shot classification as vectors: what an encoder makes of their names in sentences.

Reads   corpus of the evaluation set, for the names; encoder, where that run trained its own
Writes  names (JSON) and class_emb (float16, norm 1), in one order
Source  Radford et al. 2021 (CLIP), §3.1.4: of every template the unit embedding, their mean brought to norm 1
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.evaluation.encoder_recipe import EncoderEvaluationRecipe
from model.evaluation.ranks import Half
from pipeline.errors import InputError
from pipeline.recipe import Json
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.storage import absolute_root
from pipeline.writer import ShardWriter, Task
from stages.embed import Embed, Embedder
from stages.filter import Corpus

SHOWN = 5  # names, of a fault


@dataclass(frozen=True)
class ClassVectors(Stage[Any]):
    """State: the towers of stages.embed."""

    recipe: EncoderEvaluationRecipe
    embedder: Embedder

    name: ClassVar[str] = "encoder_classes"
    version: ClassVar[int] = 1
    stateful: ClassVar[bool] = True

    @property
    def inputs(self) -> Sequence[Input]:
        return [Input(Corpus.name, Need.WHOLE, absolute_root(self.recipe.pictures)), *self.embedder.inputs]

    @property
    def resources(self) -> Resources:
        return Embed(self.embedder.recipe).resources

    def settings(self) -> Mapping[str, Json]:
        embed = {"embed": Embed(self.embedder.recipe).settings()}
        return self.recipe.model_dump(mode="json", include={"classes", "templates"}) | embed

    def conditions(self) -> Mapping[str, Json]:
        return Embed(self.embedder.recipe).conditions()

    def open(self, task: Task) -> Any:
        return self.embedder.open()

    def process(self, task: Task, out: ShardWriter, state: Any) -> Counts:
        names = class_names(self.recipe, task.whole(Corpus.name).tables("metadata", ["caption"])["caption"])
        out.json("names", "names_{stem}.json", names)
        out.array("class_emb", "class_emb_{stem}.npy", class_vectors(names, self.recipe.templates, state))
        return Counts(len(names), len(names))


def class_names(recipe: EncoderEvaluationRecipe, captions: pa.ChunkedArray) -> list[str]:
    """captions: of all pairs. Raises InputError where one is no class of the recipe, or there is nothing to choose."""
    found = sorted(pc.unique(captions).to_pylist())
    if recipe.classes is None and len(found) < 2:
        raise InputError(
            f"{recipe.pictures}: all captions are {found}, and a class is chosen from two at least; set classes"
        )
    unknown = sorted(set(found) - set(recipe.classes or found))
    if unknown:
        raise InputError(
            f"{recipe.pictures}: {len(unknown):,} of {len(found):,} different captions are none of the "
            f"{len(recipe.classes or ()):,} classes, such as {unknown[:SHOWN]}; a caption should be the name of its "
            "picture's class, letter by letter"
        )
    return list(recipe.classes or found)


def class_vectors(names: Sequence[str], templates: Sequence[str], towers: Any) -> Half:
    """→ (names, width), of norm 1."""
    total = np.zeros((len(names), towers.width))
    for template in templates:
        total += towers.encode_texts([template.replace("{}", name) for name in names])
    unit: Half = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float16)
    return unit
