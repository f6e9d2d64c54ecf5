"""Beam search with the cache of keys and values beside the same search that reads all text anew for every token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.config import ReViLMConfig
    from model.revilm import ReViLM
    from model.sequence import Segment

Line = tuple[str, str]
SHOT = 24  # tokens of a picture, its caption and its end; and those of a neighbour's caption


@dataclass(frozen=True)
class Case:
    prompt: int  # tokens
    least: float  # ratio
    repetitions: int


@dataclass(frozen=True)
class Sizes:
    preset: str = "smol"
    cases: Sequence[Case] = (Case(2, 3, 3), Case(100, 8, 1))  # the second takes minutes without the cache
    batch: int = 8
    new_tokens: int = 20
    beams: int = 3


def decoding(sizes: Sizes = Sizes()) -> Iterator[Line]:
    """On one thread, in CPU seconds. Pictures and neighbours are encoded once either way; no search ends early."""
    from trials.benchmarks.model_samples import pretraining

    model = pretraining(sizes.preset, "cross").eval()
    for case in sizes.cases:
        what = f"{sizes.preset}, {sizes.batch} prompts of {case.prompt}, beam {sizes.beams}, {sizes.new_tokens} tokens"
        yield from ((f"{what}: {line}", figure) for line, figure in _compared(model, case, sizes))


def _compared(model: "ReViLM", case: Case, sizes: Sizes) -> Iterator[Line]:
    from model.batch import collate
    from model.generate import Generated, generate
    from trials.benchmarks.race import in_turns, one_thread, ratios, spread

    batch = collate([[prompt(model.config, case.prompt, row)] for row in range(sizes.batch)], model.config)
    new, found = sizes.new_tokens, dict[bool, list[Generated]]()

    def search(*, use_cache: bool) -> None:
        beams = sizes.beams
        found[use_cache] = generate(
            model, batch, beams=beams, max_new_tokens=new, min_new_tokens=new, use_cache=use_cache
        )

    with one_thread():
        works = {"cached": partial(search, use_cache=True), "anew": partial(search, use_cache=False)}
        times = in_turns(works, case.repetitions)
    assert [each.tokens for each in found[True]] == [each.tokens for each in found[False]]
    for name, arm in (("with the cache", "cached"), ("all text anew", "anew")):
        yield name, f"{spread(times[arm])} s, {sizes.batch / median(times[arm]):.2f} captions/s"
    yield "ratio, the same tokens", f"{spread(ratios(times['anew'], times['cached']))} (target ≥ {case.least:g})"


def prompt(config: "ReViLMConfig", tokens: int, seed: int) -> "Segment":
    """Shots and the beginning of another, of random tokens; every picture has its neighbours."""
    import torch

    from model.sequence import Segment

    assert config.vision is not None
    generator = torch.Generator().manual_seed(seed)
    patches = (1, config.vision.encoder.grid**2, config.vision.encoder.width)

    def text(length: int) -> list[int]:
        return torch.randint(config.language_model.vocabulary, (length,), generator=generator).tolist()

    built = Segment()
    while len(built) < tokens:
        left = tokens - len(built)
        end = [config.end_of_chunk_id] if left >= SHOT else []
        built.extend([config.image_id, *text(min(left, SHOT) - 1 - len(end)), *end])
        built.images.append(torch.randn(patches, generator=generator))
        built.evidence.append(text(config.retrieval.neighbors * SHOT))
    return built
