"""Grounding meters: what the model's loss and captions owe to the pictures and to the neighbours.

    image_shuffle     loss with the pictures of other samples − loss. > 0: the picture is used beyond the neighbours,
                      which stay with the text
    neighbor_shuffle  loss with the neighbours of other samples − loss. > 0: the neighbours are read
    neighbor_empty    loss without neighbours − loss: what retrieval gains. Below neighbor_shuffle where wrong
                      neighbours mislead
    both_shuffle      loss with pictures and neighbours of one other sample − loss: an upper bound; what is left is the
                      language prior
    copy_rate         the longest run of words that a caption has in common with a neighbour ÷ its words
    equal_to_neighbor share of captions that are a neighbour's, in the normal form of the leakage rules
    cider_d           of the model's captions, and nearest_neighbor_cider_d of the nearest neighbour's caption in their
                      place, which every captioner must beat

The texts are the same in all of them. Other samples are of the same batch of much the same length, so that nothing else
changes, not even padding (in mode prefix neighbours are part of the row).
Shapes: n samples, B rows, T text positions, of which P predict.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from model.evaluation.bootstrap import Figure, Floats, interval
from model.evaluation.cider import cider_d
from model.revilm import ReViLM
from model.sequence import SequenceBuilder
from model.training.captions import Captioned
from model.training.exchange import (
    derangement,
    has_neighbors,
    length_buckets,
    pictures_of,
    read_places,
    with_neighbors,
    with_pictures,
    without_neighbors,
)
from model.training.held_out import HeldOut, evaluating
from model.training.samples import Sample

Flags = npt.NDArray[np.bool_]
Exchange = Callable[[Sample, Sample], Sample]


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """Losses are in nats a token. None: this model or these samples have no such meter."""

    loss: Figure
    image_shuffle: Figure | None = None
    neighbor_shuffle: Figure | None = None
    neighbor_empty: Figure | None = None
    both_shuffle: Figure | None = None
    copy_rate: Figure | None = None
    equal_to_neighbor: Figure | None = None
    cider_d: Figure
    nearest_neighbor_cider_d: Figure | None = None
    captions: tuple[Captioned, ...]  # of the first samples, in their order

    def figures(self) -> dict[str, Figure]:
        """By name, those that there are."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: figure for name, figure in found.items() if isinstance(figure, Figure)}

    def warnings(self, *, stage: str, warmed_up: bool) -> list[str]:
        """What a person should know; nothing before the warm-up is over, when nothing is known yet."""
        said = []
        if warmed_up and _near_zero(self.image_shuffle):
            said.append(f"Δ image shuffle near zero, {self.image_shuffle}: the pictures are not used")
        if warmed_up and stage == "retrofit" and _near_zero(self.neighbor_empty):
            said.append(f"Δ neighbour empty near zero, {self.neighbor_empty}: no gain by neighbours")
        return said


def measure_grounding(
    model: ReViLM,
    builder: SequenceBuilder,
    samples: Sequence[Sample],
    *,
    device: torch.device | str,
    batch_size: int = 32,
    captioned: int | None = None,
    max_new_tokens: int = 30,
    beams: int = 1,
    seed: int = 0,
) -> Grounding:
    """captioned: so many of the samples are given a caption; None: all.

    The same samples and seed exchange the same pictures and neighbours. Draws nothing from torch's generators and
    leaves the model in the mode in which it was, in training that of train_mode().

    Raises ValueError for no samples, for one without a token to learn, for batch_size < 2, and as generate does.
    """
    if not samples:
        raise ValueError("no samples to measure the grounding on; allowed is one at least")
    lengths = [len(builder.segment(sample.chunks)) for sample in samples]
    held_out = HeldOut(model, builder, device, length_buckets(samples, lengths, batch_size))
    with evaluating(model):
        nats, tokens = held_out.losses(samples)
        deltas = {
            name: _among(take_part, held_out.losses(others)[0] - nats, tokens, seed)
            for name, others, take_part in _exchanged(held_out, samples, seed)
        }
        some = samples[:captioned]
        asked = HeldOut(model, builder, device, length_buckets(some, lengths[:captioned], batch_size))
        generated = asked.captions(some, max_new_tokens=max_new_tokens, beams=beams)
    captions = tuple(map(_captioned, some, generated, (nats / tokens)[:captioned].tolist()))
    return Grounding(
        loss=interval(nats, tokens, seed=seed), captions=captions, **deltas, **_of_captions(captions, seed)
    )


def _exchanged(held_out: HeldOut, samples: Sequence[Sample], seed: int) -> Iterator[tuple[str, list[Sample], Flags]]:
    """Of every meter that a sample takes part in: its name, all samples as it wants them, which take part."""
    donors = derangement(held_out.batches, np.random.default_rng(seed))
    mode = held_out.model.config.retrieval.mode
    exchangeable = donors != np.arange(len(samples))
    pictured = np.array([bool(pictures_of(sample)) for sample in samples])
    read = np.full(len(samples), mode != "none" and any(map(has_neighbors, samples)))
    meters: dict[str, tuple[Exchange, Flags]] = {
        "image_shuffle": (with_pictures, exchangeable & pictured),
        "neighbor_shuffle": (with_neighbors, exchangeable & read),
        "neighbor_empty": (lambda sample, _: without_neighbors(sample), read),
        "both_shuffle": (_with_both, exchangeable & pictured & read),
    }
    for name, (exchange, take_part) in meters.items():
        if take_part.any():
            yield (
                name,
                [exchange(sample, samples[donor]) for sample, donor in zip(samples, donors, strict=True)],
                take_part,
            )


def _with_both(sample: Sample, donor: Sample) -> Sample:
    return with_neighbors(with_pictures(sample, donor), donor)


def _captioned(sample: Sample, generated: str, loss: float) -> Captioned:
    neighbors = sample.chunks[read_places(sample)[-1]].neighbors
    return Captioned(
        id=sample.id,
        reference=sample.chunks[-1].text,
        generated=generated,
        neighbors=tuple(caption for caption in neighbors if caption),
        loss=loss,
    )


def _of_captions(captions: Sequence[Captioned], seed: int) -> dict[str, Figure]:
    found = {"cider_d": _cider_d(captions, [each.generated for each in captions], seed)}
    beside_neighbors = [each for each in captions if each.neighbors]
    if beside_neighbors:
        nearest = [each.neighbors[0] if each.neighbors else "" for each in captions]
        found |= {
            "copy_rate": _mean([each.copied for each in beside_neighbors], seed),
            "equal_to_neighbor": _mean([each.equals_neighbor for each in beside_neighbors], seed),
            "nearest_neighbor_cider_d": _cider_d(captions, nearest, seed),
        }
    return found


def _cider_d(captions: Sequence[Captioned], candidates: Sequence[str], seed: int) -> Figure:
    """By place and not by id, which samples of two sources may share."""
    places = [str(place) for place in range(len(captions))]
    references = {place: [each.reference] for place, each in zip(places, captions, strict=True)}
    found = cider_d(candidates=dict(zip(places, candidates, strict=True)), references=references)
    return _mean([found.per_image[place] for place in places], seed)


def _mean(each: Sequence[float], seed: int) -> Figure:
    return interval(np.array(each, np.float64), np.ones(len(each)), seed=seed)


def _among(take_part: Flags, sums: Floats, counts: Floats, seed: int) -> Figure:
    return interval(sums[take_part], counts[take_part], seed=seed)


def _near_zero(delta: Figure | None) -> bool:
    return delta is not None and delta.low <= 0
