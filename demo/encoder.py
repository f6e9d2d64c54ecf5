"""The stage that trains the demo's own small CLIP, so that a run needs no weights from anywhere.

Reads   nothing: its scenes are drawn as it goes
Writes  config and weights (in one folder, which open_clip opens as local-dir:FOLDER), report (how good it is)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from demo.recipe import EncoderRecipe
from pipeline.recipe import Json
from pipeline.stage import Counts, Resources, Stage
from pipeline.writer import ShardWriter, Task


@dataclass(frozen=True)
class TrainEncoder(Stage[None]):
    recipe: EncoderRecipe
    name, version = "encoder", 1

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.recipe.threads, memory_gib=2, threads=self.recipe.threads)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(exclude_none=True)

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        from demo.contrastive import train
        from demo.encoder_report import report

        config = out.file("config", "{stem}/open_clip_config.json")
        config.write_text(json.dumps(self.recipe.open_clip_config(), indent=1) + "\n", encoding="utf-8")
        trained = train(self.recipe, config)
        trained.save(out.file("weights", "{stem}/open_clip_model.safetensors"))
        out.json("report", "report_{stem}.json", report(trained, self.recipe.seed))
        return Counts(rows_in=0, rows_out=0, metrics={"train_s": trained.seconds})
