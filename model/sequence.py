"""Samples as token sequences: what a text position is, and which picture and neighbours it may look at.

    pair, few-shot prompt    <image> caption <|endofchunk|> <image> caption <|endofchunk|> …
    text alone               <|endoftext|> caption <|endoftext|> …
    mode prefix              neighbour <|neighbor|> neighbour <|neighbor|> <image> caption <|endofchunk|>

Each begins with the tokenizer's begin-of-text where the tokenizer has one.
Shapes: B rows, T text positions, N pictures or videos of ΣF frames, M sets of neighbours of W tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.config import ReViLMConfig
from model.routing import Routing

IGNORED = -100
"""The target of a position without a loss."""


class Tokenizer(Protocol):
    @property
    def begin_of_text(self) -> int | None: ...
    @property
    def end_of_text(self) -> int: ...
    def encode(self, text: str) -> list[int]:
        """Ids of the text alone; no special token, whatever the text spells."""
        ...


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A picture, or a video, and its text."""

    image: Tensor | None = None  # (F, 3, H, W) pixels or (F, S, E) patch tokens; a picture is a video of one frame
    prompt: str = ""  # read, not learned, such as "Output:"
    text: str = ""
    neighbors: Sequence[str] = ()  # captions, nearest first
    learned: bool = True  # whether there is a loss on the text and its end
    ends: bool = True  # False: generation goes on from here


@dataclass
class Segment:
    """A sample in tokens. A row of a batch holds one or, packed, several."""

    tokens: list[int] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)  # the token is a target
    retrieved: list[bool] = field(default_factory=list)  # the token belongs to a neighbour (mode prefix)
    images: list[Tensor] = field(default_factory=list)
    evidence: list[list[int]] = field(default_factory=list)  # per picture, or one for text alone; may be empty
    cut: int = 0  # texts and neighbours that were longer than allowed

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, tokens: list[int], *, learned: bool = False, retrieved: bool = False) -> None:
        self.tokens += tokens
        self.learned += [learned] * len(tokens)
        self.retrieved += [retrieved] * len(tokens)


class SequenceBuilder:
    """Chunks → segments, for one tokenizer and one model."""

    def __init__(self, config: ReViLMConfig, tokenizer: Tokenizer, *, text_tokens: int = 64) -> None:
        """text_tokens: the longest text of a chunk; a longer one is cut and gets no end."""
        self.config, self.tokenizer, self.text_tokens = config, tokenizer, text_tokens

    def segment(self, chunks: Sequence[Chunk]) -> Segment:
        """Raises ValueError for more neighbours than the model's retrieval.neighbors, for neighbours of a text without
        a picture among pictures, and for pictures where the model has no vision."""
        pictured = any(chunk.image is not None for chunk in chunks)
        self._check(chunks, pictured=pictured)
        built = Segment()
        if self.tokenizer.begin_of_text is not None:
            built.extend([self.tokenizer.begin_of_text])
        elif not pictured:
            built.extend([self.tokenizer.end_of_text])
        for number, chunk in enumerate(chunks):
            if chunk.image is not None or number == 0 and not pictured:
                self._add_neighbors(built, chunk.neighbors)
            if chunk.image is not None:
                built.images.append(chunk.image)
                built.extend([self.config.image_id])
            self._add_text(built, chunk, self.config.end_of_chunk_id if pictured else self.tokenizer.end_of_text)
        return built

    def _add_neighbors(self, built: Segment, neighbors: Sequence[str]) -> None:
        mode = self.config.retrieval.mode
        if mode == "none":
            return
        end = self.config.neighbor_id if mode == "prefix" else self.tokenizer.end_of_text
        room = self.config.retrieval.caption_tokens - 1
        captions = [self.tokenizer.encode(text) for text in neighbors]
        built.cut += sum(len(caption) > room for caption in captions)
        tokens = [token for caption in captions for token in [*caption[:room], end]]
        if mode == "cross":
            built.evidence.append(tokens)
        else:
            built.extend(tokens, learned=self.config.retrieval.prefix_loss > 0, retrieved=True)

    def _add_text(self, built: Segment, chunk: Chunk, end: int) -> None:
        built.extend(self.tokenizer.encode(chunk.prompt))
        text = self.tokenizer.encode(chunk.text)
        if len(text) > self.text_tokens:
            built.cut += 1
        built.extend(text[: self.text_tokens], learned=chunk.learned)
        if chunk.ends and len(text) <= self.text_tokens:
            built.extend([end], learned=chunk.learned)

    def _check(self, chunks: Sequence[Chunk], *, pictured: bool) -> None:
        if not chunks:
            raise ValueError("a sample without a chunk; allowed is one at least")
        if pictured and self.config.vision is None:
            raise ValueError("a sample holds a picture, but the model's configuration has no vision")
        allowed = self.config.retrieval.neighbors
        for number, chunk in enumerate(chunks):
            found = len(chunk.neighbors)
            if self.config.retrieval.mode != "none" and found > allowed:
                raise ValueError(f"chunk {number} has {found} neighbours; the model's retrieval.neighbors is {allowed}")
            if found and chunk.image is None and (pictured or number):
                raise ValueError(f"chunk {number} has neighbours but no picture; of text alone only chunk 0 has them")


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """First-fit decreasing: rows of indices whose lengths sum up to row_tokens at most.

    Raises ValueError for a length beyond row_tokens.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if lengths[index] > row_tokens:
            raise ValueError(f"sample {index} has {lengths[index]} tokens; a row holds {row_tokens}")
        fits = next((row for row, free in enumerate(room) if free >= lengths[index]), None)
        if fits is None:
            rows.append([])
            room.append(row_tokens)
            fits = len(rows) - 1
        rows[fits].append(index)
        room[fits] -= lengths[index]
    return rows


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # (B, T) int64, padded on the right
    segments: Tensor  # (B, T) int64: 1… within a row; 0 is padding
    positions: Tensor  # (B, T) int64, from 0 in every segment
    targets: Tensor  # (B, T) int64: the next token where it is learned, else IGNORED
    retrieved: Tensor  # (B, T) bool: tokens of neighbours (mode prefix)
    image: Tensor  # (B, T) int64: the picture that a position looks at, 0…N − 1, −1 for none
    evidence_set: Tensor  # (B, T) int64: likewise the set of neighbours, 0…M − 1
    image_routing: Routing
    evidence_routing: Routing
    frames: list[int]  # (N)
    pixels: Tensor | None  # (ΣF, 3, H, W)
    patches: Tensor | None  # (ΣF, S, E), in place of pixels
    evidence: Tensor  # (M, W) int64, padded on the right with any id
    evidence_mask: Tensor  # (M, W) bool; every set has a token
    packed: bool  # a row holds several segments

    def to(self, device: torch.device | str) -> "Batch":
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor | Routing)
        }
        return replace(self, **moved)


def collate(rows: Sequence[Sequence[Segment]], config: ReViLMConfig) -> Batch:
    """Rows of segments → a batch; its pictures and sets of neighbours in reading order.

    Raises ValueError where a segment has another number of pictures than of `<image>` tokens, and where pixels and
    patch tokens are mixed.
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
    pixels, patches, frames = _pictures([picture for segment in flat for picture in segment.images])
    return Batch(
        tokens=tokens,
        segments=segments,
        positions=_positions(segments),
        targets=_targets(tokens, segments, learned),
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
    marks, images = segment.tokens.count(config.image_id), len(segment.images)
    if marks != images:
        raise ValueError(f"a sample has {marks} <image> tokens and {images} pictures; each needs one of the other")
    sets, due = len(segment.evidence), max(images, 1)
    if config.retrieval.mode == "cross" and sets != due:
        raise ValueError(f"a sample of {images} pictures has {sets} sets of neighbours; it needs {due}, empty or not")


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    if not rows:
        return torch.zeros(0, 0, dtype=torch.int64)
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=filler)


def _positions(segments: Tensor) -> Tensor:
    """From 0 in every segment."""
    column = torch.arange(segments.shape[1]).expand_as(segments)
    new = torch.ones_like(segments, dtype=torch.bool)
    new[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return column - torch.where(new, column, 0).cummax(1).values


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


def _pictures(images: list[Tensor]) -> tuple[Tensor | None, Tensor | None, list[int]]:
    """Pixels or patch tokens of all pictures, one after the other, and the frames of each."""
    kinds = {image.dim() for image in images}
    if not kinds:
        return None, None, []
    if len(kinds) > 1 or kinds - {3, 4}:
        found = sorted({tuple(image.shape) for image in images})
        raise ValueError(
            f"pictures of shapes {found}; allowed is (frames, 3, H, W), or of all (frames, patches, width)"
        )
    together = torch.cat(images)
    frames = [len(image) for image in images]
    return (together, None, frames) if kinds == {4} else (None, together, frames)
