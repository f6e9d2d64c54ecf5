"""What the model is measured with: its captions, its rows, its prompts, and what the tables say."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch

from model.presets import preset
from trials.benchmarks.decoding import SHOT, Case, Sizes, decoding, prompt
from trials.benchmarks.flamingo_layers import Ours, shape_of, step
from trials.benchmarks.model_gpu import on_gpu
from trials.benchmarks.model_samples import ROW_TOKENS, Captions, packed, padded
from trials.benchmarks.model_steps import overhead, packing, parts

NANO = preset("nano")


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions.drawn(4096)


def lines(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    return dict(told)


def test_drawn_captions_have_the_lengths_that_are_stated(captions: Captions) -> None:
    lengths = torch.tensor([2.0 + len(captions.tokenizer.encode(text)) for text in captions.texts])
    assert lengths.mean() == pytest.approx(14.4, abs=0.4)
    assert lengths.median() == pytest.approx(13, abs=1)
    assert lengths.quantile(0.95) == pytest.approx(26, abs=1.5)


def test_captions_that_are_missing_are_drawn(captions: Captions) -> None:
    read = Captions.read(Path("nowhere.tsv"))
    assert (read.told, read.texts) == (captions.told, captions.texts)


def test_packed_and_padded_rows_hold_the_same_captions(captions: Captions) -> None:
    segments = captions.segments(NANO, 12, "patch tokens")
    rows, fewer = padded(segments, NANO), packed(segments, NANO)
    real = [sorted(batch.tokens[batch.segments > 0].tolist()) for batch in (rows, fewer)]
    assert real[0] == real[1]
    assert fewer.tokens.shape[1] <= ROW_TOKENS
    assert fewer.tokens.numel() < rows.tokens.numel()


def test_pictures_given_otherwise_come_with_the_same_captions(captions: Captions) -> None:
    one, other = (captions.segments(NANO, 4, given, pictures=2) for given in ("pixels", "patch tokens"))
    assert [each.tokens for each in one] == [each.tokens for each in other]
    assert one[0].images[0].shape == (1, 3, 64, 64)
    assert other[0].images[0].shape == (1, 16, 128)
    assert len(one[0].evidence) == 2


def test_every_part_of_a_step_is_timed(captions: Captions) -> None:
    told = lines(parts("nano", captions, 4, 1))
    shares = [int(figure.rsplit(" ", 1)[1].removesuffix("%")) for name, figure in told.items() if "step" not in name]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(100, abs=3)


def test_targets_stand_beside_what_they_hold_for(captions: Captions) -> None:
    told = lines([*overhead("nano", captions, 4, 1.1, 1), *packing("nano", captions, 8, 1, 1)])
    assert [figure.split("(target ")[1].split(")")[0] for figure in told.values() if "target" in figure] == [
        "≤ 1.1",
        "≤ 1.1",
        "≥ 1.2",
        "≥ 1.1",
    ]
    assert "target" not in str(lines(overhead("nano", captions, 2, None, 1)))


def test_a_missing_gpu_is_said_of_every_model(captions: Captions) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert list(lines(on_gpu([("base", 8), ("large", 8)], captions)).values()) == ["not run: no GPU"] * 2


@pytest.mark.slow
def test_a_device_that_is_there_is_timed_in_every_way(captions: Captions) -> None:
    told = lines(on_gpu([("nano", 8)], captions, "cpu", {"patch tokens": ("eager", "layers computed again")}))
    counted, eager, again = (figure for what, figure in told.items() if "GFLOP" not in figure)
    assert 0.95 < float(counted.split()[0]) < 1.3
    assert "samples/s" in eager
    assert "samples/s" in again


@pytest.mark.parametrize(("tokens", "pictures"), [(2, 1), (SHOT, 1), (100, 5)])
def test_a_prompt_has_the_stated_tokens_and_neighbors_to_every_picture(tokens: int, pictures: int) -> None:
    built = prompt(NANO, tokens, seed=0)
    assert len(built) == tokens
    assert built.tokens.count(NANO.image_id) == len(built.images) == len(built.evidence) == pictures


def test_decoding_compares_equal_answers() -> None:
    told = lines(decoding(Sizes("nano", (Case(2, 3, 1), Case(40, 8, 1)), batch=2, new_tokens=4)))
    assert [figure[-12:] for what, figure in told.items() if "ratio" in what] == ["(target ≥ 3)", "(target ≥ 8)"]


def test_layers_alone_give_the_same_loss_padded_and_packed(captions: Captions) -> None:
    config = shape_of("nano")
    segments = captions.segments(config, 6, "patch tokens")
    torch.manual_seed(0)
    layers, table = Ours(config), torch.randn(config.pad_id + 1, config.language_model.width)
    losses: Sequence[float] = [step(layers, form(segments, config), table) for form in (padded, packed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
