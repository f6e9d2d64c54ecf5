"""The benchmark of the caption metrics without its rival."""

import pytest

from trials.benchmarks.metrics import drawn, metrics


def test_without_pycocoevalcap_the_comparison_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVILM_COCO_ENV", raising=False)
    told = dict(metrics(images=20, references=2))
    assert told["beside pycocoevalcap"].startswith("not run: REVILM_COCO_ENV")
    assert "all three (target ≥ 2 ×)" not in told


def test_drawn_captions_are_the_same_for_a_seed_and_share_words_within_an_image() -> None:
    candidates, references = drawn(50, 3)
    assert (candidates, references) == drawn(50, 3)
    assert all(candidates[image].split()[0] == each.split()[0] for image in references for each in references[image])
