"""BLEU, ROUGE-L and CIDEr-D together: pycocoevalcap's scores, intervals, and what cannot be scored."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.evaluation.bleu import bleu
from model.evaluation.bootstrap import interval_of
from model.evaluation.caption_scores import NAMES, caption_scores
from model.evaluation.cider import cider_d
from model.evaluation.jar_metrics import Java, meteor, spice
from model.evaluation.rouge import rouge_l
from tests.evaluation.captions import CANDIDATES, OF_SET, PER_IMAGE, REFERENCES

METRICS = [bleu, rouge_l, cider_d]


def test_captions_full_of_traps_have_the_scores_of_pycocoevalcap() -> None:
    found = caption_scores(CANDIDATES, REFERENCES)
    assert {name: figure.value for name, figure in found.figures.items()} == pytest.approx(OF_SET, abs=1e-12)
    for image, scores in PER_IMAGE.items():
        assert list(found.per_image[image].values()) == pytest.approx(scores, abs=1e-12)
    assert (*OF_SET,) == NAMES


def test_one_metric_asked_alone_says_the_same() -> None:
    given: dict[str, Any] = {"candidates": CANDIDATES, "references": REFERENCES}
    assert bleu(**given).scores == pytest.approx([OF_SET[name] for name in NAMES[:4]], abs=1e-12)
    assert rouge_l(**given).score == pytest.approx(OF_SET["rouge_l"], abs=1e-12)
    assert cider_d(**given).score == pytest.approx(OF_SET["cider_d"], abs=1e-12)


def test_scores_of_a_thousand_captions_are_those_of_pycocoevalcap(real_data: Path) -> None:
    known = json.loads(gzip.decompress(Path(real_data, "eval", "flickr8k_test_official_scores.json.gz").read_bytes()))
    found = caption_scores(known["candidates"], known["references"], tokenize=str.split).figures
    scores = known["scores"]
    names = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    for name, theirs in zip(NAMES, names, strict=True):
        assert found[name].value == pytest.approx(scores[theirs], abs=1e-12)
        assert found[name].low < found[name].value < found[name].high


def test_the_published_example_of_clipscore_has_its_scores(real_data: Path) -> None:
    folder = Path(real_data, "eval", "clipscore_example")
    references = json.loads(Path(folder, "refs.json").read_bytes())
    published = json.loads(Path(real_data, "eval", "known_scores.json").read_bytes())["clipscore_example"]
    for kind in ("good", "bad"):
        found = caption_scores(json.loads(Path(folder, f"{kind}_captions.json").read_bytes()), references).figures
        for name, theirs in zip(NAMES, ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE", "CIDER"], strict=True):
            assert found[name].value == pytest.approx(published[kind][theirs], abs=1e-4)


def test_the_order_of_images_and_of_references_changes_nothing() -> None:
    turned = {image: REFERENCES[image][::-1] for image in reversed(REFERENCES)}
    found = caption_scores(CANDIDATES, turned)
    assert {name: figure.value for name, figure in found.figures.items()} == pytest.approx(OF_SET, abs=1e-12)


def test_bleu_counts_a_word_as_often_as_the_reference_that_has_it_most() -> None:
    found = bleu(candidates={"1": "the the the the"}, references={"1": ["the cat", "the dog saw the"]})
    assert found.scores[0] == pytest.approx(2 / 4)


def test_bleu_measures_length_against_the_closest_reference_and_of_two_against_the_shorter() -> None:
    """Also for one image alone, for which pycocoevalcap's scorer has another rule that nobody calls."""
    close = bleu(candidates={"1": "a dog"}, references={"1": ["a dog", "a dog runs on the grass with a red ball"]})
    assert close.scores[0] == pytest.approx(1.0)
    between = bleu(candidates={"1": "a dog runs"}, references={"1": ["a dog runs on", "a dog"]})
    assert between.scores[0] == pytest.approx(1.0), "against the longer one e^(1 − 4/3)"


def test_bleu_of_a_set_is_of_summed_counts_and_no_mean_of_images() -> None:
    given = {"1": "a b c d", "2": "x"}
    found = bleu(candidates=given, references={"1": ["a b c d"], "2": ["y"]})
    assert found.scores[0] == pytest.approx(4 / 5)
    assert [scores[0] for scores in found.per_image.values()] == pytest.approx([1.0, 0.0])


def test_rouge_takes_precision_and_recall_of_different_references() -> None:
    # P = 2 ÷ 2 of the long one, R = 1 ÷ 1 of the short one, though neither has both.
    found = rouge_l(candidates={"1": "dog runs"}, references={"1": ["a dog often runs", "dog"]})
    assert found.score == pytest.approx(1.0)


def test_rouge_follows_the_order_of_words() -> None:
    # Longest common subsequence `a c d`: P = 3 ÷ 4, R = 3 ÷ 5.
    found = rouge_l(candidates={"1": "a d c d"}, references={"1": ["a b c e d"]})
    precision, recall = 3 / 4, 3 / 5
    assert found.score == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))


def test_captions_without_any_token_are_scored() -> None:
    found = caption_scores({"1": "...", "2": ""}, {"1": ["!"], "2": ["?", "."]})
    assert [figure.value for figure in found.figures.values()] == pytest.approx([0, 0, 0, 0, 1, 0])


def test_an_interval_of_bleu_is_of_sets_of_images_drawn_anew() -> None:
    candidates = {str(image): "a b c d e" if image % 2 else "a x c y e" for image in range(40)}
    references = {image: ["a b c d e"] for image in candidates}
    found = caption_scores(candidates, references, seed=3).figures["bleu_2"]
    drawn = np.random.default_rng(0).integers(40, size=(300, 40))
    sets = [{str(place): candidates[str(image)] for place, image in enumerate(each)} for each in drawn]
    scores = [bleu(candidates=each, references={place: ["a b c d e"] for place in each}).scores[1] for each in sets]
    assert [found.low, found.high] == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.03)
    assert caption_scores(candidates, references, seed=3).figures["bleu_2"] == found


def test_a_large_set_is_drawn_in_parts_as_if_at_once() -> None:
    columns = np.random.default_rng(0).normal(1.0, 1.0, (5_000, 1))
    (found,) = interval_of(lambda sums: sums / 5_000, columns, seed=1)
    assert found.high - found.low == pytest.approx(2 * 1.96 / 5_000**0.5, rel=0.1)


@pytest.mark.parametrize("metric", [*METRICS, lambda **given: meteor(Java(None), **given)])
@pytest.mark.parametrize(
    ("candidates", "references", "said"),
    [
        ({}, {}, "no image to judge"),
        ({"1": "a"}, {}, "1 images have a caption but no references: 1; allowed"),
        ({"1": "a"}, {"2": ["a"]}, "1 images have a caption but no references: 1; 1 .* references but no caption: 2"),
        (
            {str(image): "a" for image in range(8)},
            {"7": ["a"]},
            "7 images .* references: 0, 1, 2, 3, 4, …; .*of 8, .*of 1",
        ),
        ({"1": "a"}, {"1": []}, "1 images have an empty list of references: 1"),
        ({"1": "a"}, {"1": "a"}, "1 images have a text as references: 1; .*a list of ≥ 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    metric: Callable[..., object], candidates: dict[str, str], references: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        metric(candidates=candidates, references=references)


def test_without_a_jar_meteor_and_spice_say_so() -> None:
    for metric in (meteor, spice):
        assert str(metric(Java(None), candidates=CANDIDATES, references=REFERENCES)) == "not computed: no jar is named"
