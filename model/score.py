"""How probable given continuations of a prompt are: closed-ended tasks.

Prompts, pictures and neighbours are read once; the continuations of a prompt lie one after the other in its row.
Shapes: B prompts, t positions of continuations in a row, V ids with a logit.
"""

from collections.abc import Sequence
from itertools import pairwise, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch
from model.config import ReViLMConfig
from model.prompts import Prompts, check_prompts
from model.revilm import ReViLM
from model.sequence import pack

Continuation = Sequence[int]

ROW_TOKENS = 128
"""Positions that are read at once after a prompt: matrices of a useful size, and logits that fit into memory."""


@torch.no_grad()
def log_likelihood(model: ReViLM, batch: Batch, continuations: Sequence[Sequence[Continuation]]) -> list[Tensor]:
    """Σ log p of the tokens of every continuation, given its prompt; 0 of an empty one.

    batch: prompts, as for generate; continuations: of every prompt, any number. The end counts where it is among the
    tokens: `<|endofchunk|>` is config.end_of_chunk_id.
    → for every prompt float32, one a continuation.
    Raises ValueError for an id that is no text, for a prompt that with a continuation goes beyond the model's
    positions, and for a batch or model that generate refuses.
    """
    _check(model, batch, continuations)
    row_tokens = max(ROW_TOKENS, max((len(tokens) for each in continuations for tokens in each), default=0))
    row_tokens = min(row_tokens, model.config.language_model.positions)
    counts = [len(each) for each in continuations]
    rows = [_rows(each, sum(counts[:prompt]), row_tokens) for prompt, each in enumerate(continuations)]
    width = max((len(row) for each in rows for row in each), default=0)
    prompts = Prompts(model, batch, width=width)
    scores = _of_first_tokens(model.logits(prompts.last[:, 0]), continuations)
    for together in zip_longest(*rows, fillvalue=[]):
        padded = torch.tensor([row + [_PADDING] * (width - len(row)) for row in together], device=scores.device)
        token, offset, number, following = padded.unbind(-1)
        seen = (number[:, :, None] == number[:, None, :]).tril()
        hidden = prompts.read(token, prompts.lengths + offset, seen)
        real = number >= 0
        nats = F.cross_entropy(model.logits(hidden[real]).float(), following[real], reduction="none")
        scores.index_add_(0, number[real], -nats)
    return list(torch.split(scores, counts))


_Place = tuple[int, int, int, int]
"""Token that is read, how far behind the prompt, number of its continuation in the batch, token that follows."""
# Not behind the prompt: one without a continuation may have all of the positions.
_PADDING: _Place = (0, -1, -1, 0)


def _rows(continuations: Sequence[Continuation], first: int, row_tokens: int) -> list[list[_Place]]:
    """All that is read of a prompt's continuations, the last token of each left out; first: the number of the first."""
    rows = [
        [
            (token, offset, first + number, following)
            for number in packed
            for offset, (token, following) in enumerate(pairwise(continuations[number]))
        ]
        for packed in pack([max(len(tokens) - 1, 0) for tokens in continuations], row_tokens)
    ]
    return [row for row in rows if row]


def _of_first_tokens(logits: Tensor, continuations: Sequence[Sequence[Continuation]]) -> Tensor:
    """logits (B, V) behind the prompts → log p of the first token of every continuation in the batch."""
    log_p = F.pad(logits.float().log_softmax(-1), (0, 1))  # what an empty one begins with has 0
    begins = [(prompt, tokens[0] if tokens else -1) for prompt, each in enumerate(continuations) for tokens in each]
    prompt, token = torch.tensor(begins, dtype=torch.int64, device=logits.device).view(-1, 2).unbind(-1)
    return log_p[prompt, token]


def _check(model: ReViLM, batch: Batch, continuations: Sequence[Sequence[Continuation]]) -> None:
    if len(continuations) != len(batch.tokens):
        raise ValueError(f"continuations for {len(continuations)} prompts; the batch has {len(batch.tokens)}")
    check_prompts(model, batch, [max(map(len, each), default=0) for each in continuations])
    for prompt, each in enumerate(continuations):
        for tokens in each:
            _check_ids(tokens, prompt, model.config)


def _check_ids(tokens: Continuation, prompt: int, config: ReViLMConfig) -> None:
    subwords = config.language_model.vocabulary
    for token in tokens:
        if not 0 <= token < subwords and not (config.vision and token == config.end_of_chunk_id):
            end = f" and {config.end_of_chunk_id}, <|endofchunk|>" if config.vision else ""
            raise ValueError(f"a continuation of prompt {prompt} has id {token}; allowed are 0…{subwords - 1}{end}")
