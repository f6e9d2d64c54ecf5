"""Rows of samples as tensors: which text, picture and neighbours every text position looks at.

Shapes: B rows, T text positions, N pictures or videos of F frames at most, ΣF in all, M sets of neighbours of W tokens,
S patch tokens of width E.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from model.config import ReViLMConfig
from model.routing import Routing
from model.sequence import Segment, pack

IGNORED = -100
"""The target of a position without a loss."""


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # (B, T) int64, padded on the right
    segments: Tensor  # (B, T) int64: 1… within a row; 0 is padding
    positions: Tensor  # (B, T) int64, from 0 in every segment
    targets: Tensor  # (B, T) int64: the next token where it is learned, else IGNORED
    predicting: Tensor  # (n) int64: the positions with a target, as indices into B·T
    retrieved: Tensor  # (B, T) bool: tokens of neighbours (mode prefix)
    image: Tensor  # (B, T) int64: the picture that a position looks at, 0…N − 1, −1 for none
    evidence_set: Tensor  # (B, T) int64: likewise the set of neighbours, 0…M − 1
    image_routing: Routing
    evidence_routing: Routing
    frames: Tensor  # (N, F) int64: the frames of every picture, 0…ΣF − 1, −1 after its last
    pixels: Tensor | None  # (ΣF, 3, H, W) uint8, or normalised
    patches: Tensor | None  # (ΣF, S, E), in place of pixels
    evidence: Tensor  # (M, W) int64, padded on the right with any id
    evidence_mask: Tensor  # (M, W) bool; every set has a token
    evidence_rows: Routing  # of the M·W tokens to packed rows, in which they are encoded without padding
    packed: bool  # a row holds several segments

    def to(self, device: torch.device | str) -> "Batch":
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor | Routing)
        }
        return replace(self, **moved)


def collate(rows: Sequence[Sequence[Segment]], config: ReViLMConfig) -> Batch:
    """Rows of segments → a batch; its pictures and sets of neighbours in reading order.

    Raises ValueError where a segment has another number of pictures than of `<image>` tokens or of sets of neighbours,
    or more tokens than the model has positions; for pictures where the model has no vision, and for pictures of another
    shape than it or the others have, or of another dtype than the others.
    """
    flat = [segment for row in rows for segment in row]
    for segment in flat:
        _check_segment(segment, config)
    tokens = _padded([[token for segment in row for token in segment.tokens] for row in rows], config.pad_id)
    segments = _padded([[n for n, segment in enumerate(row, 1) for _ in segment.tokens] for row in rows], 0)
    learned = _padded([[each for segment in row for each in segment.learned] for row in rows], 0).bool()
    retrieved = _padded([[each for segment in row for each in segment.retrieved] for row in rows], 0).bool()

    phi = latest_image(tokens == config.image_id, segments, retrieved)
    image = torch.where(phi > 0, (tokens == config.image_id).flatten().cumsum(0).view_as(tokens) - 1, -1)
    evidence_set, evidence = _evidence_of(rows, phi, segments)
    targets = _targets(tokens, segments, learned)
    pixels, patches, frames = _pictures([picture for segment in flat for picture in segment.images], config)
    return Batch(
        tokens=tokens,
        segments=segments,
        positions=_positions(segments),
        targets=targets,
        predicting=(targets.flatten() != IGNORED).nonzero()[:, 0],
        retrieved=retrieved,
        image=image,
        evidence_set=evidence_set,
        image_routing=Routing.of(image, len(frames)),
        evidence_routing=Routing.of(evidence_set, len(evidence)),
        frames=frames,
        pixels=pixels,
        patches=patches,
        evidence=_padded(evidence, 0),
        evidence_mask=_padded([[1] * len(each) for each in evidence], 0).bool(),
        evidence_rows=_packed(evidence),
        packed=any(len(row) > 1 for row in rows),
    )


def latest_image(starts: Tensor, segments: Tensor, hidden: Tensor) -> Tensor:
    """φ: the number of `<image>` tokens at positions ≤ t of the same segment, 0 before the first (Flamingo §2.1).

    starts (B, T) bool: the `<image>` tokens; segments (B, T), 0 is padding; hidden (B, T) bool: positions that look at
    no picture: neighbours in front of an `<image>` would else see the one before, which is not theirs → (B, T) int64.
    """
    counts = starts.cumsum(1)
    new = torch.ones_like(starts)
    new[:, 1:] = segments[:, 1:] != segments[:, :-1]
    before = torch.where(new, counts - starts.long(), 0).cummax(1).values
    return torch.where((segments > 0) & ~hidden, counts - before, 0)


def _check_segment(segment: Segment, config: ReViLMConfig) -> None:
    positions = config.language_model.positions
    for length, what in [(len(segment), "tokens"), *((len(each), "tokens of neighbours") for each in segment.evidence)]:
        if length > positions:
            raise ValueError(f"a sample has {length} {what}; the language model has {positions} positions")
    marks, images = segment.tokens.count(config.image_id), len(segment.images)
    if marks != images:
        raise ValueError(f"a sample has {marks} <image> tokens and {images} pictures; each needs one of the other")
    sets, due = len(segment.evidence), max(images, 1)
    if config.retrieval.mode == "cross" and sets != due:
        raise ValueError(f"a sample of {images} pictures has {sets} sets of neighbours; it needs {due}, empty or not")


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    longest = max(map(len, rows), default=0)
    # One list for all rows: a tensor a row would take three times as long.
    padded = [row + [filler] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest)


def _positions(segments: Tensor) -> Tensor:
    """From 0 in every segment; 0 in padding, which may be longer than the language model has positions."""
    column = torch.arange(segments.shape[1]).expand_as(segments)
    new = torch.ones_like(segments, dtype=torch.bool)
    new[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return torch.where(segments > 0, column - torch.where(new, column, 0).cummax(1).values, 0)


def _targets(tokens: Tensor, segments: Tensor, learned: Tensor) -> Tensor:
    """The next token of the same segment where it is learned."""
    targets = torch.full_like(tokens, IGNORED)
    follows = learned[:, 1:] & (segments[:, 1:] == segments[:, :-1])
    targets[:, :-1] = torch.where(follows, tokens[:, 1:], IGNORED)
    return targets


def _evidence_of(rows: Sequence[Sequence[Segment]], phi: Tensor, segments: Tensor) -> tuple[Tensor, list[list[int]]]:
    """The set of neighbours that every position looks at, and the sets that hold a token.

    ρ = φ in a segment with pictures; in text alone the only set, over the whole segment. An empty set is no set.
    """
    source = torch.full_like(phi, -1)
    sets: list[list[int]] = []
    for row, members in enumerate(rows):
        for number, segment in enumerate(members, 1):
            inside = segments[row] == number
            for rho, evidence in enumerate(segment.evidence, 1):
                if evidence:
                    seen = inside & (phi[row] == rho) if segment.images else inside
                    source[row, seen] = len(sets)
                    sets.append(evidence)
    return source, sets


def _packed(evidence: list[list[int]]) -> Routing:
    """Sets of neighbours to as few rows of the longest one's length as they fit into."""
    lengths = [len(each) for each in evidence]
    rows = pack(lengths, max(lengths, default=0))
    row_of = {number: row for row, members in enumerate(rows) for number in members}
    return Routing.of(_padded([[row_of[number]] * length for number, length in enumerate(lengths)], -1), len(rows))


def _pictures(images: list[Tensor], config: ReViLMConfig) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Pixels or patch tokens of all pictures, one after the other, and which of the frames each has."""
    if not images:
        return None, None, _padded([], 0)
    if config.vision is None:
        raise ValueError("a sample holds a picture, but the model's configuration has no vision")
    tower, shape, dtype = config.vision.encoder, images[0].shape[1:], images[0].dtype
    pixels = len(shape) == 3 and shape[0] == 3
    patches = shape == (tower.grid**2, tower.width)
    if not (pixels or patches) or any(image.shape[1:] != shape or not image.numel() for image in images):
        found = sorted({tuple(image.shape) for image in images})
        raise ValueError(
            f"pictures of shapes {found}; allowed is (frames, 3, H, W), or of all "
            f"(frames, {tower.grid**2}, {tower.width}), with a frame at least and one size in a batch"
        )
    if any(image.dtype != dtype for image in images):  # joined, bytes would silently pass for normalised pixels
        raise ValueError(f"pictures of dtypes {sorted({str(image.dtype) for image in images})}; allowed is one a batch")
    together = torch.cat(images)
    ends = accumulate(map(len, images))
    frames = _padded([list(range(end - len(image), end)) for image, end in zip(images, ends, strict=True)], -1)
    return (together, None, frames) if pixels else (None, together, frames)
