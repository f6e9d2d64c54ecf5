"""The captions of neighbours, read in both directions."""

import pytest
import torch
from torch import Tensor

from model.language_model import LanguageModel, TextView
from model.routing import Routing
from model.text_encoder import TextEncoder
from tests.model.small_models import FAMILIES, Family, close, language_model_config, randomise

TOKENS = torch.tensor([[1, 2, 3, 29, 4, 5, 29], [7, 8, 9, 10, 29, 0, 0]])
KEEP = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]).bool()

ALONE = Routing.of(torch.zeros(1, 7, dtype=torch.int64), 1)
TWO_ROWS = Routing.of(torch.where(KEEP, torch.tensor([[0], [1]]), -1), 2)
ONE_ROW = Routing.of(torch.where(KEEP, 0, -1), 1)

of_both_families = pytest.mark.parametrize("family", FAMILIES)


def small_language_model(family: Family) -> LanguageModel:
    language_model = LanguageModel(language_model_config(family))
    randomise(language_model)
    return language_model.requires_grad_(False)


def small_encoder(family: Family, layers: int = 2) -> TextEncoder:
    encoder = TextEncoder(language_model_config(family), layers)
    randomise(encoder, seed=1)
    return encoder.requires_grad_(False)


@of_both_families
def test_it_begins_as_the_decoders_first_layers_without_their_causal_mask(family: Family) -> None:
    language_model = small_language_model(family)
    encoder = small_encoder(family, layers=language_model.config.layers)
    encoder.start_from(language_model)
    positions = torch.arange(7).expand(1, 7)
    due = language_model(language_model.table(TOKENS[:1]), TextView(positions, KEEP[:1, None, None]))
    encoded = encoder(TOKENS[:1], KEEP[:1], ALONE, language_model)
    assert close(language_model.logits(language_model.norm(encoded)), due, within=1e-5)
    two = TextEncoder(language_model.config, 2)
    two.start_from(language_model)
    for own, given in zip(two.blocks, language_model.blocks, strict=False):
        for name, weight in given.state_dict().items():
            assert torch.equal(own.state_dict()[name], weight)
            assert own.state_dict()[name].data_ptr() != weight.data_ptr()


@of_both_families
def test_every_token_reaches_every_other_of_its_set_alone(family: Family) -> None:
    language_model, encoder = small_language_model(family), small_encoder(family)
    due = TWO_ROWS.scatter(encoder(TOKENS, KEEP, TWO_ROWS, language_model))
    for at in range(7):
        changed = TOKENS.clone()
        changed[0, at] = 20
        found = TWO_ROWS.scatter(encoder(changed, KEEP, TWO_ROWS, language_model))
        assert (found[0] != due[0]).any(-1).all()
        assert torch.equal(found[1], due[1])


@of_both_families
def test_padding_reaches_nothing(family: Family) -> None:
    language_model, encoder = small_language_model(family), small_encoder(family)
    due = encoder(TOKENS, KEEP, TWO_ROWS, language_model)
    found = encoder(torch.where(KEEP, TOKENS, 17), KEEP, TWO_ROWS, language_model)
    assert torch.equal(found[KEEP], due[KEEP])
    five = Routing.of(torch.zeros(1, 5, dtype=torch.int64), 1)
    alone: Tensor = encoder(TOKENS[1:, :5], KEEP[1:, :5], five, language_model)
    assert close(alone[0], due[1, :5], within=1e-5)
    assert due.isfinite().all()


@of_both_families
def test_sets_in_one_packed_row_are_read_as_if_alone(family: Family) -> None:
    language_model, encoder = small_language_model(family), small_encoder(family)
    dropped = KEEP.clone()
    dropped[0, 1] = dropped[1, 3] = False
    for keep in (KEEP, dropped):
        apart, together = (rows.scatter(encoder(TOKENS, keep, rows, language_model)) for rows in (TWO_ROWS, ONE_ROW))
        assert close(together[keep], apart[keep], within=1e-5)


def test_the_subword_table_is_the_decoders() -> None:
    assert all(name.startswith("blocks.") for name, _ in small_encoder("gpt2").named_parameters())
