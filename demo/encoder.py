"""The stage that trains the demo's own small CLIP, so that a run needs no weights from anywhere.

Reads   nothing: its scenes are drawn as it goes
Writes  config and weights (in one folder, which open_clip opens as local-dir:FOLDER), report (how good it is)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from pipeline.commits import Whole
from pipeline.recipe import Json, Section
from pipeline.stage import Counts, Input, Plan, Resources, Shard, Stage, shard_id
from pipeline.writer import ShardWriter, Task

CLIP_VOCABULARY = 49408  # tokens of CLIP's own tokenizer, which is part of open_clip


class EncoderRecipe(Section):
    """The defaults take about 150 CPU seconds."""

    seed: int = 1
    steps: int = Field(90, ge=1)
    batch: int = Field(250, ge=2)  # pairs a step, no caption twice
    learning_rate: float = Field(2e-3, gt=0)  # at its highest
    image_px: int = 64
    patch_px: int = 8
    context: int = Field(32, ge=8)  # tokens; the demo's captions have 14 at most
    width: int = 128  # of both towers, and of the embedding
    heads: int = 4
    image_layers: int = 3
    text_layers: int = 2
    threads: int = Field(2, ge=1)

    def open_clip_config(self) -> dict[str, Json]:
        vision = {"image_size": self.image_px, "patch_size": self.patch_px, "head_width": self.width // self.heads}
        text = {"context_length": self.context, "vocab_size": CLIP_VOCABULARY, "heads": self.heads}
        return {
            "model_cfg": {
                "embed_dim": self.width,
                "vision_cfg": vision | {"width": self.width, "layers": self.image_layers},
                "text_cfg": text | {"width": self.width, "layers": self.text_layers},
            },
            "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
        }


@dataclass(frozen=True)
class TrainEncoder(Stage[None]):
    recipe: EncoderRecipe
    name, version = "encoder", 1

    @property
    def inputs(self) -> Sequence[Input]:
        return ()

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.recipe.threads, memory_gib=2, threads=self.recipe.threads)

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump()

    def plan(self, whole: Mapping[str, Whole]) -> Plan:
        return Plan([Shard(shard_id(0))])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        from demo.contrastive import train
        from demo.encoder_report import report

        config = out.file("config", "{stem}/open_clip_config.json")
        config.write_text(json.dumps(self.recipe.open_clip_config(), indent=1) + "\n", encoding="utf-8")
        trained = train(self.recipe, config)
        trained.save(out.file("weights", "{stem}/open_clip_model.safetensors"))
        out.json("report", "report_{stem}.json", report(trained, self.recipe.seed))
        return Counts(rows_in=0, rows_out=0, metrics={"train_s": trained.seconds})
