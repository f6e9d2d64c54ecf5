#!/usr/bin/env python
"""Url lists → pictures → CLIP scores → corpus → IVF-PQ index."""

import sys
from collections.abc import Sequence
from typing import Any

from pydantic import model_validator

from demo.encoder import TrainEncoder
from demo.recipe import DemoRecipe, EncoderRecipe, demo_server
from jobs.stats import show
from pipeline.commits import Whole, resolve_folder
from pipeline.errors import RecipeError, reporting_errors
from pipeline.progress import show_progress
from pipeline.recipe import dump_recipe, load_recipe, recipe_arguments
from pipeline.run import Base, Run, RunRecipe, executor_for
from pipeline.stage import Stage
from stages.download import Download, DownloadRecipe, check_urls
from stages.embed import OWN, Embed, EmbedRecipe
from stages.filter import THIS_RUN, FilterRecipe, filter_stages
from stages.index import IndexRecipe, QueryEncoder, Retriever, index_stages, refuse_below_floor
from stages.ingest import IngestRecipe, check_sources, ingest_stages, sample_urls
from stages.plan import PlanRecipe
from stages.report import tables, write_report

EXAMPLES = 5


class BuildIndexRecipe(RunRecipe):
    base: Base | None = None
    accept_failed: bool = False  # a shard that fails for good is rejected (shard_failed) when all others are made
    demo: DemoRecipe | None = None  # make and serve the demo's corpus while the job runs
    encoder: EncoderRecipe | None = None  # train a small encoder first; embed.model is then `encoder`
    ingest: IngestRecipe | None = None  # None: filter.inputs names finished runs; with both, `this` is among those
    download: DownloadRecipe = DownloadRecipe()
    embed: EmbedRecipe = EmbedRecipe()
    filter: FilterRecipe = FilterRecipe()
    index: IndexRecipe | None = IndexRecipe()  # null: the corpus is the end, such as of a set that is evaluated on
    plan: PlanRecipe | None = None  # for jobs/plan.py alone

    @model_validator(mode="after")
    def _sections_agree(self) -> "BuildIndexRecipe":
        inputs = self.filter.inputs
        if self.ingest is None and THIS_RUN in inputs:
            raise ValueError(f"filter.inputs has {THIS_RUN!r}, but this run fetches nothing: give ingest.sources")
        if not (inputs or self.ingest) or (inputs and self.ingest and THIS_RUN not in inputs):
            raise ValueError(
                "give either ingest.sources, or finished runs in filter.inputs, or both, and then "
                f"{THIS_RUN!r} among filter.inputs"
            )
        names = {source.name for source in self.ingest.lists} if self.ingest else set()
        unknown = sorted(self.filter.sources.keys() - names)
        if names and not inputs and unknown:
            raise ValueError(f"filter.sources.{unknown[0]} is no source; ingest.sources has {', '.join(sorted(names))}")
        if self.ingest and (self.embed.model == OWN) != (self.encoder is not None):
            raise ValueError(f"embed.model is {self.embed.model!r}: an encoder section goes with embed.model: {OWN}")
        return self

    def stages(self) -> list[Stage[Any]]:
        stages: list[Stage[Any]] = [TrainEncoder(self.encoder)] if self.encoder else []
        if self.ingest:
            stages += [*ingest_stages(self.ingest), Download(self.download), Embed(self.embed)]
        stages += filter_stages(self.filter, self.download, self.embed)
        return [*stages, *(index_stages(self.index) if self.index else [])]


@reporting_errors
def main(argv: Sequence[str]) -> int:
    given = recipe_arguments(__doc__).parse_args(argv)
    show_progress()
    recipe = load_recipe(BuildIndexRecipe, given.recipe, given.overrides)
    with demo_server(recipe.demo):
        faults = check_sources(recipe.ingest) if recipe.ingest else []
        if faults:
            raise RecipeError("\n".join(faults))
        if recipe.ingest and not crawled(recipe):
            told = check_urls(sample_urls(recipe.ingest, recipe.download.check_urls), recipe.download)
            print(told or "No url was tried beforehand.")
        executor = executor_for(recipe.engine, recipe.cpus)
        run = Run(recipe.root, recipe.stages(), recipe.base, dump_recipe(recipe), accept_failed=recipe.accept_failed)
        report = run.execute(executor)
    print(report)
    if report.exit_code == 0:
        if recipe.index:
            refuse_below_floor(Whole.open(recipe.root, "index_report"), recipe.index)
        say_what_was_made(recipe)
    return report.exit_code


def crawled(recipe: BuildIndexRecipe) -> bool:
    roots = [recipe.root, *([recipe.base.root] if recipe.base else [])]
    return any(resolve_folder(root, Download.name).manifest() for root in roots)


def say_what_was_made(recipe: BuildIndexRecipe) -> None:
    from demo.truth import expected_reasons_met, score_separation

    found = tables(recipe.root)
    show({title: found[title] for title in ("funnel", "losses", "recall")})
    if (
        recipe.demo and recipe.ingest and recipe.ingest.lists and not recipe.filter.inputs
    ):  # the truth is of whole lists
        separation = score_separation(recipe.root, recipe.demo.truth)
        met, expected = expected_reasons_met(recipe.root, recipe.demo.truth)
        print(
            f"Truth: the score separates mismatched captions with AUC {separation:.3f}; {met} of {expected} bad rows "
            "left for exactly the reason that they should.\n"
        )
    searched = search_examples(recipe.root) if recipe.index else ""
    print(f"""
Look next at
  {write_report(recipe.root)}
  python jobs/stats.py {recipe.root}{searched}
""")


def search_examples(root: str) -> str:
    """Print what the index finds for some captions → the command that asks for the last of them."""
    retriever = Retriever(root, direction="text")
    encoder = QueryEncoder.of(retriever.database)
    for example in range(min(EXAMPLES, retriever.database.size)):
        text = retriever.database.pair(example * retriever.database.size // EXAMPLES)["caption"]
        ids, similarity = retriever.search(encoder.texts([text]), 3)
        print(f"search: {text}")
        for pair, cosine in zip(retriever.pairs(ids[ids >= 0]), similarity[0], strict=False):
            print(f"  {cosine:.3f}  {pair['caption']}  ({pair['pair_id']})")
    return f'\n  python jobs/search.py {root} --text "{text}"'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
