"""The models of a seed: a language model, its retrofit for mode cross, and of every mode a pretraining on one set.

Reads   what trials.results.roots makes, and the stage before
Writes  cost (Cost) of each. The model lies where the trainer puts it, who goes on by himself where he was cut off
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model.training.check import settings_of
from model.training.checkpoints import result_of
from model.training.launch import launch
from model.training.recipe import ModelRecipe, SourceRecipe, StageName, StageRecipe, TrainRecipe
from pipeline.checksums import sha256_of_file
from pipeline.recipe import Json, Section
from pipeline.stage import Counts, Input, Need, Resources, Stage
from pipeline.writer import ShardWriter, Task
from trials.results.recipe import Course, Mode, ResultsRecipe
from trials.results.roots import image_encoder


class Cost(Section):
    """What a training took, and what its evaluation found."""

    stage: StageName
    mode: Mode  # of language none
    seed: int
    updates: int
    samples: int  # pairs, and samples of five
    tokens: int  # without padding
    flops: int  # by model.flops
    figures: dict[str, tuple[float, float, float]]  # of held-out pairs of own: value and its 95 % interval


@dataclass(frozen=True)
class Training(Stage[None]):
    """One training, whole. reads: the finished stages that its sources name, and the training before."""

    recipe: TrainRecipe
    reads: tuple[Input, ...]
    version = 1

    @property
    def inputs(self) -> Sequence[Input]:
        return self.reads

    @property
    def resources(self) -> Resources:
        threads, gpus = self.recipe.threads, 1 if self.recipe.device == "cuda" else 0
        return Resources(cpus=threads, gpus=gpus, memory_gib=4, threads=threads)

    def settings(self) -> Mapping[str, Json]:
        """The trainer's own. What it reads is an input, and stands there by its identity."""
        _, section = self.recipe.stage_and_section
        told = settings_of(self.recipe, _weights(self.recipe.model), dict.fromkeys(section.sources))
        return {**told, "updates": section.updates}

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        recipe = self.recipe
        launch(recipe)
        steps = list(_steps(Path(recipe.folder, "watch", "updates.jsonl")))
        checkpoints, record = result_of(recipe.folder)
        cost = Cost(
            stage=recipe.stage_and_section[0],
            mode=recipe.mode,
            seed=recipe.seed,
            updates=len(steps),
            figures=checkpoints.state(record)["figures"],
            **{name: sum(step[name] for step in steps) for name in ("samples", "tokens", "flops")},
        )
        out.json("cost", "cost_{stem}.json", cost.model_dump(mode="json"))
        return Counts(0, 0, {"train_s": sum(sum(step["seconds"].values()) for step in steps)})


class Language(Training):
    name = "language"


class Retrofit(Training):
    name = "retrofit"


class PretrainNone(Training):
    name = "pretrain_none"


class PretrainPrefix(Training):
    name = "pretrain_prefix"


class PretrainCross(Training):
    name = "pretrain_cross"


PRETRAIN: Mapping[Mode, type[Training]] = {"none": PretrainNone, "prefix": PretrainPrefix, "cross": PretrainCross}


@dataclass(frozen=True)
class Seed:
    """Its trainings, and where their results lie. What they read of other runs is finished."""

    recipe: ResultsRecipe
    seed: int

    def stages(self) -> list[Training]:
        """In an order in which they can run. The arms wait for no other arm, and of stages that are ready a run begins
        with the last: with the retrofit, for which cross waits."""
        found = [self._language()] if self.recipe.training.language else []
        for mode in self.recipe.modes:
            found += [self._retrofit()] if mode == "cross" else []
            found.append(self._pretrain(mode))
        return found

    @property
    def name(self) -> str:
        """Of the run."""
        return name_of(self.seed)

    def checkpoint(self, mode: Mode) -> str:
        """The folder of the finished pretraining."""
        return f"{self._folder(mode)}/pretrain"

    def _language(self) -> Training:
        """On both sources' captions: like one that has read much, it is to know every word."""
        place, course = self.recipe.place, self.recipe.training.language
        assert course is not None, "asked for where there is one"
        captions = SourceRecipe(corpus=place("both"), neighbors=place("text"), batch=course.pairs)
        reads = (self._whole("both", "corpus"), self._whole("text", "neighbors"))
        return Language(self._train("language", "none", {"captions": captions}), reads)

    def _retrofit(self) -> Training:
        pairs = self._own(self.recipe.training.retrofit)
        return Retrofit(self._train("retrofit", "cross", {"pairs": pairs}), (*self._read_of_own, *self._before("none")))

    def _pretrain(self, mode: Mode) -> Training:
        """On the same pairs in every mode, none of them of another source."""
        place, course = self.recipe.place, self.recipe.training.pretrain
        patches = (place("patches"),) if self.recipe.cache_patches else ()
        sources = {"pairs": self._own(course, patches)}
        reads = [*self._read_of_own, *([self._whole("patches", "patches")] if patches else [])]
        if course.fives:
            sources["five"] = SourceRecipe(samples=place("five"), patches=patches, batch=course.fives)
            reads.append(self._whole("five", "interleaved"))
        if self.recipe.tower:
            reads.append(self._whole("tower", "encoder"))
        return PRETRAIN[mode](self._train("pretrain", mode, sources), (*reads, *self._before(mode)))

    def _own(self, course: Course, patches: tuple[str, ...] = ()) -> SourceRecipe:
        place = self.recipe.place
        return SourceRecipe(corpus=place("own"), neighbors=place("neighbors"), patches=patches, batch=course.pairs)

    @property
    def _read_of_own(self) -> tuple[Input, ...]:
        return self._whole("own", "corpus"), self._whole("neighbors", "neighbors")

    def _before(self, mode: Mode) -> list[Input]:
        """What a training that follows the language model, or in mode cross the retrofit, reads of this run."""
        if mode == "cross":
            return [Input(Retrofit.name, Need.WHOLE)]
        return [Input(Language.name, Need.WHOLE)] if self.recipe.training.language else []

    def _train(self, stage: StageName, mode: Mode, sources: dict[str, SourceRecipe]) -> TrainRecipe:
        training = self.recipe.training
        course: Course = getattr(training, stage)
        follows_language = stage == "retrofit" or (stage == "pretrain" and mode != "cross")
        section = StageRecipe(
            sources=sources,
            start=self._folder("none") if follows_language else None,
            **course.model_dump(exclude={"pairs", "fives"}),
        )
        recipe = TrainRecipe(
            root=self._folder(mode),
            stage=stage,
            engine="local",
            seed=self.seed,
            threads=training.threads,
            device=training.device,
            held_out=training.held_out,
            model=training.model.model_copy(update={"mode": mode, "image_encoder": image_encoder(self.recipe)}),
        )
        return recipe.model_copy(update={stage: section})

    def _folder(self, mode: Mode) -> str:
        return self.recipe.place(f"{self.name}/models/{mode}")

    def _whole(self, root: str, stage: str) -> Input:
        return Input(stage, Need.WHOLE, self.recipe.place(root), label=f"{root} {stage}")


def name_of(seed: int) -> str:
    return f"seed-{seed}"


def _weights(model: ModelRecipe) -> dict[str, str]:
    """sha256 of every file of weights that is named."""
    files = sorted(model.language_model.glob("*.safetensors")) if model.language_model else []
    files += [model.image_encoder.weights] if model.image_encoder and model.image_encoder.weights else []
    return {path.name: _sha256_of(path) for path in files}


@cache
def _sha256_of(path: Path) -> str:
    return sha256_of_file(path)


def _steps(lines: Path) -> Iterator[dict[str, Any]]:
    """Of every update, once."""
    for line in lines.read_text(encoding="utf-8").splitlines():
        step = json.loads(line)
        if "evaluation" not in step:
            yield step
