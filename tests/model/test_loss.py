"""Nats of captions and of retrieved captions, apart."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from model.loss import Loss, caption_loss
from model.sequence import Chunk
from tests.model.small_models import batch_of, pair, small_config, small_model

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 4, 2, 1, 3, 3])
RETRIEVED = torch.tensor([1, 0, 0, 1, 0, 0]).bool()


def nats(row: int) -> float:
    scores: list[float] = LOGITS[row].tolist()
    return math.log(sum(math.exp(score) for score in scores)) - scores[int(TARGETS[row])]


def test_it_is_the_negative_log_likelihood_of_captions_and_of_retrieved_captions() -> None:
    loss = caption_loss(LOGITS, TARGETS, RETRIEVED)
    assert float(loss.caption) == pytest.approx(sum(nats(row) for row in (1, 2, 4, 5)), rel=1e-5)
    assert float(loss.retrieved) == pytest.approx(nats(0) + nats(3), rel=1e-5)
    assert (int(loss.caption_tokens), int(loss.retrieved_tokens)) == (4, 2)
    assert float(loss.mean()) == pytest.approx(float(loss.caption) / 4)
    weighted = caption_loss(LOGITS, TARGETS, RETRIEVED, 0.1).mean()
    assert float(weighted) == pytest.approx(float(loss.caption) / 4 + 0.1 * float(loss.retrieved) / 2)


def test_sums_over_the_parts_of_a_batch_have_the_mean_of_the_whole() -> None:
    parts = [caption_loss(LOGITS[rows], TARGETS[rows], RETRIEVED[rows]) for rows in (slice(0, 1), slice(1, 6))]
    added = replace(
        Loss(*(sum(getattr(part, each.name) for part in parts) for each in fields(Loss)[:4])), retrieved_weight=0.3
    )
    assert torch.allclose(added.mean(), caption_loss(LOGITS, TARGETS, RETRIEVED, 0.3).mean())


def test_without_a_token_it_is_zero() -> None:
    assert float(caption_loss(LOGITS[:0], TARGETS[:0], RETRIEVED[:0], 0.5).mean()) == 0.0


def test_it_is_computed_in_fp32() -> None:
    half = caption_loss(LOGITS.bfloat16(), TARGETS, RETRIEVED)
    assert half.caption.dtype == torch.float32
    assert torch.equal(half.caption, caption_loss(LOGITS.bfloat16().float(), TARGETS, RETRIEVED).caption)


def losses_of(prefix_loss: float, sample: list[Chunk]) -> Loss:
    model = small_model(small_config(mode="prefix", prefix_loss=prefix_loss))
    with torch.no_grad():
        loss: Loss = model(batch_of(model.config, [[sample]]))
    return loss


def test_the_loss_on_retrieved_captions_stands_apart_and_weight_zero_leaves_it_out() -> None:
    sample = [pair(1, "a dog", "cats", "hens"), pair(2, "two", "b")]
    without, having = losses_of(0.0, sample), losses_of(0.1, sample)
    assert torch.isclose(without.caption, having.caption, rtol=1e-6)
    assert int(without.caption_tokens) == int(having.caption_tokens) == len("a dog.two.")
    assert int(without.retrieved_tokens) == 0
    assert int(having.retrieved_tokens) == len("ats/hens/b/")
    assert float(without.mean()) == pytest.approx(float(without.caption) / 10, rel=1e-6)
    assert float(having.mean()) == pytest.approx(float(without.mean()) + 0.1 * float(having.retrieved) / 11, rel=1e-6)


def test_the_loss_of_the_model_is_that_of_its_logits_at_the_targets() -> None:
    model = small_model(small_config(mode="cross"))
    batch = batch_of(model.config, [[[pair(1, "dog", "cat")]]])
    with torch.no_grad():
        hidden = model.hidden(model.embed(batch.tokens), model.view_of(batch), model.condition(batch))
        likelihoods: Tensor = model.logits(hidden)[0].log_softmax(-1)
        found = model(batch)
    due = -sum(float(likelihoods[at, batch.tokens[0, at + 1]]) for at in range(4))
    assert float(found.caption) == pytest.approx(due, rel=1e-5)
    assert int(found.caption_tokens) == 4
