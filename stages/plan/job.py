"""What a plan is made of: the recipe's sections that say how much there is to do, and the stages that do it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.run import Base
from pipeline.stage import Stage
from stages.download import DownloadRecipe
from stages.embed import EmbedRecipe
from stages.filter import FilterRecipe
from stages.index import IndexRecipe
from stages.ingest import IngestRecipe
from stages.plan.recipe import PlanRecipe


@dataclass(frozen=True)
class Job:
    """width: of the encoder that the run trains itself; None: the model is open_clip's."""

    root: str
    stages: Sequence[Stage[Any]]
    plan: PlanRecipe = PlanRecipe()
    ingest: IngestRecipe | None = None
    download: DownloadRecipe = DownloadRecipe()
    embed: EmbedRecipe = EmbedRecipe()
    filter: FilterRecipe = FilterRecipe()
    index: IndexRecipe = IndexRecipe()
    base: Base | None = None
    width: int | None = None
