"""Which cosines a band holds, by all three readings of a distance."""

from decimal import Decimal, localcontext
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.interleave.band import LARGEST, Band, Metric

METRICS: tuple[Metric, ...] = get_args(Metric)
metrics = st.sampled_from(METRICS)


@pytest.mark.parametrize(
    ("metric", "lo", "hi", "highest", "lowest"),
    [
        ("l2", 0.4, 0.6, 0.92, 0.82),
        ("l2_squared", 0.4, 0.6, 0.8, 0.7),
        ("cosine", 0.4, 0.6, 0.6, 0.4),
        ("l2", 0, 2, 1, -1),
        ("l2_squared", 0, 4, 1, -1),
        ("cosine", 0, 2, 1, -1),
        ("l2", 0.1, 1.1, 0.995, 0.395),
        ("cosine", 0.3, 1.5, 0.7, -0.5),
        ("l2_squared", 1e-7, 0.1, 0.99999995, 0.95),
    ],
)
def test_the_bounds_of_a_band(metric: Metric, lo: float, hi: float, highest: float, lowest: float) -> None:
    band = Band(metric, lo, hi)
    assert (band.lowest_cosine, band.highest_cosine) == (lowest, highest)


@given(metric=metrics, ten_thousandths=st.integers(0, 40_000))
def test_a_bound_is_the_cosine_of_the_distance_as_it_is_written(metric: Metric, ten_thousandths: int) -> None:
    with localcontext(prec=60):
        written = Decimal(ten_thousandths) / 10_000
        expected = {"l2": 1 - written * written / 2, "l2_squared": 1 - written / 2, "cosine": 1 - written}[metric]
    assert Band(metric, float(written), 9).highest_cosine == float(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_a_band_is_closed(metric: Metric) -> None:
    band = Band(metric, 0.4, 0.6)
    edges = np.array([band.lowest_cosine, band.highest_cosine])
    assert band.holds(edges).all()
    assert band.holds(np.nextafter(edges, edges[::-1])).all()
    assert not band.holds(np.nextafter(edges, [-1, 1])).any()


@given(metric=metrics, lo=st.floats(0, 1), hi=st.floats(1, 2), cosine=st.floats(-1, 1))
def test_what_is_in_the_band_is_what_lies_at_its_distances(metric: Metric, lo: float, hi: float, cosine: float) -> None:
    band = Band(metric, lo, hi)
    (distance,) = band.distances(np.array([cosine]))
    (held,) = band.holds(np.array([cosine]))
    if lo + 1e-7 < distance < hi - 1e-7:
        assert held
    if not lo - 1e-7 < distance < hi + 1e-7:
        assert not held


@given(cosine=st.floats(-1, 1))
def test_the_three_readings_are_of_one_distance(cosine: float) -> None:
    l2, l2_squared, apart = (Band(metric, 0.4, 0.6).distances(np.array([cosine]))[0] for metric in METRICS)
    assert l2_squared == 2 * apart
    assert l2 == pytest.approx(np.sqrt(l2_squared), rel=1e-12)
    assert l2_squared == pytest.approx(2 - 2 * cosine, abs=1e-15)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_run_from_0_to_the_largest_there_is(metric: Metric) -> None:
    distances = Band(metric, 0.4, 0.6).distances(np.array([1.0002, 1, -1]))
    assert distances.tolist() == [0, 0, LARGEST[metric]]
