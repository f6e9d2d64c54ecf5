"""The recipe of jobs/results.py: three captioning sets, a model and its training, and what is asked of it."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from demo.recipe import EncoderRecipe, WorldRecipe
from model.training.recipe import HeldOutRecipe, ModelRecipe
from pipeline.recipe import Section
from pipeline.run import LocalPath, RunRecipe
from stages.download import DownloadRecipe
from stages.embed import OWN, EmbedRecipe
from stages.index import IndexRecipe
from stages.ingest import IngestRecipe
from stages.interleave import InterleaveRecipe
from stages.neighbors import Device

Mode = Literal["none", "prefix", "cross"]
MODES: tuple[Mode, ...] = ("none", "prefix", "cross")
DATABASES = ("own", "other", "both")


def _each_once(given: tuple[Mode, ...]) -> tuple[Mode, ...]:
    return tuple(mode for mode in MODES if mode in given)


def _ascending(given: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(given)))


class Course(Section):
    """One stage of training. An update has so many pairs, and so many samples of five, of own."""

    updates: int = Field(ge=1)
    pairs: int = Field(32, ge=1)
    fives: int = Field(0, ge=0)  # of pretrain alone
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: int = Field(20, ge=0)  # updates
    micro_batch: int = Field(32, ge=1)
    rows: Literal["packed", "buckets"] = "buckets"
    precision: Literal["fp32", "bf16"] = "fp32"
    evaluate_every: int = Field(10_000, ge=1)


class TrainingRecipe(Section):
    """Alike for all arms but for the mode. language: None where model.language_model is a folder."""

    model: ModelRecipe = ModelRecipe()  # its mode is each arm's own
    language: Course | None = None
    retrofit: Course  # of mode cross alone
    pretrain: Course
    held_out: HeldOutRecipe = HeldOutRecipe(share=0.02, samples=128, captioned=8)  # pairs of own, looked at in the end
    threads: int = Field(1, ge=1)  # of one training
    device: Device = Field("auto", validate_default=True)

    @model_validator(mode="after")
    def _begins_somewhere(self) -> Self:
        if (self.language is None) == (self.model.language_model is None):
            raise ValueError("say either language, which trains a language model, or model.language_model, a folder")
        return self


class AskedRecipe(Section):
    """How the models are asked: as in model.evaluation.recipe, which says what each means."""

    prompt: str = ""
    beams: int = Field(3, ge=1)
    length_penalty: float = Field(0.0, ge=0)
    new_tokens: tuple[PositiveInt, ...] = (10, 20)
    seed: int = Field(0, ge=0)
    questions_per_shard: int = Field(5000, ge=1)  # pictures; with no fewer than there are, a cell is one shard
    batch_size: int = Field(16, ge=1)
    cpus: int = Field(1, ge=1)
    workers: int | None = Field(None, ge=1)


class ResultsRecipe(RunRecipe):
    """own is what the models are trained on, other a second source, test what is captioned: lists of pairs, as ingest
    reads them; or `world`, which draws all three.

    root is a folder of runs: what every step makes stays there, and the same command goes on where it stood.
    """

    seeds: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_ascending)] = (1, 2, 3)
    modes: Annotated[tuple[Mode, ...], Field(min_length=1), AfterValidator(_each_once)] = MODES
    shots: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1), AfterValidator(_ascending)] = (0, 4)
    world: WorldRecipe | None = None
    own: IngestRecipe | None = None
    other: IngestRecipe | None = None
    test: IngestRecipe | None = None
    encoder: EncoderRecipe | None = None  # of the demo, trained first; embed.model is then `encoder`
    tower: EncoderRecipe | None = None  # of the demo, what the models see with, in place of model.image_encoder
    download: DownloadRecipe = DownloadRecipe()
    embed: EmbedRecipe = EmbedRecipe()
    shard_rows: int = Field(10_000, ge=1)  # of a corpus
    index: IndexRecipe = IndexRecipe()
    cache_patches: bool = True  # of own's pictures; else they are encoded whenever they are learned from
    neighbors: int = Field(10, ge=1)  # stored of every training pair; a model reads training.model.neighbors
    interleave: InterleaveRecipe = InterleaveRecipe()
    training: TrainingRecipe
    asked: AskedRecipe = AskedRecipe()
    domains: LocalPath | None = None  # of the test pictures: a JSON in COCO's form whose images have a `domain`

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if "://" in self.root:
            raise ValueError(f"root is {self.root}, and trainings are watched in it: give a folder")
        lists = [self.own, self.other, self.test]
        if (self.world is None) == (None in lists) or (self.world is not None and any(lists)):
            raise ValueError("say either world, which draws all lists, or own, other and test, the lists themselves")
        if (self.embed.model == OWN) != (self.encoder is not None):
            raise ValueError(f"embed.model is {self.embed.model!r}: an encoder section goes with embed.model: {OWN}")
        if self.interleave.neighbors is not None:
            raise ValueError("interleave.neighbors is found by this job; leave it out")
        if (self.tower is None) == (self.training.model.image_encoder is None):
            raise ValueError("say what the models see with: tower, which is trained, or training.model.image_encoder")
        return self

    def place(self, name: str) -> str:
        """Of one of the runs."""
        return f"{self.root.rstrip('/')}/{name}"
