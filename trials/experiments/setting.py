"""What the arms of a seed have in common: the world, its pictures as the image encoder sees them, and the tokenizer.

Shapes: N pairs, S patch tokens of width E, D width of the encoder's embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo.named import NamedPair, NamedWorld, make_world
from demo.scenes import render
from model.config import RetrievalConfig, ReViLMConfig
from model.image_encoder import ImageEncoder
from model.open_clip_weights import config_of, read_weights
from model.presets import preset
from model.tokenizer import Tokenizer
from trials.experiments.arms import Arm, Budget
from trials.experiments.neighbors import allowed, by_index, by_truth

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
NEIGHBORS = 2  # k (Re-ViLM §5.1)
AT_A_TIME = 256  # pictures that are encoded


@dataclass(frozen=True)
class Setting:
    """Patch tokens and embeddings are made once a seed, the embeddings only where an arm wants them."""

    seed: int
    budget: Budget
    encoder: Path  # a folder that open_clip opens: CONFIG and WEIGHTS

    @cached_property
    def world(self) -> NamedWorld:
        budget = self.budget
        return make_world(
            self.seed,
            training_groups=budget.training_groups,
            test_groups=budget.test_groups,
            captions=budget.captions,
            views=budget.views,
            asked=budget.asked,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.train(pair.caption for pair in self.world.training)

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        return read_weights(config_of(self.encoder / CONFIG), self.encoder / WEIGHTS).eval()

    def config(self, arm: Arm) -> ReViLMConfig:
        """Preset nano with the encoder's tower."""
        nano = preset("nano", mode=arm.mode, vocabulary=self.tokenizer.size)
        assert nano.vision is not None
        vision = replace(nano.vision, encoder=self.image_encoder.config)
        retrieval = replace(nano.retrieval, neighbors=NEIGHBORS, neighbor_token_dropout=arm.neighbor_token_dropout)
        return replace(nano, vision=vision, retrieval=retrieval)

    @property
    def text_config(self) -> ReViLMConfig:
        """The language model alone."""
        nano = preset("nano", vocabulary=self.tokenizer.size)
        return replace(nano, vision=None, retrieval=RetrievalConfig())

    @cached_property
    def patches(self) -> dict[str, Tensor]:
        """(1, S, E) float16 of every pair, by id."""
        found: dict[str, Tensor] = {}
        for some in self._all_in_parts():
            found |= {pair.id: each[None] for pair, each in zip(some, self._encode(some), strict=True)}
        return found

    @torch.no_grad()
    def _encode(self, pairs: Sequence[NamedPair]) -> Tensor:
        patches: Tensor = self.image_encoder(pixels_of(pairs, self.image_encoder.config.image_size))
        return patches.half()

    @cached_property
    def training_groups(self) -> dict[int, list[NamedPair]]:
        return _grouped(self.world.training)

    @cached_property
    def shown_groups(self) -> dict[int, list[NamedPair]]:
        return _grouped(self.world.shown)

    def neighbors_in_training(self, arm: Arm) -> dict[str, list[NamedPair]]:
        """Of every training pair, by id."""
        pairs = self.world.training
        if arm.by_index:
            vectors = self._vectors(pairs)
            ranked = by_index(vectors, vectors, pairs)
        else:
            ranked = [by_truth(pair, self.training_groups[pair.group.number]) for pair in pairs]
        return {pair.id: allowed(pair, each, arm.rules, NEIGHBORS) for pair, each in zip(pairs, ranked, strict=True)}

    def neighbors_when_asked(self, arm: Arm) -> list[list[NamedPair]]:
        """Of every pair that is to be captioned. The index's database holds the training pairs too."""
        pairs = self.world.asked
        if arm.by_index:
            database = [*self.world.shown, *self.world.training]
            ranked = by_index(self._vectors(pairs), self._vectors(database), database)
        else:
            ranked = [by_truth(pair, self.shown_groups[pair.group.number]) for pair in pairs]
        return [allowed(pair, each, "on", NEIGHBORS) for pair, each in zip(pairs, ranked, strict=True)]

    def _vectors(self, pairs: Sequence[NamedPair]) -> Tensor:
        return torch.stack([self._embeddings[pair.id] for pair in pairs])

    @cached_property
    def _embeddings(self) -> dict[str, Tensor]:
        """(D), of norm 1, of every pair, by id: what an index over the pictures would hold."""
        from stages.embed.towers import Towers

        towers = Towers.load_files(self.encoder / CONFIG, self.encoder / WEIGHTS)
        found: dict[str, Tensor] = {}
        for some in self._all_in_parts():
            pixels = pixels_of(some, self.image_encoder.config.image_size).permute(0, 2, 3, 1).contiguous()
            vectors = torch.from_numpy(towers.encode_images(pixels))
            found |= {pair.id: vector for pair, vector in zip(some, vectors, strict=True)}
        return found

    def _all_in_parts(self) -> list[list[NamedPair]]:
        pairs = [*self.world.training, *self.world.shown, *self.world.asked]
        return [pairs[first : first + AT_A_TIME] for first in range(0, len(pairs), AT_A_TIME)]


def pixels_of(pairs: Sequence[NamedPair], size_px: int) -> Tensor:
    """(N, 3, size_px, size_px) uint8."""
    drawn = [np.asarray(render(pair.scene, width_px=size_px, height_px=size_px)) for pair in pairs]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


def _grouped(pairs: Sequence[NamedPair]) -> dict[int, list[NamedPair]]:
    groups: dict[int, list[NamedPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group.number, []).append(pair)
    return groups
