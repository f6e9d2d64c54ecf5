"""What a stage shows while it trains: figures of every update, and what an evaluation found, in every view there is."""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import torch
from torch import Tensor

from model.flops import training_flops
from model.revilm import ReViLM
from model.training.captions_page import captions_page
from model.training.gates import gate_values
from model.training.grounding import Grounding
from model.training.loop import Stepped
from model.training.recipe import TrainRecipe
from model.training.samples import Sample
from model.training.view import JsonLines, Step, TensorBoard, TerminalView, Watcher
from model.training.world import World
from pipeline.disk import full_disk_told

GATES_EVERY = 50  # updates
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Of dense bfloat16 products, by a part of the device's name (its maker's figures)."""

log = logging.getLogger("training")


@dataclass
class Watch:
    """Of one process; only the one that leads has views."""

    recipe: TrainRecipe
    world: World
    model: ReViLM
    parts: Collection[str]  # that are trained
    folder: Path | None
    views: list[Watcher] = field(default_factory=list)

    @classmethod
    def of(
        cls, recipe: TrainRecipe, world: World, model: ReViLM, parts: Collection[str], *, first_update: int
    ) -> "Watch":
        """first_update: what an earlier process showed of it and of later ones is taken back."""
        watch = cls(recipe, world, model, parts, _folder(recipe))
        if world.leads:
            watch.views.append(TerminalView())
        if world.leads and watch.folder is not None:
            watch.folder.mkdir(parents=True, exist_ok=True)
            watch.views.append(JsonLines(watch.folder / "updates.jsonl", first_update=first_update))
            watch.views.append(TensorBoard(watch.folder / "tensorboard", first_update=first_update))
        return watch

    def stepped(self, stepped: Stepped) -> None:
        if self.views:
            step = self._step(stepped)
            with self._full_disk_told():
                for view in self.views:
                    view.step(step)

    def evaluated(
        self, update: int, grounding: Grounding, samples: Sequence[Sample], pictures: Mapping[str, Tensor]
    ) -> None:
        """pictures: as captions_page takes them."""
        stage, section = self.recipe.stage_and_section
        if not self.world.leads:
            return
        with self._full_disk_told():
            self._show(update, grounding, samples, pictures)
        for warning in grounding.warnings(stage=stage, warmed_up=update > section.warm_up):
            log.warning("%s", warning)

    def close(self) -> None:
        with self._full_disk_told():
            for view in self.views:
                view.close()

    def _show(
        self, update: int, grounding: Grounding, samples: Sequence[Sample], pictures: Mapping[str, Tensor]
    ) -> None:
        for view in self.views:
            view.evaluated(update, {name: figure.value for name, figure in grounding.figures().items()})
        if self.folder is not None:
            page = captions_page(update, grounding, samples, pictures=pictures)
            (self.folder / f"captions_{update:08d}.html").write_text(page, encoding="utf-8")

    def _full_disk_told(self) -> AbstractContextManager[None]:
        return nullcontext() if self.folder is None else full_disk_told(self.folder)

    def _step(self, stepped: Stepped) -> Step:
        _, section = self.recipe.stage_and_section
        update = stepped.update
        work = [micro.work for micro in update.micro_batches]
        tokens = sum(each.tokens for each in work)
        places = sum(micro.batch.tokens.numel() for micro in update.micro_batches)
        number, flops = update.number + 1, self._flops(stepped)
        return Step(
            update=number,
            updates=section.updates,
            losses=stepped.losses,
            learning_rate=stepped.learning_rate,
            gradient_norm=stepped.gradient_norm,
            seconds=stepped.seconds,
            samples=update.samples * self.world.rank.of,
            tokens=tokens * self.world.rank.of,
            padding=1 - tokens / places,
            skipped=stepped.skipped,
            flops=flops * self.world.rank.of,
            mfu=self._mfu(flops, stepped),
            memory_gib=_memory_gib(self.world.device),
            gates=gate_values(self.model) if number % GATES_EVERY == 0 else {},
        )

    def _flops(self, stepped: Stepped) -> int:
        """Of this process."""
        return sum(
            sum(training_flops(self.model.config, micro.work, trained=self.parts).values())
            for micro in stepped.update.micro_batches
        )

    def _mfu(self, flops: int, stepped: Stepped) -> float | None:
        """Of this process' device, without what it waited for others to be done."""
        peak = _peak_flops(self.world.device)
        return None if peak is None else flops / (peak * sum(stepped.seconds.values()))


def _folder(recipe: TrainRecipe) -> Path | None:
    if recipe.watch is not None:
        return recipe.watch / recipe.stage_and_section[0]
    return None if "://" in recipe.folder else Path(recipe.folder, "watch")


def _peak_flops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


def _memory_gib(device: torch.device) -> float:
    """The most that was held at a time."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return getrusage(RUSAGE_SELF).ru_maxrss / 2**20
