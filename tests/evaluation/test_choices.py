"""The answer of a closed-ended task, and the orders of examples under which it is asked."""

from math import factorial

import numpy as np
import pytest

from model.evaluation.choices import chosen, permuted


@pytest.mark.parametrize(("examples", "count"), [(3, 5), (4, 6), (8, 6), (40, 6)])
def test_orders_are_permutations_and_no_two_are_equal(examples: int, count: int) -> None:
    orders = permuted(range(examples), "q", count)
    assert len(set(orders)) == len(orders) == count
    assert all(sorted(order) == list(range(examples)) for order in orders)


@pytest.mark.parametrize("examples", [0, 1, 2, 3])
def test_where_there_are_no_more_orders_each_is_asked_once(examples: int) -> None:
    orders = permuted(range(examples), "q", 6)
    assert len(set(orders)) == len(orders) == factorial(examples)


def test_orders_depend_on_query_and_seed_alone_and_not_on_what_the_examples_are() -> None:
    assert permuted("abcdefgh", "q1", 3, seed=4) == permuted("abcdefgh", "q1", 3, seed=4)
    assert [list(map("abcdefgh".index, order)) for order in permuted("abcdefgh", "q1", 3)] == [
        list(order) for order in permuted(range(8), "q1", 3)
    ]
    assert len({tuple(permuted("abcdefgh", f"q{query}", 1, seed)) for query in range(9) for seed in range(9)}) == 81


def test_orders_are_drawn_evenly() -> None:
    first = [permuted("abc", f"{query}", 1)[0] for query in range(6000)]
    assert len(set(first)) == 6
    assert max(first.count(order) for order in set(first)) < 1150


def test_the_mean_over_permutations_decides_and_not_the_best_of_them() -> None:
    assert chosen([[-1.0, -2.0, -9.0], [-8.0, -3.0, -1.5]]) == 1
    assert chosen([[-1.0, -2.0, -9.0]]) == 0


def test_of_equals_the_first_is_chosen() -> None:
    assert chosen([[-3.0, -2.0, -1.0], [-1.0, -2.0, -2.5]]) == 2
    assert chosen([[-3.0, -2.0, -2.0]]) == 1


def test_divided_by_their_tokens_long_answers_lose_nothing() -> None:
    log_likelihoods = [[-2.0, -3.0], [-2.0, -3.0]]
    assert chosen(log_likelihoods) == 0
    assert chosen(log_likelihoods, tokens=[1, 3]) == 1


@pytest.mark.parametrize(("values", "tokens"), [([[]], None), ([[np.nan, 0.0]], None), ([-1.0], None), ([[-1.0]], [0])])
def test_what_leaves_nothing_to_choose_is_refused(values: list[float], tokens: list[int] | None) -> None:
    with pytest.raises(ValueError, match="one at least|a token or more"):
        chosen(values, tokens)
