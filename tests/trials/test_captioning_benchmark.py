"""What captioning is measured with: one encoder or two, and the same captions end to end as by generation alone."""

import pytest

from trials.benchmarks.captioning import Sizes, captioning


@pytest.mark.slow
def test_both_ways_are_compared_with_generation_alone() -> None:
    told = dict(captioning(Sizes(pairs=2_000, pictures=2, new_tokens=3, repetitions=1)))
    for way in ("one encoder for both", "a second encoder for the keys"):
        assert float(told[f"{way}: ratio"].split()[0]) > 0.5
        assert "search" in told[f"{way}: a picture"]
