"""The data of a stage, as its recipe names it."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice

from torch import Tensor

from model.config import ReViLMConfig
from model.sequence import SequenceBuilder
from model.training.recipe import TrainRecipe
from model.training.samples import Sample, Unusable
from model.training.sources import DOCUMENT, Opened, Reads, Split, open_sources
from model.training.updates import segment_of

Opening = Callable[[], dict[str, Opened]]
"""Travels to the loader's processes, where it opens what they read from."""


def opening_of(recipe: TrainRecipe, config: ReViLMConfig, *, held_out: bool = False, cached: bool = True) -> Opening:
    """held_out: of the pairs that are never learned, instead of the others. cached: False reads pictures also where
    their patch tokens are at hand."""
    stage, section = recipe.stage_and_section
    sources = section.sources
    if not cached:
        sources = {name: source.model_copy(update={"patches": ()}) for name, source in sources.items()}
    split = Split(recipe.held_out.share, "the held out" if held_out else "the others")
    encoder = config.vision.encoder if config.vision else None
    if stage == "language":
        reads = Reads(DOCUMENT - 1, encoder, split, fewer_will_do=True)
        return partial(open_sources, sources, reads, "documents")
    k = config.retrieval.neighbors if config.retrieval.mode != "none" else 0
    return partial(open_sources, sources, Reads(k, encoder, split), "samples")


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


def held_out(recipe: TrainRecipe, config: ReViLMConfig) -> Iterator[Sample]:
    """Of the first source; none where no share is held out."""
    if recipe.held_out.share:
        yield from usable_samples(next(iter(opening_of(recipe, config, held_out=True)().values())))


def held_out_samples(recipe: TrainRecipe, builder: SequenceBuilder) -> list[Sample]:
    """The first that the model has positions for; the same ones at every evaluation."""
    fitting = (sample for sample in held_out(recipe, builder.config) if fits(builder, sample))
    return list(islice(fitting, recipe.held_out.samples))


def fits(builder: SequenceBuilder, sample: Sample) -> bool:
    try:
        segment_of(sample, builder)
    except Unusable:
        return False
    return True


def held_out_pictures(recipe: TrainRecipe, config: ReViLMConfig) -> dict[str, Tensor]:
    """Pixels by the sample's id, of those that are given a caption, where training knows their patch tokens alone."""
    source = next(iter(recipe.stage_and_section[1].sources.values()))
    if not source.patches or config.vision is None:
        return {}
    first = next(iter(opening_of(recipe, config, held_out=True, cached=False)().values()))
    samples = islice(usable_samples(first), recipe.held_out.captioned)
    return {sample.id: image for sample in samples if (image := sample.chunks[-1].image) is not None}


def captions(opening: Opening) -> Iterator[str]:
    """That are learned, for a tokenizer; source after source."""
    for source in opening().values():
        for sample in usable_samples(source):
            yield sample.chunks[-1].text
