"""A checkpoint that answers prompts: by text of its own, or by how probable given answers are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.batch import Batch, collate
from model.checkpoint import configuration_of, from_pretrained
from model.config import ReViLMConfig
from model.generate import generate
from model.revilm import ReViLM
from model.score import log_likelihood
from model.sequence import Chunk, Segment, SequenceBuilder
from model.training.checkpoints import KEY_ENCODERS, MODEL, result_of
from model.training.key_encoders import Encoder
from pipeline.checksums import sha256_of_file, sha256_of_json
from pipeline.errors import InputError

CONFIG = "config.json"  # of a checkpoint, else it is the folder of a finished stage

Prompt = Sequence[Chunk]
"""Examples, and last what is asked, which does not end."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    beams: int = 3
    length_penalty: float = 0.0
    max_new_tokens: int = 20
    cut: Sequence[str] = ("\n",)  # an answer ends in front of the first of these

    def tidied(self, text: str) -> str:
        """In one line, without quotation marks around it."""
        for end in self.cut:
            text = text.lstrip().partition(end)[0]
        return " ".join(text.split()).strip('"“”').strip()


@dataclass(frozen=True)
class About:
    """What a checkpoint says of itself, without its weights. key_encoders: by whose vectors the neighbours that it was
    trained with were found; none: it does not say."""

    config: ReViLMConfig
    key_encoders: frozenset[Encoder]

    @classmethod
    def of(cls, checkpoint: str) -> "About":
        """Raises InputError where it cannot be opened, or is of a model that sees no pictures."""
        with model_folder(checkpoint, CONFIG) as folder, _faults_told(checkpoint):
            config = configuration_of(folder)
        if config.vision is None:
            raise InputError(f"{checkpoint} is a model without an image encoder, such as that of stage language")
        return cls(config, _key_encoders(checkpoint))

    @property
    def neighbors(self) -> int:
        """k: as many the model reads of a picture."""
        return 0 if self.config.retrieval.mode == "none" else self.config.retrieval.neighbors


@dataclass(frozen=True)
class Answerer:
    model: ReViLM
    builder: SequenceBuilder
    device: str = "cpu"

    @classmethod
    def open(cls, checkpoint: str) -> "Answerer":
        """checkpoint: a folder of `from_pretrained`, or that of a finished stage (ROOT/pretrain).

        Raises InputError where it cannot be opened, or is of a model that sees no pictures.
        """
        About.of(checkpoint)  # refuses one without vision before its weights are read
        with model_folder(checkpoint) as folder, _faults_told(checkpoint):
            found = from_pretrained(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(found.model.to(device).eval(), SequenceBuilder(found.model.config, found.tokenizer), device)

    def room(self, prompt: Prompt) -> int:
        """Positions that are left behind it; negative where it is too long."""
        return self.model.config.language_model.positions - len(self.builder.segment(prompt))

    @torch.inference_mode()
    def say(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """Raises ValueError as generate does."""
        found = generate(
            self.model,
            self._batch([self.builder.segment(prompt) for prompt in prompts]),
            max_new_tokens=decoding.max_new_tokens,
            beams=decoding.beams,
            length_penalty=decoding.length_penalty,
            vocabulary=self.builder.tokenizer.size,
        )
        return [decoding.tidied(self.builder.tokenizer.decode(each.tokens)) for each in found]

    def tokens(self, answer: str) -> int:
        """With the end."""
        return len(self.builder.tokenizer.encode(answer)) + 1

    @torch.inference_mode()
    def log_likelihood(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> list[Tensor]:
        """answers: of every prompt, any number → Σ log p of the tokens of each and of its end, float32 on the CPU.

        Raises ValueError as model.score.log_likelihood does."""
        end = self.model.config.end_of_chunk_id
        encoded = [[[*self.builder.tokenizer.encode(answer), end] for answer in each] for each in answers]
        batch = self._batch([self.builder.segment(prompt) for prompt in prompts])
        return [found.cpu() for found in log_likelihood(self.model, batch, encoded)]

    def _batch(self, segments: Sequence[Segment]) -> Batch:
        return collate([[each] for each in segments], self.model.config).to(self.device)


def identity_of(checkpoint: str) -> str:
    """sha256 over the files of its model: what it answers follows from them. Raises InputError as About.of does."""
    with model_folder(checkpoint) as folder:
        return sha256_of_json({path.name: sha256_of_file(path) for path in sorted(folder.iterdir()) if path.is_file()})


def _key_encoders(checkpoint: str) -> frozenset[Encoder]:
    if Path(checkpoint, CONFIG).is_file():
        return frozenset()
    checkpoints, record = result_of(checkpoint.rstrip("/"))
    return frozenset((model, weights) for model, weights in checkpoints.state(record).get(KEY_ENCODERS, []))


@contextmanager
def _faults_told(checkpoint: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise InputError(f"{checkpoint} is no checkpoint that can be opened: {error}") from None


@contextmanager
def model_folder(checkpoint: str, begin: str = "") -> Iterator[Path]:
    """Where its files lie: those of a finished stage as local ones, checked. begin: of the names of those that are
    wanted. Raises InputError as result_of and Checkpoints.opened do."""
    if Path(checkpoint, CONFIG).is_file():
        yield Path(checkpoint)
        return
    checkpoints, record = result_of(checkpoint.rstrip("/"))
    with checkpoints.opened(record, f"{MODEL}/{begin}") as opened:
        yield opened / MODEL
