"""A stage of training, from its recipe to its result, as one of the processes that train it."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import takewhile

from torch import Tensor

from model.checkpoint import from_pretrained, references_of
from model.freezing import freeze
from model.sequence import SequenceBuilder
from model.training.checkpoints import ALL_MADE, KEY_ENCODERS, MODEL, NO_BETTER, Checkpoints, Record
from model.training.data import captions, held_out_pictures, held_out_samples, opening_of
from model.training.grounding import measure_grounding
from model.training.key_encoders import Encoder, key_encoders
from model.training.loop import NotFinite, Pace, Stepped, autocast, train
from model.training.optimizer import adam_w
from model.training.persistence import OPTIMIZER, gathered, read_moments, write_batches, write_checkpoint
from model.training.recipe import TrainRecipe
from model.training.samples import Sample
from model.training.sharding import bare, evaluated_as_whole, wrapped
from model.training.start import Start, configuration, start
from model.training.updates import Batching, Share, Update, Updates, loaded
from model.training.watch import Watch
from model.training.world import World
from pipeline.errors import InputError
from pipeline.recipe import Json

Report = Callable[[Mapping[str, float]], None]
"""What is told to whoever runs the processes: by all of them, an equal number of times."""

log = logging.getLogger("training")


def train_stage(recipe: TrainRecipe, settings: Mapping[str, Json], world: World, report: Report) -> None:
    """Goes on from the last checkpoint, or begins; does nothing where the stage is finished.

    settings: as model.training.check gives them. Raises NotFinite, on all processes, InputError and StorageError."""
    checkpoints = Checkpoints(recipe.folder)
    if checkpoints.finished() is None:
        StageTraining(recipe, settings, world, report, checkpoints).run()


class StageTraining:
    def __init__(
        self,
        recipe: TrainRecipe,
        settings: Mapping[str, Json],
        world: World,
        report: Report,
        checkpoints: Checkpoints,
    ) -> None:
        self.recipe, self.settings, self.world, self.report = recipe, settings, world, report
        self.checkpoints = checkpoints
        self.stage, self.section = recipe.stage_and_section
        latest = checkpoints.latest()
        seen = latest.update if latest else 0
        if not world.agree(seen):
            raise InputError(
                f"{recipe.folder}: this worker sees a checkpoint of update {seen}, and another one does not. Give a "
                "root that all of them share"
            )
        begun = _begin(recipe) if latest is None else _go_on(checkpoints, latest)
        freeze(begun.model, self.stage, train_retrieval=self.section.train_retro)
        self.tokenizer, self.config = begun.tokenizer, begun.model.config
        self.parts = {name.split(".")[0] for name, each in begun.model.named_parameters() if each.requires_grad}
        self.references = {part: each for part, each in begun.references.items() if part not in self.parts}
        # Of parts that are neither trained nor referred to: as they began, for `wrapped` may narrow them.
        self.frozen = {
            name: each.detach()
            for name, each in begun.model.named_parameters()
            if name.split(".")[0] not in self.parts | self.references.keys()
        }
        self.builder = SequenceBuilder(self.config, begun.tokenizer, text_tokens=self.section.text_tokens)
        self.model = wrapped(
            begun.model,
            world,
            sharding=recipe.sharding,
            precision=self.section.precision,
            compiled=self.section.compiled,
        )
        self.optimizer = adam_w(self.model, weight_decay=self.section.weight_decay)
        self.done = 0  # updates
        self.best = math.inf  # score of an evaluation: the smaller the better
        self.stale = 0  # evaluations since
        self.figures: dict[str, Json] = {}  # of the last evaluation,
        self.evaluated = 0  # which was after this update
        if latest is not None:
            self._restore(latest)
        self.watch = Watch.of(recipe, world, bare(self.model), self.parts, first_update=self.done + 1)

    def run(self) -> None:
        """Raises NotFinite, when the update's batches have been written down."""
        if self.world.leads:
            self.checkpoints.sweep()
        try:
            train(self.model, self.optimizer, self._updates(), self._pace, self.world, self._after)
        except NotFinite as error:
            self._dump(error.update)
            raise
        finally:
            self.watch.close()
        best = self.checkpoints.best() if self.section.patience else self.checkpoints.latest()
        assert best is not None, "the last update is followed by a checkpoint"
        if self.world.leads:
            self.checkpoints.finish(best.update, NO_BETTER if self._stale else ALL_MADE)
        self.world.wait()

    @property
    def _pace(self) -> Pace:
        section = self.section
        return Pace(
            learning_rate=section.learning_rate,
            warm_up=section.warm_up,
            clip=section.clip,
            weights={name: source.weight for name, source in section.sources.items()},
            precision=section.precision,
            recompute=section.recompute,
            seed=self.recipe.seed,
        )

    def _updates(self) -> Iterator[Update]:
        section = self.section
        batching = Batching(micro_batch=section.micro_batch, rows=section.rows, row_tokens=section.row_tokens)
        shares = {name: Share(source.batch) for name, source in section.sources.items()}
        opening = opening_of(self.recipe, self.config)
        updates = Updates(opening, shares, self.builder, batching, seed=self.recipe.seed, rank=self.world.rank)
        ahead = loaded(updates, self.done, section.updates, processes=self.recipe.processes)
        return takewhile(lambda _: not self._stale, ahead)

    @property
    def _stale(self) -> bool:
        return self.section.patience is not None and self.stale >= self.section.patience

    def _after(self, stepped: Stepped) -> None:
        self.done = stepped.update.number + 1
        self.watch.stepped(stepped)
        last = self.done == self.section.updates
        score = None
        if self._held_out and (last or self.done % self.section.evaluate_every == 0):
            score = self._evaluate()
        best = score is not None and self.section.patience is not None and not self.stale
        if last or best or self._stale or self.done % self.section.checkpoint_every == 0:
            self._save(score)
            self.report({"update": self.done, **{f"loss_{name}": loss for name, loss in stepped.losses.items()}})

    @cached_property
    def _held_out(self) -> list[Sample]:
        return held_out_samples(self.recipe, self.builder)

    @cached_property
    def _pictures(self) -> dict[str, Tensor]:
        return held_out_pictures(self.recipe, self.config)

    @cached_property
    def _key_encoders(self) -> list[Encoder]:
        return [] if self.config.retrieval.mode == "none" else key_encoders(self.section.sources.values())

    def _evaluate(self) -> float:
        """→ the score. By every process the same, so that none waits for another."""
        with evaluated_as_whole(self.model) as model, autocast(self.world, self._pace):
            grounding = measure_grounding(
                model,
                self.builder,
                self._held_out,
                device=self.world.device,
                batch_size=max(self.section.micro_batch, 2),
                captioned=self.recipe.held_out.captioned,
                seed=self.recipe.seed,
            )
        figures = grounding.figures()
        # All stop together, also where another kind of machine rounds in another way.
        score = self.world.of_leader(-figures["cider_d"].value if self.section.patience else figures["loss"].value)
        self.stale = 0 if score < self.best else self.stale + 1
        self.best = min(self.best, score)
        self.evaluated = self.done
        self.figures = {name: [each.value, each.low, each.high] for name, each in figures.items()}
        self.watch.evaluated(self.done, grounding, self._held_out, self._pictures if self.world.leads else {})
        return score

    def _save(self, score: float | None) -> None:
        """score: of an evaluation of these very weights."""
        frozen = {name for name, _ in bare(self.model).named_children()} - self.parts
        learned, moments = gathered(self.model, self.optimizer, frozen, keep=self.world.leads)
        if self.world.leads:
            state = {"settings": self.settings, "figures": self.figures, "best": self.best, "stale": self.stale}
            state |= {"update": self.done, "evaluated": self.evaluated, KEY_ENCODERS: self._key_encoders}
            with self.checkpoints.writing(self.done, score) as folder:
                references = {part: self.checkpoints.seen(each) for part, each in self.references.items()}
                tensors = (self.frozen | learned, moments)
                write_checkpoint(folder, self.config, self.tokenizer, tensors, references, state)
            self.checkpoints.prune(self.section.keep)
        self.world.wait()

    def _dump(self, update: Update) -> None:
        """This process' part of an update that is not to be learned from."""
        place = f"not_finite/rank_{self.world.rank.number}"
        with self.checkpoints.beside(place) as folder:
            write_batches(folder, update)
        log.error("the batches of update %d are in %s/%s", update.number + 1, self.checkpoints.folder, place)

    def _restore(self, latest: Record) -> None:
        with self.checkpoints.opened(latest, OPTIMIZER) as folder:
            read_moments(folder / OPTIMIZER, self.model, self.optimizer, latest.update)
        state = self.checkpoints.state(latest)
        self.done, self.figures, self.evaluated = latest.update, state["figures"], state["evaluated"]
        self.best, self.stale = state["best"], state["stale"]
        if self.world.leads:
            log.info("%s goes on behind update %d of %d", self.stage, self.done, self.section.updates)


def _begin(recipe: TrainRecipe) -> Start:
    return start(recipe, lambda: captions(opening_of(recipe, configuration(recipe))))


def _go_on(checkpoints: Checkpoints, latest: Record) -> Start:
    with checkpoints.opened(latest, f"{MODEL}/") as folder:
        try:
            read = from_pretrained(folder / MODEL)
        except (ValueError, FileNotFoundError) as error:
            raise InputError(str(error)) from None
        return Start(read.model, read.tokenizer, references_of(folder / MODEL))
