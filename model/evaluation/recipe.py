"""The recipe's section `evaluation`: what a model is asked, with which examples, and how it answers."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.recipe import Section
from pipeline.run import LocalPath, Root
from stages.neighbors import Device


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers:
        raise ValueError("is empty; name one number at least")
    return tuple(sorted(set(numbers)))


Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_ascending)]
Positive = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_ascending)]


class EvaluationRecipe(Section):
    """A captioning set: a finished run of its pictures, one pair a caption, filtered by nothing."""

    pictures: Root
    domains: LocalPath | None = None  # a JSON in COCO's form whose images have a `domain` (NoCaps)
    shots: Numbers = (0,)  # examples with pictures in front of the question
    examples: Root | None = None  # of jobs/make_fewshot.py, for these pictures
    text_examples: Root | None = None  # a run of the train split: without shots, two captions stand in front
    neighbors: Numbers | None = None  # of every picture; None: as many as the model reads
    prompt: str = ""  # between a picture and its caption, such as "Output:"
    beams: int = Field(3, ge=1)
    length_penalty: float = Field(0.0, ge=0)
    new_tokens: Positive = (10, 20)  # at most; each is an answer of its own
    trained_on: tuple[Root, ...] = ()  # runs that are looked through for the pictures, beside the databases
    meteor: LocalPath | None = None  # meteor-1.5.jar; None: not computed
    spice: LocalPath | None = None  # spice-1.0.jar; None: not computed
    seed: int = Field(0, ge=0)  # of what is drawn: examples of text alone, samples of the bootstrap
    questions_per_shard: int = Field(500, ge=1)
    batch_size: int = Field(16, ge=1)  # questions; another size changes the last bits of the result
    device: Device = Field("auto", validate_default=True)
    cpus: int = Field(1, ge=1)  # of one worker; without a GPU the model computes with as many threads
    workers: int | None = Field(None, ge=1)  # None: as many as the cluster holds

    @model_validator(mode="after")
    def _has_examples(self) -> Self:
        if self.shots[-1] and self.examples is None:
            raise ValueError(
                f"shots asks for {self.shots[-1]} examples; name the root of jobs/make_fewshot.py in examples"
            )
        return self
