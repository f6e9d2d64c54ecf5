"""CLIP's objective (Radford et al. 2021, figure 3) on scenes that are drawn as they are needed."""

import io
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.pictures import Picture, encode
from demo.recipe import EncoderRecipe
from demo.scenes import PHRASINGS, Scene, caption, random_scene
from demo.tags import Tags
from stages.embed.towers import Towers

log = logging.getLogger("pipeline.encoder")  # jobs show what `pipeline` has to say

MAX_SCALE = math.log(100)  # of the logits; the paper's bound
WARM_UP = 10  # steps


@dataclass(frozen=True)
class Trained:
    towers: Towers
    losses: tuple[float, ...]  # of each step
    seconds: float

    def save(self, weights: Path) -> None:
        save_file(self.towers.model.state_dict(), weights)


@dataclass(frozen=True)
class Pairs:
    """N scenes with captions, no two of them the same."""

    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]
    pixels: Tensor  # (N, H, W, 3) uint8


def train(recipe: EncoderRecipe, config: Path) -> Trained:
    """The same weights again for the same recipe and number of threads. config: the recipe's, for open_clip."""
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        towers = Towers.load_files(config, weights=None)
        tags = Tags(recipe.width) if recipe.tags else None
    towers.model.train().requires_grad_()
    optimizer = _optimizer(nn.ModuleList(filter(None, [towers.model, tags])), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, recipe.steps))
    losses = []
    for step, pairs in enumerate(_batches(towers, recipe), 1):
        optimizer.zero_grad()
        images = nn.functional.normalize(towers.image_features(pairs.pixels), dim=1)
        loss = contrastive_loss(towers, images, pairs.captions)
        if tags and recipe.tags:
            loss = loss + recipe.tags * tags.loss(images, pairs.scenes)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        towers.model.logit_scale.data.clamp_(max=MAX_SCALE)
        losses.append(round(loss.item(), 4))
        if step % 10 == 0 or step == recipe.steps:
            log.info("encoder: step %d of %d, loss %.3f", step, recipe.steps, losses[-1])
    towers.model.eval().requires_grad_(requires_grad=False)
    return Trained(towers, tuple(losses), round(time.monotonic() - started, 1))


def contrastive_loss(towers: Towers, images: Tensor, captions: Sequence[str]) -> Tensor:
    """images (N, D) of norm 1: each is to find its caption among the batch's, and each caption its picture."""
    texts = nn.functional.normalize(towers.text_features(towers.tokenize(captions)), dim=1)
    logits = towers.model.logit_scale.exp() * images @ texts.T
    labels = torch.arange(len(logits))
    return (nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)) / 2


def draw_pairs(towers: Towers, num_pairs: int, rng: Random) -> Pairs:
    """Pictures as a crawl stores them: JPEGs of many sizes, fitted as the towers want them."""
    scenes: dict[str, Scene] = {}
    while len(scenes) < num_pairs:
        scene = random_scene(rng)
        scenes.setdefault(caption(scene, rng.choice(PHRASINGS)), scene)
    fit, pixels = towers.fitter(), towers.empty_pixels(num_pairs)
    for row, scene in enumerate(scenes.values()):
        jpeg = encode(Picture(scene, rng.randint(72, 200), rng.randint(72, 200), quality=rng.randint(60, 95)))
        pixels[row] = torch.from_numpy(np.array(fit(Image.open(io.BytesIO(jpeg)))))
    return Pairs(tuple(scenes.values()), tuple(scenes), pixels)


def _batches(towers: Towers, recipe: EncoderRecipe) -> Iterator[Pairs]:
    """The next one is drawn while the model learns from this one."""
    with ThreadPoolExecutor(1) as beside:
        rngs = [Random(f"{recipe.seed} {step}") for step in range(recipe.steps)]
        coming = beside.submit(draw_pairs, towers, recipe.batch, rngs[0])
        for rng in rngs[1:]:
            pairs, coming = coming.result(), beside.submit(draw_pairs, towers, recipe.batch, rng)
            yield pairs
        yield coming.result()


def _optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Weight decay on matrices alone: a token that is never seen keeps its vector."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6)


def _pace(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine down to nothing."""
    return min((step + 1) / WARM_UP, (1 + math.cos(math.pi * step / steps)) / 2)
