"""Whose vectors a model's neighbours were found by. A checkpoint says so: by those of another encoder other pairs are
near, and the model would read what it did not learn to read."""

from collections.abc import Iterable

from model.training.recipe import SourceRecipe
from stages.filter import CorpusReader
from stages.index import model_of
from stages.interleave import SampleReader

Encoder = tuple[str, str]
"""A model and its weights, as stages.index.model_of tells them."""


def key_encoders(sources: Iterable[SourceRecipe]) -> list[Encoder]:
    """Of those that say it: a source's neighbours lie among vectors that its own corpus' can be compared with.

    Raises InputError where a corpus is not whole.
    """
    return encoders_of(corpus for source in sources for corpus in _corpora(source))


def encoders_of(corpora: Iterable[CorpusReader]) -> list[Encoder]:
    found = {model_of(run) for corpus in corpora for run in corpus.roots}
    return sorted(each for each in found if each is not None)


def _corpora(source: SourceRecipe) -> list[CorpusReader]:
    if source.samples is not None:
        return SampleReader(source.samples).corpora
    assert source.corpus is not None, "the recipe says corpus or samples"
    return [CorpusReader(source.corpus)]
