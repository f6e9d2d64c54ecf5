"""Log-likelihood of continuations against the loss of the joined sequences."""

import pytest
import torch

from model.batch import Batch, collate
from model.config import (
    GatedCrossAttentionConfig,
    ImageEncoderConfig,
    LanguageModelConfig,
    ResamplerConfig,
    RetrievalConfig,
    ReViLMConfig,
    VisionConfig,
)
from model.generate import generate
from model.revilm import ReViLM
from model.score import log_likelihood
from model.sequence import Chunk, Segment, SequenceBuilder


class Letters:
    begin_of_text, end_of_text = None, 29

    def encode(self, text: str) -> list[int]:
        return [ord(letter) % 29 for letter in text]


def decisive(family: str = "llama", mode: str = "cross") -> ReViLM:
    """Two layers of random weights, large enough for clear preferences and for pictures and neighbours to count."""
    text = LanguageModelConfig(
        family=family,  # type: ignore[arg-type]
        vocabulary=30,
        end_of_text=29,
        positions=64,
        layers=2,
        width=32,
        heads=4,
        tied=family == "gpt2",
    )
    vision = VisionConfig(
        encoder=ImageEncoderConfig(image_size=32, patch_size=16, width=32, layers=1, heads=2),
        resampler=ResamplerConfig(layers=1, latents=4, head_width=16),
        gated=GatedCrossAttentionConfig(head_width=16),
    )
    layers = (1, 2) if mode == "cross" else ()
    retrieval = RetrievalConfig(mode=mode, layers=layers, caption_tokens=12)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = ReViLM(ReViLMConfig(language_model=text, vision=vision, retrieval=retrieval)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("_gate"):
                weight.fill_(0.5)
            elif weight.dim() == 2:
                weight.normal_(std=0.25)
    return model


def prompts(model: ReViLM) -> list[Segment]:
    """Ragged: two pictures, one without text, and text alone."""
    build = SequenceBuilder(model.config, Letters()).segment
    first, second, third = torch.randn(3, 1, 4, 32, generator=torch.Generator().manual_seed(1))
    shot = Chunk(image=first, text="a dog", neighbors=["dogs", "a cat"], learned=False)
    return [
        build([shot, Chunk(image=second, prompt="so", neighbors=["two cats"], ends=False)]),
        build([Chunk(image=third, ends=False)]),
        build([Chunk(prompt="hello you", ends=False)]),
    ]


def prompt_batch(model: ReViLM) -> Batch:
    return collate([[prompt] for prompt in prompts(model)], model.config)


@torch.no_grad()
def of_the_joined_sequence(model: ReViLM, prompt: int, tokens: list[int]) -> float:
    joined = prompts(model)[prompt]
    joined.extend(tokens, learned=True)
    return -float(model(collate([[joined]], model.config)).caption)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("mode", ["cross", "prefix"])
def test_a_continuation_is_as_probable_as_in_the_joined_sequence(family: str, mode: str) -> None:
    model = decisive(family, mode)
    end = model.config.end_of_chunk_id
    continuations = [[[3, 4, 5], [7], [], [3, 4, end]], [], [[29], [1] * 20, [2, end]]]
    found = log_likelihood(model, prompt_batch(model), continuations)
    assert [len(each) for each in found] == [4, 0, 3]
    assert float(found[0][2]) == 0.0
    for prompt, each in enumerate(continuations):
        expected = [of_the_joined_sequence(model, prompt, tokens) for tokens in each]
        assert found[prompt].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_continuations_beyond_one_row_are_scored_alike() -> None:
    model = decisive()
    many = [[number % 29, (5 * number) % 29, number % 7] for number in range(60)]
    found = log_likelihood(model, prompt_batch(model), [many, many[:1], many[:40]])
    for prompt, numbers in [(0, range(0, 60, 7)), (1, range(1)), (2, range(0, 40, 7))]:
        for number in numbers:
            expected = of_the_joined_sequence(model, prompt, many[number])
            assert float(found[prompt][number]) == pytest.approx(expected, rel=1e-5)


def test_a_prompt_that_fills_all_positions_may_stand_beside_one_that_continues() -> None:
    model = decisive("gpt2")
    full = SequenceBuilder(model.config, Letters()).segment([Chunk(text="x" * 63, ends=False)])
    found = log_likelihood(model, collate([[full], [prompts(model)[0]]], model.config), [[[]], [[3, 4]]])
    assert found[0].tolist() == [0.0]
    assert float(found[1]) == pytest.approx(of_the_joined_sequence(model, 0, [3, 4]), rel=1e-5)


def test_the_score_of_a_generated_text_is_its_log_likelihood() -> None:
    model = decisive("gpt2", "none")
    batch = prompt_batch(model)
    stops = [[29], [model.config.end_of_chunk_id]]
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
        ([[[1] * 60], [], []], "prompt 0 has 10 tokens and up to 60 new ones"),
    ],
)
def test_continuations_that_cannot_follow_are_named(continuations: list[list[list[int]]], message: str) -> None:
    model = decisive()
    with pytest.raises(ValueError, match=message):
        log_likelihood(model, prompt_batch(model), continuations)
