"""What is asked of an encoder."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.recipe import Section
from pipeline.run import Root


def _with_a_place(templates: tuple[str, ...]) -> tuple[str, ...]:
    without = [template for template in templates if template.count("{}") != 1]
    if without:
        raise ValueError(f"every template should have one {{}}, where the name of a class goes; {without} have not")
    return templates


def _different(classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    repeated = len(classes or ()) - len(set(classes or ()))
    if repeated:
        raise ValueError(f"every class should stand there once; {repeated} stand there again")
    return classes


class EncoderEvaluationRecipe(Section):
    """In retrieval every pair's caption asks for its picture, and every picture for one of its captions; in
    classification every pair's caption is the name of its picture's class."""

    pictures: Root  # root of a run whose corpus is the evaluation set; its encoder is what is evaluated
    tasks: tuple[Literal["retrieval", "classification"], ...] = Field(("retrieval",), min_length=1)
    # the classes to choose from, at least those of the set; None: those
    classes: Annotated[tuple[str, ...] | None, AfterValidator(_different)] = Field(None, min_length=2)
    # in which a class is named; their embeddings are averaged
    templates: Annotated[tuple[str, ...], AfterValidator(_with_a_place)] = Field(("a photo of a {}.",), min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where names are embedded
