"""Which pairs are good enough, which show the same picture, and the corpus that is left (Re-ViLM §4.1)."""

from typing import Any

from pipeline.stage import Stage
from stages.filter.corpus import Corpus
from stages.filter.corpus_reader import CorpusReader, CorpusShard
from stages.filter.duplicates import Duplicates
from stages.filter.exclusions import Exclusions
from stages.filter.judge import Judge
from stages.filter.normal_form import normalised
from stages.filter.recipe import FilterRecipe, Thresholds
from stages.filter.same_picture import SAME_IMAGE_COSINE
from stages.filter.text_rules import TextRules

__all__ = [
    "SAME_IMAGE_COSINE",
    "Corpus",
    "CorpusReader",
    "CorpusShard",
    "Duplicates",
    "FilterRecipe",
    "Judge",
    "TextRules",
    "Thresholds",
    "filter_stages",
    "normalised",
]


def filter_stages(recipe: FilterRecipe) -> list[Stage[Any]]:
    """In order. Raises RecipeError where the list of exclusions cannot be read: once, here, so no worker needs it."""
    judge = Judge(recipe, Exclusions.load(recipe.exclude))
    duplicates = [Duplicates(recipe)] if recipe.duplicates == "drop" else []
    return [judge, *duplicates, Corpus(recipe)]
