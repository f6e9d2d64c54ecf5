"""Samples as token sequences.

    pair, few-shot prompt    <image> caption <|endofchunk|> <image> caption <|endofchunk|> …
    text alone               <|endoftext|> caption <|endoftext|> …
    mode prefix              neighbour <|neighbor|> neighbour <|neighbor|> <image> caption <|endofchunk|>

Where the tokenizer has a begin-of-text, each begins with it (text alone then not with <|endoftext|>).
Shapes: F frames of a picture (1) or video, H × W px, S patch tokens of width E.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from torch import Tensor

from model.config import ReViLMConfig
from model.tokenizer import Tokenizer, check_fits


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A picture, or a video, and its text."""

    image: Tensor | None = None  # (F, 3, H, W) pixels or (F, S, E) patch tokens; a picture is a video of one frame
    prompt: str = ""  # read, not learned, such as "Output:"
    text: str = ""
    neighbors: Sequence[str] = ()  # captions, nearest first; an empty one is an empty slot
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
        """text_tokens: the longest text of a chunk; a longer one is cut and gets no end.

        Raises ValueError for a tokenizer that does not fit the model's subword table."""
        check_fits(tokenizer, config.language_model)
        self.config, self.tokenizer, self.text_tokens = config, tokenizer, text_tokens

    def segment(self, chunks: Sequence[Chunk]) -> Segment:
        """Raises ValueError for more neighbours than the model's retrieval.neighbors, and for neighbours of a text
        without a picture among pictures."""
        pictured = any(chunk.image is not None for chunk in chunks)
        self._check(chunks, pictured=pictured)
        end_of_text = self.config.language_model.end_of_text
        built = Segment()
        if self.tokenizer.begin_of_text is not None:
            built.extend([self.tokenizer.begin_of_text])
        elif not pictured:
            built.extend([end_of_text])
        for number, chunk in enumerate(chunks):
            if chunk.image is not None or number == 0 and not pictured:
                self._add_neighbors(built, chunk.neighbors)
            if chunk.image is not None:
                built.images.append(chunk.image)
                built.extend([self.config.image_id])
            self._add_text(built, chunk, self.config.end_of_chunk_id if pictured else end_of_text)
        return built

    def _add_neighbors(self, built: Segment, neighbors: Sequence[str]) -> None:
        mode = self.config.retrieval.mode
        if mode == "none":
            return
        end = self.config.neighbor_id if mode == "prefix" else self.config.language_model.end_of_text
        room = self.config.retrieval.caption_tokens - 1
        captions = [caption for caption in map(self.tokenizer.encode, neighbors) if caption]
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
        allowed = self.config.retrieval.neighbors
        for number, chunk in enumerate(chunks):
            if isinstance(chunk.neighbors, str):
                raise ValueError(f"the neighbours of chunk {number} are one text; they should be a list of captions")
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
    with_room: list[list[int]] = [[] for _ in range(row_tokens + 1)]  # by tokens that are free: a heap of rows
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        if length > row_tokens:
            raise ValueError(f"sample {index} has {length} tokens; a row holds {row_tokens}")
        fitting = [(with_room[free][0], free) for free in range(length, row_tokens + 1) if with_room[free]]
        if fitting:
            row, free = min(fitting)
            heappop(with_room[free])
        else:
            row, free = len(rows), row_tokens
            rows.append([])
        rows[row].append(index)
        heappush(with_room[free - length], row)
    return rows
