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
    """A residual network and a text transformer, both in open_clip's own form.

    The defaults take 175 CPU seconds. What is learned in that time is place, colour and, less well, number, but hardly
    shape and texture. Of 500 captions a picture's own one comes first for three fifths of the pictures; with a vision
    transformer of 64 patches (3 layers of width 128), for a fifth.
    """

    seed: int = 1
    steps: int = Field(270, ge=1)
    batch: int = Field(64, ge=2)  # pairs a step, no caption twice
    learning_rate: float = Field(2e-3, gt=0)  # at its highest
    width: int = Field(128, multiple_of=8)  # of the text tower, and of the embedding
    image_px: int = Field(64, ge=32, multiple_of=32)
    image_width: int = Field(32, multiple_of=2)  # channels after the first convolutions; 32 times as many at the end
    text_layers: int = 2
    text_heads: int = 4
    context: int = Field(32, ge=8)  # tokens; the demo's captions have 14 at most
    threads: int = Field(2, ge=1)

    def open_clip_config(self) -> dict[str, Json]:
        return {
            "model_cfg": {
                "embed_dim": self.width,
                "vision_cfg": {
                    "image_size": self.image_px,
                    "layers": [1, 1, 1, 1],
                    "width": self.image_width,
                    "head_width": 64,
                },
                "text_cfg": {
                    "context_length": self.context,
                    "vocab_size": CLIP_VOCABULARY,
                    "width": self.width,
                    "heads": self.text_heads,
                    "layers": self.text_layers,
                },
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
