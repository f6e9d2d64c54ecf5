"""Text regrouped by what it looks at."""

import torch
from torch import Tensor

from model.routing import Routing


def sources() -> Tensor:
    """Two rows; sources 0…3, of which nobody looks at 2."""
    return torch.tensor([[-1, 0, 0, 0, 1], [3, 3, -1, -1, 1]])


def test_text_is_grouped_by_its_source_in_reading_order() -> None:
    text = torch.arange(1.0, 11.0).view(2, 5, 1)
    grouped = Routing.of(sources(), 4).gather(text)[..., 0]
    assert grouped.shape == (4, 3)
    assert grouped[0].tolist() == [2, 3, 4]
    assert grouped[1, :2].tolist() == [5, 10]
    assert grouped[3, :2].tolist() == [6, 7]


def test_what_was_grouped_comes_back_to_its_place_and_the_rest_is_zero() -> None:
    text = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    routing = Routing.of(sources(), 4)
    back = routing.scatter(routing.gather(text))
    assert torch.equal(back, torch.where(sources()[..., None] >= 0, text, 0.0))
    assert torch.equal(routing.reads[..., 0], sources() >= 0)


def test_places_that_nobody_uses_do_not_come_back() -> None:
    routing = Routing.of(sources(), 4)
    grouped = routing.gather(torch.ones(2, 5, 1))
    grouped[0, :3] = grouped[1, :2] = grouped[3, :2] = 2.0
    unused = grouped == 1.0
    assert unused.sum() == 12 - 7
    assert torch.equal(routing.scatter(grouped), routing.scatter(grouped.masked_fill(unused, torch.nan)))


def test_a_position_has_a_gradient_through_its_own_place_only() -> None:
    text = torch.ones(2, 5, 1, requires_grad=True)
    routing = Routing.of(sources(), 4)
    routing.scatter(routing.gather(text)).sum().backward()  # type: ignore[no-untyped-call]
    assert text.grad is not None
    assert torch.equal(text.grad[..., 0], (sources() >= 0).float())


def test_without_any_source_all_is_zero() -> None:
    routing = Routing.of(torch.full((2, 5), -1), 0)
    grouped = routing.gather(torch.ones(2, 5, 3))
    assert grouped.shape == (0, 0, 3)
    assert torch.equal(routing.scatter(grouped), torch.zeros(2, 5, 3))
    assert not routing.reads.any()
