"""A step of pretraining on one thread of a CPU: by part, of mode cross beside none, of packed rows beside padded ones.

Imports torch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isclose
from statistics import median

import torch
from torch import Tensor

from model.batch import Batch
from model.revilm import Conditioning, ReViLM
from model.routing import Routing
from trials.benchmarks.model_samples import Captions, Given, packed, padded, pretraining, step
from trials.benchmarks.race import in_turns, ratios, spread

Line = tuple[str, str]
EQUAL = 1e-5  # losses of the same captions, relative


@dataclass
class Laps:
    """CPU seconds by name, in the order of the repetitions."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds.setdefault(name, []).append(time.process_time() - started)


def parts(preset: str, captions: Captions, batch: int, repetitions: int) -> Iterator[Line]:
    model = pretraining(preset, "cross")
    some = packed(captions.segments(model.config, batch, "pixels"), model.config)
    assert isclose(_by_part(model, some, Laps()), step(model, some), rel_tol=EQUAL)  # and warms up
    laps = Laps()
    for _ in range(repetitions):
        _by_part(model, some, laps)
    whole = [sum(times) for times in zip(*laps.seconds.values(), strict=True)]
    for name, seconds in laps.seconds.items():
        yield name, f"{_milliseconds(seconds)}, {median(seconds) / median(whole):.0%}"
    yield "a step of cross, packed", f"{_milliseconds(whole)}, {batch / median(whole):.1f} samples/s"


def overhead(preset: str, captions: Captions, batch: int, most: float | None, repetitions: int) -> Iterator[Line]:
    """The same captions and pictures, in packed rows."""
    models = {"none": pretraining(preset, "none"), "cross": pretraining(preset, "cross")}
    given: Given
    for given in ("patch tokens", "pixels"):
        works = {
            mode: partial(step, model, packed(captions.segments(model.config, batch, given), model.config))
            for mode, model in models.items()
        }
        in_turns(works, 1)  # warms up
        times = in_turns(works, repetitions)
        target = f" (target ≤ {most})" if most else ""
        told = spread(ratios(times["cross"], times["none"]), "{:.3f}")
        yield f"a step of cross to one of none, {given} given", f"{told}{target}; none {_milliseconds(times['none'])}"


def packing(preset: str, captions: Captions, batch: int, batches: int, repetitions: int) -> Iterator[Line]:
    """Random batches, each padded to its longest caption or packed; patch tokens are given, all else is trained."""
    model = pretraining(preset, "cross")
    drawn = [captions.segments(model.config, batch, "patch tokens", seed=seed) for seed in range(batches)]
    arms = {form.__name__: [form(segments, model.config) for segments in drawn] for form in (padded, packed)}
    useful = sum(len(segment) for segments in drawn for segment in segments)
    for name, arm in arms.items():
        carried = sum(some.tokens.numel() for some in arm)
        yield f"{name} rows: tokens carried to useful ones", f"{carried / useful:.2f}"
    yield from _gain("the text side", {name: _text_sides(model, arm) for name, arm in arms.items()}, 1.2, repetitions)
    whole = {name: [partial(step, model, some) for some in arm] for name, arm in arms.items()}
    yield from _gain("the whole step", whole, 1.1, repetitions)


Step = Callable[[], float]


def _gain(what: str, arms: Mapping[str, Sequence[Step]], least: float, repetitions: int) -> Iterator[Line]:
    for one, other in zip(*arms.values(), strict=True):
        assert isclose(one(), other(), rel_tol=EQUAL)
    works = {name: partial(_all, steps) for name, steps in arms.items()}
    times = in_turns(works, repetitions)
    told = spread(ratios(times["padded"], times["packed"]), "{:.2f}")
    yield f"padded to packed rows, {what}", f"{told} (target ≥ {least})"


def _all(steps: Sequence[Step]) -> None:
    for each in steps:
        each()


def _text_sides(model: ReViLM, batches: Sequence[Batch]) -> list[Step]:
    """Decoder and head; the keys and values that they look at are given, and get a gradient."""
    steps: list[Step] = []
    for batch in batches:
        with torch.no_grad():
            given = model.condition(batch)
        leaves = {layer: (k.requires_grad_(), v.requires_grad_()) for layer, (k, v) in given.images.items()}
        steps.append(partial(_text_side, model, batch, replace(given, images=leaves)))
    return steps


def _text_side(model: ReViLM, batch: Batch, conditioning: Conditioning) -> float:
    model.zero_grad()
    for leaves in conditioning.images.values():
        for leaf in leaves:
            leaf.grad = None
    loss = model.loss(batch, _hidden(model, batch, conditioning)).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _by_part(model: ReViLM, batch: Batch, laps: Laps) -> float:
    """A step, each part on what those before it gave → the loss."""
    model.zero_grad()
    with laps.of("image encoder, frozen"):
        batch = replace(batch, patches=model.patches_of(batch), pixels=None)
    assert batch.patches is not None
    unread = replace(
        batch,
        evidence=batch.evidence[:0],
        evidence_mask=batch.evidence_mask[:0],
        evidence_rows=Routing.of(batch.evidence[:0], 0),
    )
    unseen = replace(batch, patches=batch.patches[:0], frames=batch.frames[:0])
    with laps.of("resampler, keys and values"):
        seen = model.condition(unread)
    with laps.of("text encoder, keys and values, frozen"):
        read = model.condition(unseen)
    with laps.of("decoder"):
        both = replace(seen, evidence=read.evidence, evidence_keep=read.evidence_keep)
        hidden = _hidden(model, batch, both)
    with laps.of("head and loss"):
        loss = model.loss(batch, hidden).mean()
    with laps.of("backward"):
        loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def _hidden(model: ReViLM, batch: Batch, conditioning: Conditioning) -> Tensor:
    return model.hidden(model.embed(batch.tokens), model.view_of(batch), conditioning)


def _milliseconds(seconds: Sequence[float]) -> str:
    return spread([1000 * each for each in seconds], "{:,.0f}") + " ms"
