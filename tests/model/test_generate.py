"""Generation against the slow obvious way: whole sequences through the model, all continuations compared."""

from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.batch import Batch, collate
from model.generate import Generated, Sampling, generate
from model.hugging_face import write_language_model
from model.revilm import ReViLM
from model.sequence import Chunk, Segment, SequenceBuilder
from tests.model.small_models import (
    END,
    FAMILIES,
    MODES,
    Family,
    Letters,
    Mode,
    logits_of,
    picture,
    prompts,
    small_config,
    small_model,
)


def one_a_row(model: ReViLM, segments: list[Segment]) -> Batch:
    return collate([[segment] for segment in segments], model.config)


@torch.no_grad()
def next_log_p(model: ReViLM, prompt: Segment, *continuations: list[int]) -> Tensor:
    """log p of what follows the prompt and continuations of one length, of whole texts; −inf for what is no text."""
    joined = [deepcopy(prompt) for _ in continuations]
    for segment, tokens in zip(joined, continuations, strict=True):
        segment.extend(tokens)
    log_p = logits_of(model, one_a_row(model, joined))[:, -1].log_softmax(1)
    if model.config.vision is not None:
        log_p[:, [model.config.image_id, model.config.pad_id, model.config.neighbor_id]] = -torch.inf
    return log_p


def stops_of(model: ReViLM) -> list[int]:
    end_of_text = model.config.language_model.end_of_text
    return [end_of_text] if model.config.vision is None else [end_of_text, model.config.end_of_chunk_id]


def greedy(model: ReViLM, prompt: Segment, max_new_tokens: int) -> Generated:
    tokens: list[int] = []
    score = 0.0
    while len(tokens) < max_new_tokens:
        log_p = next_log_p(model, prompt, tokens)[0]
        best = int(log_p.argmax())
        score += float(log_p[best])
        if best in stops_of(model):
            break
        tokens.append(best)
    return Generated(tokens, score)


def assert_same(found: list[Generated], expected: list[Generated]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_beam_takes_the_most_probable_token_at_every_step(family: Family) -> None:
    model = small_model(small_config(family, "cross"))
    expected = [greedy(model, prompt, 8) for prompt in prompts(model.config)]
    assert_same(generate(model, one_a_row(model, prompts(model.config)), beams=1, max_new_tokens=8), expected)
    assert any(len(each.tokens) > 1 for each in expected)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
def test_with_beams_for_all_words_the_best_of_all_continuations_is_found(length_penalty: float) -> None:
    model = small_model(small_config("llama", "cross", vocabulary=8), seed=2)
    build = SequenceBuilder(model.config, Letters(size=8)).segment
    stops, words = stops_of(model), range(7)

    def best(prompt: Segment) -> Generated:
        first = next_log_p(model, prompt, [])[0]
        second = next_log_p(model, prompt, *([word] for word in words))
        candidates = [Generated([], float(first[stop])) for stop in stops]
        for word, following in product(words, [*words, *stops]):
            tokens = [word] if following in stops else [word, following]
            candidates.append(Generated(tokens, float(first[word] + second[word, following]) / 2**length_penalty))
        return max(candidates, key=lambda each: each.score)

    overtaken = False
    for seed, letter in enumerate("abcdefghab"):
        prompt = build([Chunk(image=picture(seed), prompt=letter, neighbors=["bad"], ends=False)])
        batch = one_a_row(model, [prompt])
        found = generate(model, batch, beams=8, max_new_tokens=2, length_penalty=length_penalty)
        assert_same(found, [best(prompt)])
        overtaken |= bool(found[0].tokens) and int(next_log_p(model, prompt, [])[0].argmax()) in stops
    assert overtaken or length_penalty < 2.0  # a longer text is better than the stop that came first


def test_a_stop_that_is_not_among_the_best_candidates_ends_nothing() -> None:
    model = small_model(small_config("llama", "cross", vocabulary=8))
    prompt = SequenceBuilder(model.config, Letters(size=8)).segment([Chunk(image=picture(1), prompt="ab", ends=False)])
    first = next_log_p(model, prompt, [])[0]
    best = first.topk(6).indices.tolist()
    (found,) = generate(model, one_a_row(model, [prompt]), beams=2, max_new_tokens=2, length_penalty=-1.0)
    assert any(first[stop] > found.score for stop in set(best[2:]).intersection(stops_of(model)))
    assert found.tokens


@pytest.mark.parametrize(
    ("family", "mode", "vision"),
    [
        *[(family, mode, True) for family in FAMILIES for mode in MODES],
        ("llama", "none", False),
        ("gpt2", "cross", False),
    ],
)
def test_the_cache_changes_nothing(family: Family, mode: Mode, vision: bool) -> None:
    model = small_model(small_config(family, mode, vision=vision))
    batch = one_a_row(model, prompts(model.config))
    for beams in (1, 3):
        cached = generate(model, batch, beams=beams, min_new_tokens=6)
        assert_same(cached, generate(model, batch, beams=beams, min_new_tokens=6, use_cache=False))


@pytest.mark.parametrize("mode", ["cross", "prefix"])
def test_prompts_of_unequal_length_do_not_disturb_each_other(mode: Mode) -> None:
    model = small_model(small_config("llama", mode))
    ragged = prompts(model.config)
    together = generate(model, one_a_row(model, ragged), min_new_tokens=5)
    assert_same(together, [generate(model, one_a_row(model, [each]), min_new_tokens=5)[0] for each in ragged])


@pytest.mark.slow
@pytest.mark.parametrize(("beams", "length_penalty"), [(1, 0.0), (3, 0.0), (3, 1.0), (4, 0.7), (3, -0.5)])
def test_beams_are_those_of_transformers(transformers: Any, beams: int, length_penalty: float, tmp_path: Path) -> None:
    model = small_model(small_config(vision=False))
    with torch.no_grad():
        end = model.language_model.table.weight[END]
        model.language_model.get_parameter("norm.bias").copy_(1.2 * end)  # so that some texts end
    write_language_model(tmp_path, model.language_model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    build = SequenceBuilder(model.config, Letters()).segment
    texts = [build([Chunk(prompt=letter, ends=False)]) for letter in "abcdefghijklmnopqrst"]
    found = generate(model, one_a_row(model, texts), beams=beams, max_new_tokens=8, length_penalty=length_penalty)
    expected = [
        theirs.generate(
            torch.tensor([each.tokens]),
            attention_mask=torch.ones(1, len(each), dtype=torch.int64),
            num_beams=beams,
            max_new_tokens=8,
            do_sample=False,
            pad_token_id=END,
            **({"length_penalty": length_penalty, "early_stopping": "never"} if beams > 1 else {}),
        )[0, len(each) :].tolist()
        for each in texts
    ]
    assert [each.tokens for each in found] == [[token for token in each if token != END] for each in expected]
    assert len({len(each.tokens) for each in found}) > 1


def test_the_picture_and_its_neighbors_decide_what_is_said() -> None:
    model = small_model(small_config("llama", "cross"))
    build = SequenceBuilder(model.config, Letters()).segment

    def said(image: Tensor, neighbor: str) -> list[list[int]]:
        shown = build([Chunk(image=image, neighbors=[neighbor], ends=False)])
        alone = build([Chunk(prompt="hello", ends=False)])
        return [each.tokens for each in generate(model, one_a_row(model, [shown, alone]), min_new_tokens=5)]

    before, other_picture, other_neighbor = said(picture(1), "cats"), said(picture(2), "cats"), said(picture(1), "dogs")
    assert before[0] != other_picture[0]
    assert before[0] != other_neighbor[0]
    assert before[1] == other_picture[1] == other_neighbor[1]


def test_a_seed_decides_what_is_drawn() -> None:
    model = small_model(small_config("llama", "cross"))
    batch = one_a_row(model, prompts(model.config))
    drawn = [generate(model, batch, beams=1, sampling=Sampling(seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-5)])
def test_drawing_from_one_token_is_greedy(sampling: Sampling) -> None:
    model = small_model(small_config("llama", "cross"))
    batch = one_a_row(model, prompts(model.config))
    assert_same(generate(model, batch, beams=1, sampling=sampling), generate(model, batch, beams=1))


@pytest.mark.parametrize("top", ["top_k", "top_p"])
def test_tokens_are_drawn_as_often_as_they_are_probable(top: str) -> None:
    model = small_model(small_config("llama", "cross"))
    prompt = prompts(model.config)[1]
    temperature, rows = 2.0, 1000
    weight = (next_log_p(model, prompt, [])[0] / temperature).softmax(0)
    likely, second = weight.topk(2).indices.tolist()
    both = Sampling(temperature=temperature, top_k=2)
    if top == "top_p":
        both = Sampling(temperature=temperature, top_p=float(weight[likely] + weight[second] / 2))
    drawn = generate(model, one_a_row(model, [prompt] * rows), beams=1, max_new_tokens=1, sampling=both)
    counts = [sum(each.tokens == tokens_of(model, token) for each in drawn) for token in (likely, second)]
    share = float(weight[likely] / (weight[likely] + weight[second]))
    assert sum(counts) == rows
    assert counts[0] / rows == pytest.approx(share, abs=4 * (share * (1 - share) / rows) ** 0.5)


def tokens_of(model: ReViLM, drawn: int) -> list[int]:
    return [] if drawn in stops_of(model) else [drawn]


def test_only_words_of_the_vocabulary_come_out() -> None:
    model = small_model(small_config("llama", "cross"))
    batch = one_a_row(model, prompts(model.config) * 50)
    hot = Sampling(temperature=1e6)
    drawn = generate(model, batch, beams=1, vocabulary=20, sampling=hot)
    assert {token for each in drawn for token in each.tokens} == set(range(20))
    assert any(len(each.tokens) < 10 for each in drawn)


def test_texts_keep_the_least_and_the_greatest_length() -> None:
    model = small_model(small_config())
    batch = one_a_row(model, prompts(model.config))

    def lengths(least: int, greatest: int) -> list[int]:
        return [len(each.tokens) for each in generate(model, batch, min_new_tokens=least, max_new_tokens=greatest)]

    assert min(lengths(0, 6)) < 3
    assert all(3 <= length <= 6 for length in lengths(3, 6))
    assert lengths(6, 6) == [6, 6, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 160}, "prompt 0 has 10 tokens and up to 160 new ones follow; the language model has 160"),
        ({"min_new_tokens": 11}, "min_new_tokens is 11; allowed are 0…10"),
        ({"beams": 0}, "beams is 0"),
        ({"beams": 31}, "beams is 31; allowed are 1…30"),
        ({"vocabulary": 31}, "vocabulary is 31; allowed are 1…30"),
        ({"sampling": Sampling()}, "sampling with 3 beams"),
    ],
)
def test_numbers_that_are_not_allowed_are_named(options: dict[str, int], message: str) -> None:
    model = small_model(small_config("llama", "cross"))
    with pytest.raises(ValueError, match=message):
        generate(model, one_a_row(model, prompts(model.config)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_sampling_that_is_none_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]


def test_only_prompts_and_a_model_in_evaluation_mode_are_read() -> None:
    model = small_model(small_config("llama", "cross"))
    packed = collate([prompts(model.config)], model.config)
    with pytest.raises(ValueError, match="several samples in a row"):
        generate(model, packed)
    with pytest.raises(ValueError, match="training mode"):
        generate(model.train(), one_a_row(model, prompts(model.config)))
