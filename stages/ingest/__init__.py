"""From lists of pairs (TSV, csv, JSON, parquet, tars) to numbered, checked url shards of one schema."""

from typing import Any

from pipeline.stage import Stage
from stages.ingest.count import Count, read_counts
from stages.ingest.duplicates import Duplicates
from stages.ingest.keys import Keys
from stages.ingest.origins import source_lists
from stages.ingest.recipe import IngestRecipe
from stages.ingest.rows import Rows
from stages.ingest.sample import sample_urls
from stages.ingest.second_pass import SecondPass, check_first_pass
from stages.ingest.sources import check_lists

__all__ = ["Count", "IngestRecipe", "check_sources", "ingest_stages", "read_counts", "sample_urls", "source_lists"]


def check_sources(recipe: IngestRecipe) -> list[str]:
    """Every fault of what the recipe reads: which file or root, what was found, what to change."""
    return check_first_pass(recipe.second_pass) if recipe.second_pass else check_lists(recipe)


def ingest_stages(recipe: IngestRecipe) -> list[Stage[Any]]:
    """In order; the last one writes the url shards that download reads."""
    if recipe.second_pass:
        return [SecondPass(recipe.second_pass, recipe.shard_size)]
    duplicates = [Keys(recipe), Duplicates()] if recipe.duplicates == "drop" else []
    return [Count(recipe), *duplicates, Rows(recipe)]
