"""The order of samples is a function of the seed: each once an epoch, wherever one begins."""

import pytest

from model.training.order import Order

SIZES = [7, 0, 12, 3, 1, 20, 0, 5]
ROWS = {(shard, row) for shard, rows in enumerate(SIZES) for row in range(rows)}


@pytest.mark.parametrize("window", [1, 3, 100])
def test_every_epoch_has_every_sample_once(window: int) -> None:
    order = Order(SIZES, seed=1, window=window)
    epochs = [[order.at(place) for place in range(epoch * 48, (epoch + 1) * 48)] for epoch in range(3)]
    for epoch in epochs:
        assert len(epoch) == 48
        assert set(epoch) == ROWS
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_position_has_the_same_sample_whatever_was_asked_before() -> None:
    order = Order(SIZES, seed=1)
    forwards = [order.at(place) for place in range(150)]
    assert [Order(SIZES, seed=1).at(place) for place in reversed(range(150))] == forwards[::-1]


def test_another_seed_is_another_order() -> None:
    first, second = ([Order(SIZES, seed).at(place) for place in range(48)] for seed in (1, 2))
    assert first != second


def test_no_more_shards_are_mixed_at_a_time_than_the_window_holds() -> None:
    order = Order([10] * 20, seed=3, window=2)
    for first in range(0, 200, 20):
        assert len({order.at(place)[0] for place in range(first, first + 20)}) == 2


def test_a_window_mixes_its_shards() -> None:
    shards = [Order([100, 100], seed=3, window=2).at(place)[0] for place in range(100)]
    assert 20 < sum(shards) < 80


def test_a_source_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="the source has no samples"):
        Order([0, 0], seed=1)
