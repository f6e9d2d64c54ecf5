"""Losses and captions of held-out samples, one by one.

Shapes: B rows of T text positions, of which P predict, D text width; n samples.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch, collate
from model.evaluation.bootstrap import Floats
from model.freezing import train_mode
from model.generate import generate
from model.revilm import ReViLM
from model.sequence import Chunk, Segment, SequenceBuilder
from model.training.samples import Sample


@contextmanager
def evaluating(model: ReViLM) -> Iterator[None]:
    """Evaluation mode, in which no token of a neighbour is dropped, and no gradients. A model in training is afterwards
    as train_mode() sets it."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            train_mode(model)


def caption_nats(model: ReViLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss of the captions of every row: nats (B) float64 and tokens (B) int64, both on the CPU."""
    # The token that is predicted stands one to the right, and so does the flag that it is a neighbour's.
    retrieved = batch.retrieved.roll(-1, dims=1).flatten()[batch.predicting]
    places = batch.predicting[~retrieved]
    hidden = model.hidden(model.embed(batch.tokens), model.view_of(batch), model.condition(batch))
    logits = model.logits(hidden.flatten(0, 1)[places])
    nats = F.cross_entropy(logits.float(), batch.targets.flatten()[places], reduction="none").cpu().double()
    height, width = batch.tokens.shape
    rows = (places // width).cpu()
    return torch.zeros(height, dtype=torch.float64).index_add(0, rows, nats), torch.bincount(rows, minlength=height)


@dataclass(frozen=True)
class HeldOut:
    """A model and what it takes to ask it, batch by batch, a row a sample."""

    model: ReViLM
    builder: SequenceBuilder
    device: torch.device | str
    batches: Sequence[Sequence[int]]  # places in the list of samples; all of them, each once

    def losses(self, samples: Sequence[Sample]) -> tuple[Floats, Floats]:
        """→ nats (n) and tokens (n). Raises ValueError for a sample without a token to learn."""
        nats, tokens = np.zeros(len(samples)), np.zeros(len(samples))
        for places in self.batches:
            rows = [self.builder.segment(samples[place].chunks) for place in places]
            nats[places], tokens[places] = caption_nats(self.model, self._batch(rows))
        if not tokens.all():
            raise ValueError(
                f"sample {samples[int(tokens.argmin())].id} has no token to learn; allowed is one at least"
            )
        return nats, tokens

    def captions(self, samples: Sequence[Sample], *, max_new_tokens: int, beams: int) -> list[str]:
        """The model's own text of every sample's last chunk; at most max_new_tokens, fewer where its positions end.

        Raises ValueError as generate does."""
        said: dict[int, str] = {}
        for places in self.batches:
            prompts = [self.builder.segment([*samples[place].chunks[:-1], _asked(samples[place])]) for place in places]
            room = self.model.config.language_model.positions - max(map(len, prompts))
            found = generate(
                self.model,
                self._batch(prompts),
                max_new_tokens=min(max_new_tokens, room),
                beams=beams,
                vocabulary=self.builder.tokenizer.size,
            )
            for place, each in zip(places, found, strict=True):
                said[place] = self.builder.tokenizer.decode(each.tokens).strip()
        return [said[place] for place in range(len(samples))]

    def _batch(self, rows: Sequence[Segment]) -> Batch:
        return collate([[row] for row in rows], self.model.config).to(self.device)


def _asked(sample: Sample) -> Chunk:
    return replace(sample.chunks[-1], text="", ends=False)
