"""Log-likelihood of continuations against the loss of the joined sequences."""

import pytest
import torch

from model.batch import Batch, collate
from model.generate import generate
from model.revilm import ReViLM
from model.score import log_likelihood
from model.sequence import Chunk, SequenceBuilder
from tests.model.small_models import (
    END,
    END_OF_CHUNK,
    FAMILIES,
    Family,
    Letters,
    Mode,
    prompts,
    small_config,
    small_model,
)


def prompt_batch(model: ReViLM) -> Batch:
    return collate([[prompt] for prompt in prompts(model.config)], model.config)


@torch.no_grad()
def of_the_joined_sequence(model: ReViLM, prompt: int, tokens: list[int]) -> float:
    joined = prompts(model.config)[prompt]
    joined.extend(tokens, learned=True)
    return -float(model(collate([[joined]], model.config)).caption)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["cross", "prefix"])
def test_a_continuation_is_as_probable_as_in_the_joined_sequence(family: Family, mode: Mode) -> None:
    model = small_model(small_config(family, mode))
    continuations = [[[3, 4, 5], [7], [], [3, 4, END_OF_CHUNK]], [], [[END], [1] * 20, [2, END_OF_CHUNK]]]
    found = log_likelihood(model, prompt_batch(model), continuations)
    assert [len(each) for each in found] == [4, 0, 3]
    assert float(found[0][2]) == 0.0
    for prompt, each in enumerate(continuations):
        expected = [of_the_joined_sequence(model, prompt, tokens) for tokens in each]
        assert found[prompt].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_continuations_beyond_one_row_are_scored_alike() -> None:
    model = small_model(small_config(mode="cross"))
    many = [[number % 29, (5 * number) % 29, number % 7] for number in range(60)]
    found = log_likelihood(model, prompt_batch(model), [many, many[:1], many[:40]])
    for prompt, numbers in [(0, range(0, 60, 7)), (1, range(1)), (2, range(0, 40, 7))]:
        for number in numbers:
            expected = of_the_joined_sequence(model, prompt, many[number])
            assert float(found[prompt][number]) == pytest.approx(expected, rel=1e-5)


def test_a_prompt_that_fills_all_positions_may_stand_beside_one_that_continues() -> None:
    model = small_model(small_config())
    full = SequenceBuilder(model.config, Letters(), text_tokens=160).segment([Chunk(text="x" * 159, ends=False)])
    found = log_likelihood(model, collate([[full], [prompts(model.config)[0]]], model.config), [[[]], [[3, 4]]])
    assert found[0].tolist() == [0.0]
    assert float(found[1]) == pytest.approx(of_the_joined_sequence(model, 0, [3, 4]), rel=1e-5)


def test_the_score_of_a_generated_text_is_its_log_likelihood() -> None:
    model = small_model(small_config())
    batch = prompt_batch(model)
    stops = [[END], [END_OF_CHUNK]]
    free, forced = generate(model, batch), generate(model, batch, min_new_tokens=6, max_new_tokens=6)
    # A text of ten tokens came to its limit, and no stop of it is counted.
    ended = [len(each.tokens) < 10 for each in free]
    texts = [
        [each.tokens + stop for stop in stops] if end else [each.tokens] for each, end in zip(free, ended, strict=True)
    ]
    found = log_likelihood(model, batch, texts)
    unstopped = log_likelihood(model, batch, [[each.tokens] for each in forced])
    assert [each.score for each in free] == pytest.approx([float(scores.max()) for scores in found], rel=1e-5)
    assert [each.score for each in forced] == pytest.approx([float(scores) for scores in unstopped], rel=1e-5)
    assert any(ended)


@pytest.mark.parametrize(
    ("continuations", "message"),
    [
        ([[[1]]], "continuations for 1 prompts; the batch has 3"),
        ([[], [[1], [3, 30]], []], "prompt 1 has id 30; allowed are 0…29 and 31"),
        ([[], [], [[-1]]], "prompt 2 has id -1"),
        ([[[1] * 160], [], []], "prompt 0 has 10 tokens and up to 160 new ones"),
    ],
)
def test_continuations_that_cannot_follow_are_named(continuations: list[list[list[int]]], message: str) -> None:
    model = small_model(small_config(mode="cross"))
    with pytest.raises(ValueError, match=message):
        log_likelihood(model, prompt_batch(model), continuations)
