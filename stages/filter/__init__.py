"""Which pairs are good enough, which show the same picture, and the corpus that is left (Re-ViLM §4.1)."""

from typing import Any

from pipeline.stage import Stage
from stages.download import DownloadRecipe
from stages.embed import EmbedRecipe
from stages.filter.corpus import Corpus
from stages.filter.corpus_reader import CorpusReader, CorpusShard
from stages.filter.duplicates import Duplicates
from stages.filter.evaluation_sets import EvaluationSets, evaluation_stage
from stages.filter.exclusions import Exclusions
from stages.filter.judge import Judge
from stages.filter.normal_form import normalised
from stages.filter.recipe import THIS_RUN, FilterRecipe, Placeholders, Thresholds
from stages.filter.same_picture import SAME_IMAGE_COSINE
from stages.filter.text_rules import TextRules

__all__ = [
    "SAME_IMAGE_COSINE",
    "THIS_RUN",
    "Corpus",
    "CorpusReader",
    "CorpusShard",
    "Duplicates",
    "EvaluationSets",
    "FilterRecipe",
    "Judge",
    "Placeholders",
    "TextRules",
    "Thresholds",
    "filter_stages",
    "normalised",
]


def filter_stages(
    recipe: FilterRecipe, download: DownloadRecipe | None = None, embed: EmbedRecipe | None = None
) -> list[Stage[Any]]:
    """In order. download, embed: how the run makes its pairs, for evaluation sets; None: by default.

    Raises RecipeError where the list of exclusions cannot be read, InputError where an evaluation set cannot: once,
    here, so that no worker needs the list, and nothing is begun in vain.
    """
    made = (download or DownloadRecipe(), embed or EmbedRecipe())
    evaluation = [evaluation_stage(recipe, *made)] if recipe.evaluation_sets else []
    judge = Judge(recipe, Exclusions.load(recipe.exclude))
    duplicates = [Duplicates(recipe)] if recipe.compares_pictures else []
    return [*evaluation, judge, *duplicates, Corpus(recipe)]
