"""The recipe's `neighbors` section: where to look for neighbours, how many to keep, and how hard to look."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.recipe import Section
from pipeline.run import Root

EngineName = Literal["exact", "index"]


def _decide_device(device: str) -> str:
    if device == "auto":
        return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    return device


Device = Annotated[Literal["auto", "cpu", "cuda"], AfterValidator(_decide_device)]
"""auto: cuda where the machine that reads the recipe has a GPU."""


class NeighborsRecipe(Section):
    """Candidates are asked for k + over_fetch at a time; a query that loses more than over_fetch of them to the leakage
    rules is asked once more, to `depth`, and what it lacks then is its shortfall."""

    databases: tuple[Root, ...] = ()  # roots of indexes, or of corpora without one; none: the corpus itself
    k: int = Field(10, ge=1)
    over_fetch: int = Field(20, ge=0)
    depth: int = Field(1000, ge=1)
    engine: Literal["auto", "exact", "index"] = "auto"  # auto: the cheaper by modelled cost (engines.py)
    device: Device = Field(default="auto", validate_default=True)
    queries_per_task: int | None = Field(None, ge=1)  # None: by engine and device

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.depth < self.first_count:
            raise ValueError(
                f"depth is {self.depth}, and k + over_fetch = {self.first_count} candidates are looked at anyway: set "
                f"depth ≥ {self.first_count}"
            )
        return self

    @property
    def first_count(self) -> int:
        """Candidates that every query is given."""
        return self.k + self.over_fetch
