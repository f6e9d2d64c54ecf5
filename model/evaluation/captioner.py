"""Captions for pictures of any kind, with neighbours from a live index or without.

A picture passes what every fetched picture passes (judged, shrunk, stored as a JPEG), so that the model and the index
see it as they saw those of the corpus.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from model.batch import collate
from model.checkpoint import from_pretrained
from model.evaluation.given import Given
from model.evaluation.live_index import LiveIndex, Neighbor, Neighbors, Stored
from model.generate import generate
from model.revilm import ReViLM
from model.sequence import Chunk, SequenceBuilder
from model.training.checkpoints import result_of
from model.training.pictures import decode
from pipeline.errors import InputError
from stages.download import DownloadRecipe, stored_picture

CONFIG = "config.json"  # of a checkpoint, else it is the folder of a finished stage
NOTHING = Neighbors((), 0)


@dataclass(frozen=True, kw_only=True)
class Decoding:
    beams: int = 3
    length_penalty: float = 0.0
    max_new_tokens: int = 20


@dataclass(frozen=True, kw_only=True)
class Caption:
    """Of one picture: a caption, or why there is none."""

    picture: str  # its file or url
    caption: str | None = None
    error: str = ""
    neighbors: tuple[Neighbor, ...] = ()
    removed: int = 0  # hits that show the same picture
    jpeg: bytes | None = None  # as stored
    seconds: Mapping[str, float] = field(default_factory=dict)  # its share of its batch's: embed, retrieve, generate


@dataclass(frozen=True)
class Captioner:
    """index: None: the model is shown no neighbours."""

    model: ReViLM
    builder: SequenceBuilder
    index: LiveIndex | None
    decoding: Decoding = Decoding()
    device: str = "cpu"

    @classmethod
    def open(cls, checkpoint: str, index: str | None, decoding: Decoding) -> "Captioner":
        """checkpoint: a folder of `from_pretrained`, or that of a finished stage (ROOT/pretrain). index: the root of a
        run whose index is finished; of a model that reads no neighbours it is not opened.

        Raises InputError where one of the two cannot be opened.
        """
        with _model_folder(checkpoint) as folder:
            try:
                found = from_pretrained(folder)
            except (ValueError, FileNotFoundError) as error:
                raise InputError(f"{checkpoint} is no checkpoint that can be opened: {error}") from None
        if found.model.config.vision is None:
            raise InputError(f"{checkpoint} is a model without an image encoder, such as that of stage language")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        reads = found.model.config.retrieval.mode != "none"
        return cls(
            model=found.model.to(device).eval(),
            builder=SequenceBuilder(found.model.config, found.tokenizer),
            index=LiveIndex(index) if index and reads else None,
            decoding=decoding,
            device=device,
        )

    def captions(self, pictures: Iterator[Given], batch_size: int = 16) -> Iterator[Caption]:
        """In order, one of every picture."""
        while batch := list(islice(pictures, batch_size)):
            yield from self._batch(batch)

    @torch.inference_mode()
    def _batch(self, given: Sequence[Given]) -> list[Caption]:
        prepared = [_prepared(each) for each in given]
        stored = [each for each in prepared if not isinstance(each, str)]
        clock = _Clock(len(stored))
        shown = [NOTHING] * len(stored)
        if self.index and stored:
            with clock.running("embed"):
                vectors = self.index.embed(stored)
            with clock.running("retrieve"):
                shown = self.index.neighbors(stored, vectors, self.model.config.retrieval.neighbors)
        with clock.running("generate"):
            said = iter(self._generate([each.jpeg for each in stored], shown) if stored else [])
        neighbors = iter(shown)
        return [
            Caption(picture=each.name, error=made)
            if isinstance(made, str)
            else _caption(each.name, next(said), next(neighbors), made.jpeg, clock.seconds)
            for each, made in zip(given, prepared, strict=True)
        ]

    def _generate(self, jpegs: Sequence[bytes], shown: Sequence[Neighbors]) -> list[str]:
        vision = self.model.config.vision
        assert vision is not None, "checked when it was opened"
        size = vision.encoder.image_size
        rows = [
            self.builder.segment(
                [Chunk(image=decode(jpeg, size), neighbors=[each.caption for each in neighbors.kept], ends=False)]
            )
            for jpeg, neighbors in zip(jpegs, shown, strict=True)
        ]
        room = self.model.config.language_model.positions - max(map(len, rows))
        found = generate(
            self.model,
            collate([[row] for row in rows], self.model.config).to(self.device),
            max_new_tokens=min(self.decoding.max_new_tokens, room),
            beams=self.decoding.beams,
            length_penalty=self.decoding.length_penalty,
            vocabulary=self.builder.tokenizer.size,
        )
        return [self.builder.tokenizer.decode(each.tokens).strip() for each in found]


def _prepared(given: Given) -> Stored | str:
    """As the crawl would store it, or why it would not."""
    if given.body is None:
        return given.fault
    refused: list[str] = []
    made = stored_picture(given.body, DownloadRecipe(), lambda why, detail: refused.append(f"{why}: {detail}"))
    return made or refused[0]


def _caption(name: str, said: str, shown: Neighbors, jpeg: bytes, seconds: Mapping[str, float]) -> Caption:
    return Caption(picture=name, caption=said, neighbors=shown.kept, removed=shown.removed, jpeg=jpeg, seconds=seconds)


@dataclass
class _Clock:
    """Seconds a picture, of a batch of so many."""

    pictures: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] = (time.perf_counter() - started) / max(self.pictures, 1)


@contextmanager
def _model_folder(checkpoint: str) -> Iterator[Path]:
    if Path(checkpoint, CONFIG).is_file():
        yield Path(checkpoint)
        return
    checkpoints, record = result_of(checkpoint.rstrip("/"))
    with checkpoints.opened(record, "model/") as opened:
        yield opened / "model"
