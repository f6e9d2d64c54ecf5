"""The recipe of jobs/train.py: one model, and a section for each stage of its training."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from model.training.encoders import EncoderRecipe
from pipeline.errors import RecipeError
from pipeline.recipe import Section
from pipeline.run import LocalPath, Root

StageName = Literal["language", "retrofit", "pretrain", "finetune"]
STAGES: tuple[StageName, ...] = ("language", "retrofit", "pretrain", "finetune")


class ModelRecipe(Section):
    preset: str = "base"  # of model.presets
    mode: Literal["none", "cross", "prefix"] = "cross"
    language_model: LocalPath | None = None  # a Hugging Face folder; None: stage `language` trains one
    image_encoder: EncoderRecipe | None = None
    vocab_size: int = Field(1024, ge=257, le=1024)  # of the tokenizer that stage `language` trains
    neighbors: int = Field(2, ge=1)  # k
    caption_tokens: int = Field(64, ge=2)  # m: of a neighbour's caption, with its end
    neighbor_token_dropout: float = Field(0.0, ge=0, lt=1)
    prefix_loss: float = Field(0.0, ge=0)


class SourceRecipe(Section):
    """A corpus with its neighbours, or five-pair samples, which hold theirs."""

    corpus: Root | None = None
    neighbors: Root | None = None  # of the corpus' pairs; modes other than none need them
    samples: Root | None = None
    patches: tuple[Root, ...] = ()  # roots of cached patch tokens, of every corpus that pictures come from
    batch: int = Field(256, ge=1)  # samples an update, of all workers
    weight: float = Field(1.0, gt=0)  # of its loss
    learn: Literal["all", "query"] = "all"  # of five pairs: every caption, or the query's

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.corpus is None) == (self.samples is None):
            raise ValueError("say either corpus or samples")
        if self.samples is not None and self.neighbors is not None:
            raise ValueError("samples hold their neighbours (interleave.neighbors); neighbors belongs to a corpus")
        return self


class StageRecipe(Section):
    sources: Mapping[str, SourceRecipe]
    start: Root | None = None  # the root of the stage before; None: this one
    updates: int = Field(10_000, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warm_up: int = Field(100, ge=0)  # updates
    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    micro_batch: int = Field(32, ge=1)  # samples that a worker computes at a time
    rows: Literal["packed", "buckets"] = "buckets"
    row_tokens: int = Field(64, ge=8)  # of a packed row
    text_tokens: int = Field(64, ge=1)  # of a caption; a longer one is cut
    precision: Literal["fp32", "bf16"] = "fp32"
    recompute: Literal["none", "layers"] = "none"
    compiled: bool = False
    image_size: int | None = None  # px, of finetune; None: as in pretrain
    train_retro: bool = False  # of pretrain: the retrieval layers too
    patience: int | None = Field(None, ge=1)  # evaluations without a better CIDEr-D, after which the stage ends
    checkpoint_every: int = Field(500, ge=1)  # updates
    evaluate_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)  # checkpoints: the last ones, beside the best

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not self.sources:
            raise ValueError("sources is empty; name one at least")
        return self


class HeldOutRecipe(Section):
    """Pairs that are never learned, by a hash of their pair_id; whatever watches the training looks at them."""

    share: float = Field(0.01, ge=0, lt=0.5)
    samples: int = Field(256, ge=8)  # so many of them at every evaluation
    captioned: int = Field(64, ge=8)  # of which so many are given a caption


def _workers(given: int | tuple[int, int]) -> int | tuple[int, int]:
    least, most = given if isinstance(given, tuple) else (given, given)
    if not 1 <= least <= most:
        raise ValueError("allowed is a number ≥ 1, or [fewest, most] for a number that follows the cluster")
    return given


class TrainRecipe(Section):
    note: str = ""
    root: Root  # a folder for each stage: checkpoints, and what is watched
    watch: LocalPath | None = None  # where the latter goes otherwise; a root that is a url has no place for it
    stage: StageName | None = None
    engine: Literal["ray", "local"] = "ray"
    cpus: int | None = Field(None, ge=1)  # of an embedded Ray; None: the machine's
    workers: Annotated[int | tuple[int, int], AfterValidator(_workers)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU a worker where there are any as training begins
    threads: int = Field(1, ge=1)  # CPUs of a worker without a GPU
    sharding: Literal["replicated", "fsdp"] = "replicated"
    processes: int = Field(0, ge=0)  # of a worker, that make batches ahead
    failures: int = Field(3, ge=0)  # lost workers that a run survives
    seed: int = Field(0, ge=0)
    model: ModelRecipe = ModelRecipe()
    held_out: HeldOutRecipe = HeldOutRecipe()
    language: StageRecipe | None = None
    retrofit: StageRecipe | None = None
    pretrain: StageRecipe | None = None
    finetune: StageRecipe | None = None

    @model_validator(mode="after")
    def _patient_with_something(self) -> Self:
        for name in STAGES:
            section: StageRecipe | None = getattr(self, name)
            if section is not None and section.patience and not self.held_out.share:
                raise ValueError(f"{name}.patience counts evaluations, and held_out.share is 0, so that there is none")
        return self

    @model_validator(mode="after")
    def _each_in_its_stage(self) -> Self:
        for name in STAGES:
            section: StageRecipe | None = getattr(self, name)
            if section is not None and section.image_size is not None and name != "finetune":
                raise ValueError(
                    f"{name}.image_size belongs to finetune; before it, set model.image_encoder.image_size"
                )
            if section is not None and section.train_retro and name != "pretrain":
                raise ValueError(f"{name}.train_retro belongs to pretrain; retrofit and finetune train those layers")
        return self

    @property
    def stage_and_section(self) -> tuple[StageName, StageRecipe]:
        """Raises RecipeError where no stage is chosen, or it has no section."""
        said = [name for name in STAGES if getattr(self, name) is not None]
        if self.stage is None:
            raise RecipeError(f"say which stage to train: stage=… (the recipe has {', '.join(said) or 'none'})")
        section: StageRecipe | None = getattr(self, self.stage)
        if section is None:
            raise RecipeError(f"the recipe has no section {self.stage}; it has {', '.join(said) or 'none'}")
        return self.stage, section

    @property
    def folder(self) -> str:
        """Of the stage."""
        return f"{self.root.rstrip('/')}/{self.stage_and_section[0]}"

    @property
    def mode(self) -> Literal["none", "cross", "prefix"]:
        """Of the stage's model. Raises RecipeError for a retrofit of anything but cross."""
        stage, _ = self.stage_and_section
        if stage == "retrofit" and self.model.mode != "cross":
            raise RecipeError(
                f"retrofit trains layers that model.mode=cross alone has, and it is {self.model.mode}: "
                "after language comes stage=pretrain"
            )
        return "none" if stage == "language" else self.model.mode
