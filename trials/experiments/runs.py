"""An experiment with one seed: its arms are trained and asked, one after the other."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from demo.named import NamedPair, renamed
from model.freezing import RETRIEVAL, Stage
from model.language_model import LanguageModel
from model.revilm import ReViLM
from trials.experiments.arms import EXPERIMENTS, Arm, Condition, Course
from trials.experiments.measures import Scores, ask, chance
from trials.experiments.samples import SUPPORTS, Neighbors, documents, five_pairs, pairs, questions, texts
from trials.experiments.setting import Setting
from trials.experiments.training import Part, Spent, train_stage

log = logging.getLogger("pipeline.experiments")  # jobs show what `pipeline` has to say


@dataclass(frozen=True)
class Measured:
    """An arm that was asked under a condition; chance is an arm that was not trained."""

    arm: str
    condition: str
    seed: int
    questions: int
    scores: Scores
    same_group: float | None = None  # share of the neighbours, when asked, that are of the picture's group
    language: Spent = Spent()  # one model for all arms of a seed
    retrofit: Spent = Spent()
    pretrain: Spent = Spent()


@dataclass(frozen=True)
class Trained:
    model: ReViLM
    retrofit: Spent
    pretrain: Spent


@dataclass
class Lab:
    """Of one seed. What two experiments have in common is trained once."""

    setting: Setting
    _trained: dict[Arm, Trained] = field(default_factory=dict)

    def run(self, experiment: str) -> Iterator[Measured]:
        """Chance, then arm by arm."""
        setting = self.setting
        asked = setting.world.asked
        yield Measured("chance", "", setting.seed, len(asked), chance(setting.tokenizer, asked))
        for arm, conditions in EXPERIMENTS[experiment].items():
            yield from self.of(arm, conditions)

    def of(self, arm: Arm, conditions: Iterable[Condition]) -> Iterator[Measured]:
        trained = self.trained(arm)
        for condition in conditions:
            measured = self._asked(trained, arm, condition)
            log.info("seed %d: %s, %s: %s", self.setting.seed, arm.name, condition, measured.scores)
            yield measured

    def trained(self, arm: Arm) -> Trained:
        if arm not in self._trained:
            self._trained[arm] = self._train(arm)
        return self._trained[arm]

    @cached_property
    def language(self) -> tuple[LanguageModel, Spent]:
        torch.manual_seed(self.setting.seed)
        model = ReViLM(self.setting.text_config)
        course = self.setting.budget.language
        parts = {"documents": Part(documents(self.setting), course.batch)}
        return model.language_model, self._stage(model, "language", parts, course)

    def _train(self, arm: Arm) -> Trained:
        language_model, _ = self.language
        neighbors = {} if arm.mode == "none" else self.setting.neighbors_in_training(arm)
        torch.manual_seed(self.setting.seed)
        model = ReViLM(self.setting.config(arm), language_model, self.setting.image_encoder)
        retrofit = self._retrofit(model, neighbors) if arm.mode == "cross" else Spent()
        pretrain = self._stage(model, "pretrain", self._pictures(arm, neighbors), self.setting.budget.pretrain)
        return Trained(model, retrofit, pretrain)

    def _retrofit(self, model: ReViLM, neighbors: Neighbors) -> Spent:
        """Of the model's retrieval parts, on text alone."""
        blind = ReViLM(replace(model.config, vision=None), model.language_model)
        course = self.setting.budget.retrofit
        spent = self._stage(blind, "retrofit", {"texts": Part(texts(self.setting, neighbors), course.batch)}, course)
        for part in RETRIEVAL:
            model.get_submodule(part).load_state_dict(blind.get_submodule(part).state_dict())
        return spent

    def _stage(self, model: ReViLM, stage: Stage, parts: Mapping[str, Part], course: Course) -> Spent:
        log.info("seed %d: %s", self.setting.seed, stage)
        return train_stage(model, stage, parts, course, self.setting.tokenizer, self.setting.seed)

    def _pictures(self, arm: Arm, neighbors: Neighbors) -> dict[str, Part]:
        batch = self.setting.budget.pretrain.batch
        singles = pairs(self.setting, neighbors)
        if not arm.interleaved:
            return {"pairs": Part(singles, batch)}
        samples = batch // (2 * (1 + SUPPORTS))
        fives = Part(five_pairs(self.setting), samples)
        return {"pairs": Part(singles, batch - samples * (1 + SUPPORTS)), "five pairs": fives}

    def _asked(self, trained: Trained, arm: Arm, condition: Condition) -> Measured:
        setting = self.setting
        asked = setting.world.asked
        neighbors = setting.neighbors_when_asked(arm) if arm.mode != "none" else None
        names = renamed(asked, setting.seed) if condition == "redrawn database" else None
        supports = SUPPORTS if condition == "four supports" else 0
        questioned = questions(setting, neighbors, names, supports=supports)
        scores = ask(trained.model, setting.tokenizer, questioned, asked, names)
        return Measured(
            arm.name,
            condition,
            setting.seed,
            len(asked),
            scores,
            _same_group(asked, neighbors) if neighbors else None,
            self.language[1],
            trained.retrofit,
            trained.pretrain,
        )


def _same_group(pairs: Sequence[NamedPair], neighbors: Sequence[Sequence[NamedPair]]) -> float:
    found = [other.group == pair.group for pair, some in zip(pairs, neighbors, strict=True) for other in some]
    return sum(found) / len(found)
