"""Text from prompts: greedy, beam search, sampling (Re-ViLM §5.1: beam 3).

Shapes: B prompts of T tokens at most, W beams, s new tokens so far, n candidates, D text width, V ids with a logit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch
from model.config import SPECIAL_TOKENS
from model.language_model import TextView
from model.prompts import Prompts, check_prompts, rerouted
from model.revilm import ReViLM


@dataclass(frozen=True)
class Generated:
    tokens: list[int]  # new subwords, without the stop
    score: float  # Σ log p, of the stop too where it stopped, ÷ (number of summands)**length_penalty


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Tokens are drawn; with top_k and top_p from the most probable ones only."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None  # the fewest tokens that together have this probability
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; allowed is > 0 (greedy is beams=1 without sampling)")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; allowed is ≥ 1, or None for all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; allowed is 0 < p ≤ 1, or None for all tokens")

    def draw(self, log_p: Tensor, generator: torch.Generator) -> Tensor:
        """log_p (B, V), −inf where an id is barred → ids (B, 1)."""
        scaled = log_p / self.temperature
        if self.top_k is not None:
            least = scaled.topk(min(self.top_k, scaled.shape[1])).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        if self.top_p is not None:
            ordered, order = scaled.sort(descending=True)
            probability = ordered.softmax(1)
            ordered = ordered.masked_fill(probability.cumsum(1) - probability >= self.top_p, -torch.inf)
            scaled = scaled.scatter(1, order, ordered)
        return torch.multinomial(scaled.softmax(1), 1, generator=generator)


@torch.no_grad()
def generate(
    model: ReViLM,
    batch: Batch,
    *,
    max_new_tokens: int = 10,
    min_new_tokens: int = 0,
    beams: int = 3,
    length_penalty: float = 0.0,
    sampling: Sampling | None = None,
    vocabulary: int | None = None,
    use_cache: bool = True,
) -> list[Generated]:
    """The best continuation of every prompt: at most max_new_tokens subwords, or those in front of `<|endofchunk|>` or
    end-of-text. The rows are prompts, one each, whose last chunk has `ends=False`.

    beams: 1 is greedy. A hypothesis ends where a stop is among the `beams` best candidates; the search ends where no
    running beam can become better than the best that has ended.
    length_penalty: 0 compares sums of log-probabilities, 1 their means.
    vocabulary: ids from here on only fill up the subword table and never come out; None: all of the table may.
    use_cache: False reads the whole text anew for every token, to compare with.

    Log-probabilities are over all ids, as in log_likelihood; `<image>`, `<|pad|>` and `<|neighbor|>` are barred after.
    Raises ValueError for a number that is not allowed, for packed rows, for a prompt that with max_new_tokens goes
    beyond the model's positions, and for a model in training mode.
    """
    subwords = model.config.language_model.vocabulary
    vocabulary = subwords if vocabulary is None else vocabulary
    if not 1 <= vocabulary <= subwords:
        raise ValueError(f"vocabulary is {vocabulary}; allowed are 1…{subwords}, the rows of the subword table")
    _check_search(max_new_tokens, min_new_tokens, beams, vocabulary, sampling)
    check_prompts(model, batch, [max_new_tokens] * len(batch.tokens))

    read = _CachedBeams(model, batch, beams, max_new_tokens) if use_cache else _RecomputedBeams(model, batch)
    stops, barred = _rules(model, vocabulary, batch.tokens.device)
    pick = _best(beams, int(stops.sum())) if sampling is None else _drawn(sampling, batch.tokens.device)
    running = _Hypotheses.empty(batch.tokens)
    ended = _Ended.none(batch.tokens, max_new_tokens)
    for length in range(1, max_new_tokens + 1):
        log_p = model.logits(read(running)).float().log_softmax(-1)
        log_p = log_p.masked_fill(barred | stops if length <= min_new_tokens else barred, -torch.inf)
        candidates = running.extended(log_p, pick(running.total, log_p))
        stopped = stops[candidates.tokens[..., -1]]
        ending = stopped if length < max_new_tokens else torch.ones_like(stopped)
        ended = ended.or_better(candidates.best_of(ending[:, :beams], 1), length_penalty)
        running = candidates.best_of(~stopped, beams)
        within_reach = running.total[:, 0] / (max_new_tokens if length_penalty > 0 else length) ** length_penalty
        if bool((within_reach <= ended.score).all()):
            break
    return ended.generated(stops)


@dataclass(frozen=True)
class _Hypotheses:
    """Best first."""

    tokens: Tensor  # (B, W, s) int64
    parent: Tensor  # (B, W) int64: which of the hypotheses of one token less it continues
    total: Tensor  # (B, W): Σ log p; −inf is none

    @classmethod
    def empty(cls, prompts: Tensor) -> "_Hypotheses":
        parent = prompts.new_zeros(len(prompts), 1)
        return cls(parent[..., None][..., :0], parent, parent.float())

    def extended(self, log_p: Tensor, index: Tensor) -> "_Hypotheses":
        """log_p (B, W, V) of the next token; index (B, n) into the W·V extensions."""
        parent, token = index // log_p.shape[2], index % log_p.shape[2]
        tokens = torch.cat((self.tokens.take_along_dim(parent[..., None], 1), token[..., None]), dim=2)
        return _Hypotheses(tokens, parent, self.total.gather(1, parent) + log_p.flatten(1).gather(1, index))

    def best_of(self, allowed: Tensor, number: int) -> "_Hypotheses":
        """allowed (B, k) bool: which of the first k."""
        total, at = self.total[:, : allowed.shape[1]].masked_fill(~allowed, -torch.inf).topk(number)
        return _Hypotheses(self.tokens.take_along_dim(at[..., None], 1), self.parent.gather(1, at), total)


@dataclass(frozen=True)
class _Ended:
    """The best hypothesis of every prompt that has ended."""

    tokens: Tensor  # (B, max_new_tokens) int64, the stop included
    length: Tensor  # (B) int64
    score: Tensor  # (B)

    @classmethod
    def none(cls, prompts: Tensor, max_new_tokens: int) -> "_Ended":
        tokens = prompts.new_zeros(len(prompts), max_new_tokens)
        return cls(tokens, tokens[:, 0], tokens[:, 0].float() - torch.inf)

    def or_better(self, found: _Hypotheses, length_penalty: float) -> "_Ended":
        """found: one a prompt."""
        length = found.tokens.shape[2]
        tokens = F.pad(found.tokens[:, 0], (0, self.tokens.shape[1] - length))
        score = found.total[:, 0] / length**length_penalty
        better = score > self.score
        return _Ended(
            torch.where(better[:, None], tokens, self.tokens),
            torch.where(better, length, self.length),
            torch.where(better, score, self.score),
        )

    def generated(self, stops: Tensor) -> list[Generated]:
        stopping = set(stops.nonzero()[:, 0].tolist())
        return [
            Generated([token for token in tokens[:length] if token not in stopping], score)
            for tokens, length, score in zip(
                self.tokens.tolist(), self.length.tolist(), self.score.tolist(), strict=True
            )
        ]


class _CachedBeams:
    """The last hidden state of every beam, of which the newest token alone is read."""

    def __init__(self, model: ReViLM, batch: Batch, beams: int, max_new_tokens: int) -> None:
        self.prompts = Prompts(model, batch, width=beams, reads=max_new_tokens - 1)
        self.own = torch.eye(beams, dtype=torch.bool, device=batch.tokens.device).expand(len(batch.tokens), -1, -1)
        self.past = self.own[:, :1, :0]  # (B, W, W·s) bool: which positions after the prompt a beam consists of

    def __call__(self, running: _Hypotheses) -> Tensor:
        """→ (B, W, D). Called once for every length, from 0."""
        length = running.tokens.shape[2]
        if length == 0:
            return self.prompts.last
        self.past = torch.cat((self.past.take_along_dim(running.parent[..., None], 1), self.own), dim=2)
        positions = (self.prompts.lengths + length - 1).expand_as(running.parent)
        return self.prompts.read(running.tokens[..., -1], positions, self.past)


class _RecomputedBeams:
    """The last hidden state of every beam, each a row of its own, read from its start."""

    def __init__(self, model: ReViLM, batch: Batch) -> None:
        self.model, self.batch, self.conditioning = model, batch, model.condition(batch)
        self.lengths = (batch.segments > 0).sum(1, keepdim=True)

    def __call__(self, running: _Hypotheses) -> Tensor:
        """→ (B, W, D)."""
        beams, new = running.tokens.shape[1:]
        lengths = self.lengths.repeat_interleave(beams, 0)
        tokens = self._rows(self.batch.tokens, beams, new)
        columns = lengths + torch.arange(new, device=tokens.device)
        tokens = tokens.scatter(1, columns, running.tokens.flatten(0, 1))
        conditioning = rerouted(
            self.conditioning, self._rows(self.batch.image, beams, new), self._rows(self.batch.evidence_set, beams, new)
        )
        view = TextView.causal(len(tokens), tokens.shape[1], tokens.device)
        hidden = self.model.hidden(self.model.embed(tokens), view, conditioning)
        return hidden.take_along_dim((lengths + new - 1)[..., None], 1).view(*running.parent.shape, -1)

    def _rows(self, prompts: Tensor, beams: int, new: int) -> Tensor:
        """(B, T) → (B·W, T + new): what a prompt ends with stays so."""
        column = torch.arange(prompts.shape[1] + new, device=prompts.device)
        return prompts.gather(1, column.minimum(self.lengths - 1)).repeat_interleave(beams, 0)


_Pick = Callable[[Tensor, Tensor], Tensor]
"""total (B, W), log_p (B, W, V) → index (B, n) into the W·V extensions, best first."""


def _best(beams: int, stops: int) -> _Pick:
    # A beam has `stops` candidates that end at most, so that of these `beams` at least go on.
    wanted = 1 if beams == 1 else beams * (1 + stops)

    def pick(total: Tensor, log_p: Tensor) -> Tensor:
        totals = (total[..., None] + log_p).flatten(1)
        return totals.topk(min(wanted, totals.shape[1])).indices

    return pick


def _drawn(sampling: Sampling, device: torch.device) -> _Pick:
    generator = torch.Generator(device).manual_seed(sampling.seed)
    return lambda _, log_p: sampling.draw(log_p[:, 0], generator)


def _rules(model: ReViLM, vocabulary: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(V) bool each: ids that end a hypothesis, and ids that never come out."""
    config = model.config
    subwords = config.language_model.vocabulary
    stops = torch.zeros(subwords + len(SPECIAL_TOKENS) if config.vision else subwords, dtype=torch.bool)
    stops[config.language_model.end_of_text] = True
    if config.vision:
        stops[config.end_of_chunk_id] = True
    barred = ~stops
    barred[:vocabulary] = False
    return stops.to(device), barred.to(device)


def _check_search(
    max_new_tokens: int, min_new_tokens: int, beams: int, vocabulary: int, sampling: Sampling | None
) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; allowed is ≥ 1")
    if not 0 <= min_new_tokens <= max_new_tokens:
        raise ValueError(f"min_new_tokens is {min_new_tokens}; allowed are 0…{max_new_tokens}, max_new_tokens")
    if not 1 <= beams <= vocabulary:
        raise ValueError(f"beams is {beams}; allowed are 1…{vocabulary}, the size of the vocabulary")
    if sampling is not None and beams != 1:
        raise ValueError(f"sampling with {beams} beams; what is drawn is one text: set beams=1")
