"""Samples of five pairs: every pair with four whose images lie in a band of distances from its own and whose captions
are most similar to its own (Re-ViLM §4.2).

Reads   one corpus or several; neighbours of one, where interleave.neighbors names them
Writes  interleave_keys: what tells equal pictures and captions · interleave_probe: some queries against all pairs ·
        interleave_gate: the band, seen and let pass · interleave_mine: the supports of every pair ·
        interleave_neighbors: the neighbours, by row · interleaved: the samples, and their pictures in tars ·
        interleave_report: figures, plots, and samples to look at
Or      fewshot_keys, fewshot: evaluation sets of few shots, with supports chosen so or by image or at random
"""

from collections.abc import Sequence
from typing import Any

from pipeline.stage import Stage
from stages.interleave.corpora import Corpora, InterleaveKeys, check
from stages.interleave.fewshot import Fewshot, FewshotKeys, check_splits
from stages.interleave.fewshot_reader import FewshotReader
from stages.interleave.gate import InterleaveGate
from stages.interleave.mine import InterleaveMine
from stages.interleave.neighbors import InterleaveNeighbors, stored_neighbors
from stages.interleave.probe import InterleaveProbe
from stages.interleave.reader import SampleReader
from stages.interleave.recipe import FewshotRecipe, InterleaveRecipe
from stages.interleave.report import InterleaveReport
from stages.interleave.samples import Interleaved

__all__ = ["FewshotReader", "FewshotRecipe", "InterleaveRecipe", "SampleReader", "fewshot_stages", "interleave_stages"]


def interleave_stages(recipe: InterleaveRecipe, roots: Sequence[str]) -> list[Stage[Any]]:
    """In the order in which they run. roots: of the runs whose corpora are mined.

    Raises InputError or RecipeError where a corpus is not finished, cannot be compared with the others, or holds fewer
    pairs than a sample needs; or where neighbours are asked for that are not finished, or not those of the one corpus.
    """
    corpora = Corpora.of(roots)
    check(corpora, recipe.supports)
    stored = stored_neighbors(recipe.neighbors, corpora) if recipe.neighbors else ()
    return [
        InterleaveKeys(corpora.inputs),
        InterleaveProbe(corpora, recipe),
        InterleaveGate(recipe),
        InterleaveMine(corpora, recipe),
        *([InterleaveNeighbors(stored)] if stored else []),
        Interleaved(corpora, recipe, stored),
        InterleaveReport(corpora, recipe),
    ]


def fewshot_stages(recipe: FewshotRecipe, supports: Sequence[str], queries: str) -> list[Stage[Any]]:
    """In the order in which they run. supports: roots of runs of the train split; queries: of the test split.

    Raises InputError where a corpus is not finished, cannot be compared with the others, or is both.
    """
    corpora = Corpora.of([*supports, queries])
    check_splits(corpora)
    return [FewshotKeys(corpora.inputs), Fewshot(corpora, recipe)]
