"""The data of a stage, as its recipe names it."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice

from model.config import ReViLMConfig
from model.training.recipe import TrainRecipe
from model.training.samples import Sample, Unusable
from model.training.sources import DOCUMENT, Opened, Reads, Split, open_sources

Opening = Callable[[], dict[str, Opened]]
"""Travels to the loader's processes, where it opens what they read from."""


def opening_of(recipe: TrainRecipe, config: ReViLMConfig, *, held_out: bool = False) -> Opening:
    """held_out: of the pairs that are never learned, instead of the others."""
    stage, section = recipe.stage_and_section
    split = Split(recipe.held_out.share, "the held out" if held_out else "the others")
    image_size = config.vision.encoder.image_size if config.vision else None
    if stage == "language":
        reads = Reads(DOCUMENT - 1, image_size, split, fewer_will_do=True)
        return partial(open_sources, section.sources, reads, "documents")
    k = config.retrieval.neighbors if config.retrieval.mode != "none" else 0
    return partial(open_sources, section.sources, Reads(k, image_size, split), "samples")


def identities(opened: Mapping[str, Opened]) -> dict[str, dict[str, str]]:
    return {name: source.identity for name, source in opened.items()}


def usable_samples(source: Opened) -> Iterator[Sample]:
    """In the order in which they are stored, pictures and all."""
    for shard, rows in enumerate(source.sizes):
        for row in range(rows):
            try:
                yield source.sample(shard, row)
            except Unusable:
                continue


def held_out_samples(recipe: TrainRecipe, config: ReViLMConfig) -> list[Sample]:
    """The first of the first source; the same ones at every evaluation."""
    if not recipe.held_out.share:
        return []
    first = next(iter(opening_of(recipe, config, held_out=True)().values()))
    return list(islice(usable_samples(first), recipe.held_out.samples))


def captions(opening: Opening) -> Iterator[str]:
    """That are learned, for a tokenizer; source after source."""
    for source in opening().values():
        for sample in usable_samples(source):
            yield sample.chunks[-1].text
