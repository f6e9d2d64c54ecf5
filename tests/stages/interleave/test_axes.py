"""A bound is never below the inner product that it bounds, by more than the rounding that is told."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.interleave.axes import WIDTH, Axes, Single, longest, rounding
from tests.stages.index.corpora import unit

Half = npt.NDArray[np.float16]
KINDS = ("cone", "clusters", "in the span", "equal", "tiny rest", "long", "of any norm", "nothing")


def drawn(kind: str, random: np.random.Generator, rows: int, width: int) -> Half:
    vectors = random.standard_normal((rows, width)) / np.sqrt(width)
    if kind == "cone":
        vectors = unit(0.3 * vectors + random.standard_normal(width)).astype(np.float64)
    elif kind == "clusters":
        vectors = vectors[random.integers(3, size=rows)] + 0.01 * vectors
    elif kind == "in the span":  # of so few axes that nothing is left over
        vectors[:, min(width, 20) :] = 0
    elif kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "tiny rest":  # a large mean, and next to nothing beside the axes
        vectors = np.linspace(0.5, 1.5, rows)[:, None] * vectors[0] + 2.0**-24 * np.sign(vectors)
    elif kind == "long":
        vectors *= 3
    elif kind == "of any norm":
        vectors *= 10 ** random.uniform(-6, 0.4, (rows, 1))
    else:
        assert kind == "nothing", kind
        vectors[:] = 0
    halves: Half = vectors.astype(np.float16)
    return halves


def nonsense(random: np.random.Generator, width: int, norm: float) -> Axes:
    basis = np.linalg.qr(random.standard_normal((width, width)))[0][:, : WIDTH - 3]
    mean = random.standard_normal(width)
    return Axes(norm * mean / np.linalg.norm(mean), basis)


def excess(axes: Axes, left: Half, right: Half) -> tuple[npt.NDArray[np.float64], float]:
    """By how much bounds exceed the inner products (n, m), and how far they may fall short."""
    bounds = axes.bound(wide(left), "left"), axes.bound(wide(right), "right")
    product = torch.from_numpy(bounds[0]) @ torch.from_numpy(bounds[1]).T
    exact = left.astype(np.float64) @ right.astype(np.float64).T
    slack = rounding(bounds[0].shape[1], longest(bounds[0]) * longest(bounds[1]))
    return product.double().numpy() - exact, slack


def wide(rows: Half) -> Single:
    return rows.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    width=st.sampled_from([1, 8, 60, 61, 62, 100, 384, 512]),
    sample=st.sampled_from(["theirs", "one row", "of another kind", "nonsense"]),
    norm=st.sampled_from([0, 1, 10]),
)
def test_a_bound_bounds_whatever_the_vectors_and_the_axes(
    seed: int, kinds: tuple[str, str], width: int, sample: str, norm: float
) -> None:
    random = np.random.default_rng(seed)
    left, right = (drawn(kind, random, 40, width) for kind in kinds)
    if sample == "nonsense":
        axes = nonsense(random, width, norm)
    else:
        samples = {"theirs": right, "one row": right[:1], "of another kind": drawn("cone", random, 90, width)}
        axes = Axes.of(samples[sample])
    above, slack = excess(axes, left, right)
    assert above.min() >= -slack


def test_rounding_falls_short_where_the_bound_is_tight_and_is_told() -> None:
    """Without what is told for rounding, the bound would be wrong."""
    random = np.random.default_rng(1)
    vectors = unit(random.standard_normal((500, 40)))
    above, slack = excess(Axes.of(vectors), vectors, vectors)
    assert -slack <= above.min() < 0
    assert above.max() < slack
    assert slack < 2e-5


def test_more_of_the_variance_along_the_axes_makes_a_tighter_bound() -> None:
    random = np.random.default_rng(2)
    spread = np.arange(1, 385) ** -0.75
    vectors = unit(random.standard_normal((600, 384)) * spread + 0.1)
    good, bad = Axes.of(vectors), nonsense(random, 384, 0)
    assert bad.explained(vectors) < 0.3 < 0.7 < good.explained(vectors) < 1
    assert excess(good, vectors, vectors)[0].mean() < excess(bad, vectors, vectors)[0].mean() / 2


@pytest.mark.parametrize("width", [1, 60, 61, 62, 512])
def test_axes_are_orthonormal_and_no_more_than_a_product_is_wide(width: int) -> None:
    axes = Axes.of(unit(np.random.default_rng(3).standard_normal((200, width))))
    num = min(width, WIDTH - 3)
    np.testing.assert_allclose(axes.basis.T @ axes.basis, np.eye(num), atol=1e-13)
    assert axes.bound(np.ones((5, width), np.float32), "left").shape == (5, num + 3)


def test_the_longest_row() -> None:
    assert longest(np.array([[3, 4], [0, 1]], np.float32)) == 5
    assert longest(np.full((1, 4), 1e30, np.float32)) == pytest.approx(2e30)
    assert longest(np.empty((0, 4), np.float32)) == 0
