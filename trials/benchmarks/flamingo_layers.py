"""A resampler and gated layers, ours and open_flamingo's, over the same text. Imports torch.

Shapes: B rows, T text positions, D text width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isclose
from statistics import median
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from model.batch import Batch
from model.config import ReViLMConfig
from model.gated_cross_attention import GatedCrossAttention
from model.perceiver_resampler import PerceiverResampler
from model.presets import preset
from model.sequence import Segment
from trials.benchmarks.model_samples import packed, padded
from trials.benchmarks.race import in_turns, one_thread, ratios, spread

Line = tuple[str, str]
INNER = 512  # 8 heads of 64, whatever the widths: open_flamingo's only shape
EQUAL = 1e-5  # losses, relative
TARGET = "(target ≥ 1.2)"


def shape_of(name: str) -> ReViLMConfig:
    config = preset(name, mode="none")
    assert config.vision is not None
    resampler, gated = (replace(part, inner=INNER) for part in (config.vision.resampler, config.vision.gated))
    return replace(config, vision=replace(config.vision, resampler=resampler, gated=gated))  # type: ignore[arg-type]


class Ours(nn.Module):
    """Gates half open."""

    def __init__(self, config: ReViLMConfig) -> None:
        super().__init__()
        text, vision = config.language_model, config.vision
        assert vision is not None
        width = vision.encoder.width
        self.resampler = PerceiverResampler(vision.resampler, width)
        self.gated = nn.ModuleList(GatedCrossAttention(vision.gated, text.width, width) for _ in config.gated_layers)
        for layer in self.gated:
            nn.init.constant_(layer.attention_gate, 0.5)  # type: ignore[arg-type]
            nn.init.constant_(layer.feed_forward_gate, 0.5)  # type: ignore[arg-type]

    def forward(self, text: Tensor, batch: Batch) -> Tensor:
        """text (B, T, D) → (B, T, D)."""
        assert batch.patches is not None
        latents = self.resampler(batch.patches, batch.frames)
        for layer in self.gated:
            text = layer(text, layer.keys_values(latents), batch.image_routing)  # type: ignore[operator]
        return text


class Theirs(nn.Module):
    """Of the same weights, which both hold in the same order."""

    def __init__(self, config: ReViLMConfig, ours: Ours, layers: ModuleType) -> None:
        super().__init__()
        text, vision = config.language_model, config.vision
        assert vision is not None
        self.image_id, width, shape = config.image_id, vision.encoder.width, vision.resampler
        self.resampler = layers.PerceiverResampler(
            dim=width, depth=shape.layers, num_latents=shape.latents, max_num_frames=shape.frames
        )
        block = partial(layers.GatedCrossAttentionBlock, dim=text.width, dim_visual=width)
        self.gated = nn.ModuleList(block() for _ in config.gated_layers)
        with torch.no_grad():
            for own, given in zip(self.parameters(), ours.parameters(), strict=True):
                own.view(given.shape).copy_(given)

    def forward(self, text: Tensor, batch: Batch) -> Tensor:
        """text (B, T, D) of rows of equally many pictures → (B, T, D)."""
        assert batch.patches is not None
        media = self.resampler(batch.patches.view(len(text), -1, 1, *batch.patches.shape[1:]))
        for layer in self.gated:
            text = layer(text, media, media_locations=batch.tokens == self.image_id)
        return text


def compared(layers: ModuleType, config: ReViLMConfig, segments: Sequence[Segment], repetitions: int) -> Iterator[Line]:
    """Over rows padded alike, and, of samples that fit in packed rows, over ours packed."""
    torch.manual_seed(0)
    ours = Ours(config)
    theirs = Theirs(config, ours, layers)
    pictures = len(segments[0].images)
    rows = padded(segments, config)
    arms = {"theirs": (theirs, rows), "ours": (ours, rows)}
    if pictures == 1:
        arms["ours packed"] = (ours, packed(segments, config))
    table = torch.randn(config.pad_id + 1, config.language_model.width)
    works = {name: partial(step, part, batch, table) for name, (part, batch) in arms.items()}
    with one_thread():
        expected = works["theirs"]()
        for name, work in works.items():
            assert isclose(work(), expected, rel_tol=EQUAL), name
        times = in_turns(works, repetitions)
    what = f"{len(segments)} rows of {pictures} pictures"
    yield f"{what}: theirs", f"{spread(times['theirs'], '{:.2f}')} s a step, rows of {rows.tokens.shape[1]} tokens"
    yield f"{what}: theirs to ours, the same rows", f"{_ratio(times, 'ours')} {TARGET}"
    share = products(works["ours"])
    most = median(ratios(times["theirs"], times["ours"])) / share
    yield f"{what}: matrix products, the same in both", f"{share:.0%} of ours; were all else free, {most:.2f}"
    if "ours packed" in times:
        yield f"{what}: theirs to ours, packed in rows of 64", f"{_ratio(times, 'ours packed')} {TARGET}"


def step(layers: nn.Module, batch: Batch, table: Tensor) -> float:
    """Forward and backward → the mean square over the positions that are no padding. table: (ids, D), the text."""
    layers.zero_grad()
    text = F.embedding(batch.tokens, table).requires_grad_()
    loss = layers(text, batch)[batch.segments > 0].square().mean()
    loss.backward()
    return float(loss.detach())


def products(work: Callable[[], object]) -> float:
    """The share of torch's time that goes into aten::mm."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    took = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    return float(took["aten::mm"] / sum(took.values()))


def _ratio(times: Mapping[str, Sequence[float]], name: str) -> str:
    return spread(ratios(times["theirs"], times[name]), "{:.2f}")
