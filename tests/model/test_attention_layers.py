"""Attention and the two layers of cross-attention, against attention written out position by position."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.attention import attend
from model.config import GatedCrossAttentionConfig
from model.gated_cross_attention import GatedCrossAttention
from model.retrieval_cross_attention import RetrievalCrossAttention
from model.routing import Routing
from tests.model.small_models import (
    FAMILIES,
    VISUAL_WIDTH,
    Family,
    close,
    language_model_config,
    randomise,
    written_out,
)

WIDTH, HEAD = 32, 8


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sources() -> Tensor:
    """Two rows; sources 0…3, of which nobody looks at 2."""
    return torch.tensor([[-1, 0, 0, 0, 1], [3, 3, -1, -1, 1]])


@pytest.mark.parametrize("causal", [True, False])
def test_grouped_heads_are_heads_whose_keys_and_values_are_repeated(causal: bool) -> None:
    queries, keys, values = drawn(2, 4, 5, HEAD), drawn(2, 2, 5, HEAD, seed=1), drawn(2, 2, 5, HEAD, seed=2)
    found = attend(queries, keys, values, causal=causal)
    for number in range(10):
        row, at = divmod(number, 5)
        seen = slice(0, at + 1 if causal else 5)
        all_keys, all_values = (
            each[row].repeat_interleave(2, dim=0)[:, seen].transpose(0, 1).flatten(1) for each in (keys, values)
        )
        due = written_out(queries[row, :, at].flatten(), all_keys, all_values, head_width=HEAD)
        assert close(found[row, at], due, within=1e-5)


# ---- gated ----


def gated_layer() -> GatedCrossAttention:
    layer = GatedCrossAttention(GatedCrossAttentionConfig(inner=16, head_width=HEAD), WIDTH, VISUAL_WIDTH)
    randomise(layer)
    nn.init.constant_(layer.attention_gate, 0.5)
    nn.init.constant_(layer.feed_forward_gate, 0.3)
    return layer.requires_grad_(False)


def test_a_new_gated_layer_returns_the_text() -> None:
    layer = GatedCrossAttention(GatedCrossAttentionConfig(head_width=HEAD), WIDTH, VISUAL_WIDTH)
    text = drawn(2, 5, WIDTH)
    assert torch.equal(layer(text, layer.keys_values(drawn(4, 3, VISUAL_WIDTH)), Routing.of(sources(), 4)), text)


def test_text_looks_at_all_latents_of_its_own_picture_through_both_gates() -> None:
    layer, text, latents = gated_layer(), drawn(2, 5, WIDTH), drawn(4, 3, VISUAL_WIDTH, seed=1)
    found = layer(text, layer.keys_values(latents), Routing.of(sources(), 4))
    for row, at in ((row, at) for row in range(2) for at in range(5)):
        due, picture = text[row, at], int(sources()[row, at])
        if picture >= 0:
            keys, values = layer.key_value(latents[picture]).chunk(2, dim=-1)
            due = due + math.tanh(0.5) * layer.output(
                written_out(layer.query(layer.norm(due)), keys, values, head_width=HEAD)
            )
        due = due + math.tanh(0.3) * layer.down(F.gelu(layer.up(layer.feed_forward_norm(due))))
        assert close(found[row, at], due, within=1e-5)


# ---- retrieval ----


def retrieval_layer(family: Family) -> RetrievalCrossAttention:
    layer = RetrievalCrossAttention(language_model_config(family))
    randomise(layer)
    return layer.requires_grad_(False)


EACH_ALONE = Routing.of(torch.arange(4)[:, None].expand(4, 6), 4)
"""Four sets of six tokens, a row each."""


def kept() -> Tensor:
    """Four sets of six tokens, some of them padding or dropped."""
    return torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_retrieval_layer_returns_the_text(family: Family) -> None:
    layer = RetrievalCrossAttention(language_model_config(family))
    text = drawn(2, 5, WIDTH)
    found = layer(text, layer.keys_values(drawn(4, 6, WIDTH), EACH_ALONE), kept(), Routing.of(sources(), 4))
    assert torch.equal(found, text)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_reads_the_kept_tokens_of_its_own_neighbors_and_without_neighbors_stays_as_it_is(family: Family) -> None:
    layer, text, encoded = retrieval_layer(family), drawn(2, 5, WIDTH), drawn(4, 6, WIDTH, seed=1)
    found = layer(text, layer.keys_values(encoded, EACH_ALONE), kept(), Routing.of(sources(), 4))
    assert torch.equal(found[sources() < 0], text[sources() < 0])
    for row, at in (sources() >= 0).nonzero().tolist():
        neighbors = int(sources()[row, at])
        keys, values = layer.key_value(encoded[neighbors, kept()[neighbors]]).chunk(2, dim=-1)
        due = text[row, at]
        due = due + layer.output(written_out(layer.query(layer.norm(due)), keys, values, head_width=HEAD))
        assert close(found[row, at], due, within=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_lies_under_the_mask_is_not_read(family: Family) -> None:
    layer, text, encoded = retrieval_layer(family), drawn(2, 5, WIDTH), drawn(4, 6, WIDTH, seed=1)
    other = torch.where(kept()[..., None], encoded, 100.0)
    routing = Routing.of(sources(), 4)
    found, due = (layer(text, layer.keys_values(each, EACH_ALONE), kept(), routing) for each in (other, encoded))
    assert torch.equal(found, due)
