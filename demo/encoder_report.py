"""How good the demo's encoder is, on scenes that it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from demo.contrastive import Pairs, Trained, draw_pairs
from demo.scenes import COLOURS, OBJECTS, PHRASINGS, Scene, caption, random_scene
from pipeline.recipe import Json
from stages.embed.towers import Towers, Vectors

HELD_OUT = 500
PROMPTS = 50  # captions that a class is the mean of


def report(trained: Trained, seed: int) -> Mapping[str, Json]:
    """All shares of 1. recall: of the own one among HELD_OUT; auc: matched pairs against mismatched ones."""
    rng, towers = Random(f"{seed} held out"), trained.towers
    pairs = draw_pairs(towers, HELD_OUT, rng)
    images, texts = towers.encode_images(pairs.pixels), towers.encode_texts(pairs.captions)
    matched = np.einsum("nd,nd->n", images, texts)
    mismatched = np.einsum("nd,nd->n", images, texts[unlike(pairs.scenes, rng)])
    return {
        "image_to_text": recall(images, texts),
        "text_to_image": recall(texts, images),
        "zero_shot_object": zero_shot(towers, pairs, images, "object", OBJECTS, rng),
        "zero_shot_colour": zero_shot(towers, pairs, images, "colour", COLOURS, rng),
        "auc": round(float((matched[:, None] > mismatched[None]).mean()), 4),
        "matched": _quantiles(matched),
        "mismatched": _quantiles(mismatched),
        "losses": list(trained.losses),
    }


def recall(queries: Vectors, answers: Vectors) -> dict[str, float]:
    """Share of rows whose own answer is among the k most similar ones."""
    similarity = queries @ answers.T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    return {f"recall@{k}": round(float((rank < k).mean()), 4) for k in (1, 5, 10)}


def zero_shot(
    towers: Towers, pairs: Pairs, images: Vectors, attribute: str, values: Sequence[str], rng: Random
) -> float:
    """Share of pictures whose nearest class has their value of the attribute. A class is the mean of PROMPTS captions,
    which differ from another class's in nothing else."""
    prompts = [(random_scene(rng), rng.choice(PHRASINGS)) for _ in range(PROMPTS)]
    classes = [
        towers.encode_texts([caption(_with(scene, attribute, value), phrasing) for scene, phrasing in prompts])
        for value in values
    ]
    found = (images @ np.mean(classes, axis=1).T).argmax(axis=1)
    truth = [values.index(getattr(scene, attribute)) for scene in pairs.scenes]
    return round(float((found == truth).mean()), 4)


def _with(scene: Scene, attribute: str, value: str) -> Scene:
    changed: dict[str, Any] = {attribute: value}
    return replace(scene, **changed)


def unlike(scenes: Sequence[Scene], rng: Random) -> list[int]:
    """For each scene the row of one with another object in another colour."""
    rows = range(len(scenes))
    return [
        rng.choice(
            [row for row in rows if (other := scenes[row]).object != scene.object and other.colour != scene.colour]
        )
        for scene in scenes
    ]


def _quantiles(scores: Vectors) -> dict[str, float]:
    return {f"{percent}%": round(float(np.percentile(scores, percent)), 4) for percent in (5, 50, 95)}
