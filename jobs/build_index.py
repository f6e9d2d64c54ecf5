#!/usr/bin/env python
"""Url lists → pictures → CLIP scores → corpus → IVF-PQ index."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from demo.encoder import EncoderRecipe, TrainEncoder
from demo.recipe import DemoRecipe, demo_server
from pipeline.errors import PipelineError, RecipeError
from pipeline.executor import executor_for
from pipeline.progress import show_progress
from pipeline.recipe import Section, dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Base, Run
from pipeline.stage import Stage
from pipeline.storage import open_store
from stages.download import Download, DownloadRecipe
from stages.embed import OWN, Embed, EmbedRecipe
from stages.filter import FilterRecipe, filter_stages
from stages.index import IndexRecipe, index_stages
from stages.ingest import Count, IngestRecipe, Rows, check_sources


class BuildIndexRecipe(Section):
    root: str  # a folder or an fsspec url; on a cluster absolute and shared
    engine: Literal["ray", "local"] = "ray"
    cpus: int | None = Field(None, ge=1)  # of an embedded Ray; None: the machine's
    base: Base | None = None
    demo: DemoRecipe | None = None  # make and serve the demo's corpus while the job runs
    encoder: EncoderRecipe | None = None  # train a small encoder first; embed.model is then `encoder`
    ingest: IngestRecipe | None = None  # None: filter.inputs names finished runs
    download: DownloadRecipe = DownloadRecipe()
    embed: EmbedRecipe = EmbedRecipe()
    filter: FilterRecipe = FilterRecipe()
    index: IndexRecipe = IndexRecipe()

    @model_validator(mode="after")
    def _sections_agree(self) -> "BuildIndexRecipe":
        if (self.ingest is None) == (not self.filter.inputs):
            raise ValueError("give either ingest.sources, or finished runs in filter.inputs")
        names = {source.name for source in self.ingest.sources} if self.ingest else set()
        unknown = sorted(self.filter.sources.keys() - names)
        if self.ingest and unknown:
            raise ValueError(f"filter.sources.{unknown[0]} is no source; ingest.sources has {', '.join(sorted(names))}")
        if self.ingest and (self.embed.model == OWN) != (self.encoder is not None):
            raise ValueError(f"embed.model is {self.embed.model!r}: an encoder section goes with embed.model: {OWN}")
        if os.environ.get("RAY_ADDRESS") and "://" not in self.root and not os.path.isabs(self.root):
            raise ValueError(
                f"root {self.root!r} is relative, and a cluster job runs in a temporary folder: give root=/…"
            )
        return self

    def stages(self) -> list[Stage[Any]]:
        stages: list[Stage[Any]] = [TrainEncoder(self.encoder)] if self.encoder else []
        if self.ingest:
            stages += [Count(self.ingest), Rows(self.ingest), Download(self.download), Embed(self.embed)]
        return [*stages, *filter_stages(self.filter), *index_stages(self.index)]


def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    try:
        recipe = load_recipe(BuildIndexRecipe, given.recipe, given.overrides)
        with demo_server(recipe.demo):
            faults = check_sources(recipe.ingest) if recipe.ingest else []
            if faults:
                raise RecipeError("\n".join(faults))
            open_store(recipe.root).create("recipe.yaml", dump_recipe(recipe).encode())
            executor = executor_for(recipe.engine, recipe.cpus)
            report = Run(recipe.root, recipe.stages(), recipe.base).execute(executor)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
