"""The recipe's section `evaluation`: what a model is asked, with which examples, and how it answers."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from model.evaluation.choices import ChoicesRecipe
from pipeline.recipe import Section
from pipeline.run import LocalPath, Root
from stages.neighbors import Device


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if not numbers:
        raise ValueError("is empty; name one number at least")
    return tuple(sorted(set(numbers)))


Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_ascending)]
Positive = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_ascending)]


def _with_a_question(template: str) -> str:
    if template.count("{question}") != 1:
        raise ValueError("should have one {question}")
    return template


class VqaRecipe(Section):
    """Files in VQAv2's form, about pictures whose image_id they name."""

    questions: LocalPath
    annotations: LocalPath
    example_questions: LocalPath | None = None  # of the train split, where examples are shown
    example_annotations: LocalPath | None = None
    template: Annotated[str, AfterValidator(_with_a_question)] = "Question: {question} Answer:"


class EvaluationRecipe(Section):
    """pictures: a finished run of a captioning set, one pair a caption, filtered by nothing. A picture is asked for its
    caption; with vqa, what the questions there ask; with choices, which of some given answers is true: of the classes,
    the captions being their names, or with vqa of a question's multiple_choices."""

    pictures: Root
    domains: LocalPath | None = None  # a JSON in COCO's form whose images have a `domain` (NoCaps)
    vqa: VqaRecipe | None = None
    choices: ChoicesRecipe | None = None
    classes: tuple[str, ...] | None = None  # of choices without vqa; None: those of the set
    shots: Numbers = (0,)  # examples with pictures in front of the question
    examples: Root | None = None  # of jobs/make_fewshot.py, for these pictures
    text_examples: Root | None = None  # a run of the train split: without shots, two captions stand in front
    neighbors: Numbers | None = None  # of every picture; None: as many as the model reads
    other_encoder: bool = False  # databases may have other keys than those that a model was trained with
    prompt: str = ""  # between a picture and its caption or class, such as "Output:"
    beams: int = Field(3, ge=1)
    length_penalty: float = Field(0.0, ge=0)
    cut: tuple[str, ...] = ("\n", "Output", "Question")  # an answer ends in front of the first of these
    new_tokens: Positive = (10, 20)  # at most; each is an answer of its own
    trained_on: tuple[Root, ...] = ()  # runs that are looked through for the pictures, beside the databases
    meteor: LocalPath | None = None  # meteor-1.5.jar; None: not computed
    spice: LocalPath | None = None  # spice-1.0.jar; None: not computed
    seed: int = Field(0, ge=0)  # of what is drawn: examples of text alone, samples of the bootstrap
    questions_per_shard: int = Field(500, ge=1)  # another number makes other batches
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
        shown = self.shots[-1] or self.text_examples is not None
        if shown and self.vqa and not (self.vqa.example_questions and self.vqa.example_annotations):
            raise ValueError("examples are shown: name vqa.example_questions and vqa.example_annotations")
        return self
