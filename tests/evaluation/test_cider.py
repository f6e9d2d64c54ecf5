"""CIDEr-D from its definition, and against scores of pycocoevalcap."""

import gzip
import json
from math import exp, log, sqrt
from pathlib import Path

import pytest

from model.evaluation.cider import cider_d

DOG, CAT = "a dog runs very fast", "the cat sleeps on mats"


def test_captions_of_five_words_that_are_the_reference_score_10() -> None:
    found = cider_d(candidates={"1": DOG, "2": CAT}, references={"1": [DOG], "2": [CAT]})
    assert found.per_image == pytest.approx({"1": 10.0, "2": 10.0})
    assert found.score == pytest.approx(10.0)


def test_three_words_have_no_run_of_four_and_score_three_quarters() -> None:
    captions = {"1": "a dog runs", "2": "the cat sleeps"}
    found = cider_d(candidates=captions, references={image: [caption] for image, caption in captions.items()})
    assert found.score == pytest.approx(7.5)


def test_of_one_image_nothing_is_rare_and_the_score_is_0() -> None:
    assert cider_d(candidates={"1": DOG}, references={"1": [DOG, DOG]}).score == 0.0


def test_captions_without_a_common_word_and_empty_ones_score_0() -> None:
    found = cider_d(candidates={"1": CAT, "2": ""}, references={"1": [DOG], "2": [CAT]})
    assert found.per_image == {"1": 0.0, "2": 0.0}


def test_a_word_that_is_repeated_counts_as_often_as_in_the_reference() -> None:
    # Of n = 1 alone there is something in common: weights (2 log 2) and (log 2, log 2) → min(2, 1) · 1 ÷ (2 · √2).
    found = cider_d(candidates={"1": "dog dog", "2": CAT}, references={"1": ["dog barks"], "2": [CAT]})
    assert found.per_image["1"] == pytest.approx(10 / 4 / (2 * sqrt(2)))


def test_another_length_is_punished_by_the_difference_in_bigrams() -> None:
    # Candidate of 1 word and 0 bigrams, reference of 3 words and 2 bigrams, each word of weight log 2.
    found = cider_d(candidates={"1": "dog", "2": CAT}, references={"1": ["dog barks loud"], "2": [CAT]})
    assert found.per_image["1"] == pytest.approx(10 / 4 / sqrt(3) * exp(-(2**2) / 72))


def test_a_word_in_the_references_of_more_images_weighs_less_and_an_unknown_one_most() -> None:
    # "a" stands in two of three images' references, "dog" in one, "unicorn" in none, which counts as one.
    references = {"1": ["a dog"], "2": ["a cat"], "3": ["two birds"]}
    found = cider_d(candidates={"1": "a unicorn", "2": "", "3": ""}, references=references)
    common, rare = log(3 / 2), log(3)
    assert found.per_image["1"] == pytest.approx(10 / 4 * common**2 / (common**2 + rare**2))


def test_several_references_are_averaged_and_count_an_image_once() -> None:
    two = cider_d(candidates={"1": DOG, "2": CAT}, references={"1": [DOG, "birds"], "2": [CAT]})
    assert two.per_image == pytest.approx({"1": 5.0, "2": 10.0})
    twice = cider_d(candidates={"1": DOG, "2": CAT}, references={"1": [DOG, DOG], "2": [CAT]})
    assert twice.score == pytest.approx(10.0)


def test_words_are_compared_without_case_and_punctuation() -> None:
    found = cider_d(candidates={"1": "A DOG, runs: very fast!", "2": CAT}, references={"1": [DOG], "2": [CAT]})
    assert found.score == pytest.approx(10.0)


def test_the_score_of_a_thousand_captions_is_that_of_pycocoevalcap(real_data: Path) -> None:
    known = json.loads(gzip.decompress(Path(real_data, "eval", "flickr8k_test_official_scores.json.gz").read_bytes()))
    found = cider_d(candidates=known["candidates"], references=known["references"], tokenize=str.split)
    assert found.score == pytest.approx(known["scores"]["CIDEr"], abs=1e-9)


def test_the_published_example_of_aac_metrics_has_its_score(real_data: Path) -> None:
    known = json.loads(Path(real_data, "eval", "known_scores.json").read_bytes())["aac_readme_example"]
    candidates = dict(zip("12", known["candidates"], strict=True))
    references = dict(zip("12", known["references"], strict=True))
    found = cider_d(candidates=candidates, references=references)
    assert found.score == pytest.approx(known["cider_d"], abs=1e-4)
    assert list(found.per_image.values()) == pytest.approx(known["cider_d_per_sentence"], abs=1e-4)
