"""Experiments over seeds, in a folder.

OUT/encoder/…                 the image encoder, where none was given
OUT/settings.json             what all figures in the folder were made with
OUT/names_seed_1.csv, …       figures
OUT/names.md, OUT/names.png   over all seeds that there are
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from demo.encoder import TrainEncoder
from demo.recipe import EncoderRecipe, VitRecipe
from model.open_clip_weights import config_of, read_weights
from pipeline.checksums import sha256_of_file
from pipeline.commits import Whole
from pipeline.errors import FingerprintMismatch, InputError, ShardFailed
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from trials.experiments.arms import Budget
from trials.experiments.report import cost_table, heading, plot, read_figures, table, write_figures
from trials.experiments.runs import Lab
from trials.experiments.setting import CONFIG, WEIGHTS, Setting

ENCODER = EncoderRecipe(vit=VitRecipe(), steps=1000, learning_rate=1e-3, threads=1)


@dataclass(frozen=True)
class Series:
    out: Path
    given_encoder: Path | None = None
    threads: int = 1
    budget: Budget = Budget()

    def measure(self, seed: int, experiments: Iterable[str]) -> None:
        """Those that the folder does not hold. Raises FingerprintMismatch where it holds others' figures."""
        missing = [name for name in experiments if not self._figures(name, seed).exists()]
        if not missing:
            return
        torch.set_num_threads(self.threads)
        self._refuse_other_settings()
        lab = Lab(Setting(seed, self.budget, self.encoder))
        for name in missing:
            write_figures(self._figures(name, seed), lab.run(name))

    def report(self, experiment: str) -> str:
        """The tables over all seeds that there are, which are also written, with the plot."""
        rows = read_figures(sorted(self.out.glob(f"{experiment}_seed_*.csv")))
        told = f"{heading(rows)}\n\n{table(rows)}\n{cost_table(rows)}"
        (self.out / f"{experiment}.md").write_text(told, encoding="utf-8")
        plot(rows, self.out / f"{experiment}.png")
        return told

    @cached_property
    def encoder(self) -> Path:
        """A folder that open_clip opens. Raises InputError where the one that was given holds no plain vision
        transformer, ShardFailed where training fails."""
        if self.given_encoder is not None:
            return _checked(self.given_encoder)
        stage = TrainEncoder(ENCODER)
        report = Run(str(self.out), [stage]).execute(LocalExecutor())
        if report.failed:
            raise ShardFailed(str(report))
        whole = Whole.open(str(self.out), stage.name)
        (shard,) = whole.shards
        return whole.read(shard).path("weights").parent

    def _figures(self, experiment: str, seed: int) -> Path:
        return self.out / f"{experiment}_seed_{seed}.csv"

    def _refuse_other_settings(self) -> None:
        settings = json.dumps({"budget": asdict(self.budget), "encoder": sha256_of_file(self.encoder / WEIGHTS)})
        path = self.out / "settings.json"
        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            path.write_text(settings, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != settings:
            raise FingerprintMismatch(
                f"{path} says {path.read_text(encoding='utf-8')}, and this run has {settings}. Take another folder: "
                "figures of two settings do not belong into one table"
            )


def _checked(encoder: Path) -> Path:
    try:
        read_weights(config_of(encoder / CONFIG), encoder / WEIGHTS)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error
    return encoder
