"""The named models and the table of their parameters."""

import pytest

from model.parameter_counts import FLAMINGO, Sizes, count_parameters, flamingo_sizes, main
from model.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("name", "built", "conditioned"),
    [
        ("base", 145_707_264, 148_071_168),
        ("medium", 405_218_304, 409_418_752),
        ("large", 1_517_273_088, 1_534_062_592),
    ],
)
def test_retro_is_as_large_as_in_the_paper(name: str, built: int, conditioned: int) -> None:
    """148 M, 410 M and 1.5 B: base reaches its figure only with the encoder conditioned on the decoder."""
    sizes = Sizes.of(name)
    assert sizes.retro == built
    assert sizes.retro + sizes.conditioning == conditioned


def test_smol_has_the_parameters_of_smollm2_135m_and_trains_a_quarter() -> None:
    sizes = Sizes.of("smol")
    assert sizes.parts["language_model"] == 134_515_008
    assert sizes.pretrained == pytest.approx(48.3e6, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "retro", "gated"),
    [
        ("nano", [2, 3], 3),
        ("tiny", [2, 4], 4),
        ("base", [6, 9, 12], 12),
        ("medium", [9, 12, 15, 18, 21, 24], 12),
        ("large", [9, 12, 15, 18, 21, 24], 6),
        ("smol", [9, 12, 15, 18, 21, 24, 27, 30], 10),
    ],
)
def test_retro_and_gated_layers_lie_where_they_should(name: str, retro: list[int], gated: int) -> None:
    """RETRO: from the 6th layer, of more than 15 from the 9th, every third, and so the last."""
    config = preset(name)
    assert list(config.retrieval.layers) == retro
    assert len(config.gated_layers) == gated


@pytest.mark.parametrize("name", PRESETS)
def test_retrieval_is_all_that_the_modes_differ_by_and_adds_at_most_16_per_cent(name: str) -> None:
    flamingo = count_parameters(preset(name, mode="none"))
    prefix = count_parameters(preset(name, mode="prefix"))
    ours = count_parameters(preset(name, mode="cross"))
    assert prefix == flamingo
    assert {part: ours[part] for part in ours if ours[part] != flamingo.get(part)}.keys() == {
        "text_encoder",
        "retrieval_cross_attention",
    }
    assert sum(flamingo.values()) < sum(ours.values()) <= 1.16 * sum(flamingo.values())


@pytest.mark.parametrize(("size", "published"), [("3B", 1.4e9), ("9B", 7.1e9), ("80B", 70e9)])
def test_flamingos_language_model_and_resampler_are_as_published_to_3_per_cent(size: str, published: float) -> None:
    sizes = flamingo_sizes(FLAMINGO[size])
    assert sizes["language model, by shape"] == pytest.approx(published, rel=0.03)
    assert sizes["resampler"] == pytest.approx(194e6, rel=0.03)


def test_a_vocabulary_of_ones_own_ends_with_its_last_token_unless_told() -> None:
    own = preset("nano", vocabulary=700).language_model
    told = preset("tiny", vocabulary=49152, end_of_text=0).language_model
    assert (own.vocabulary, own.end_of_text) == (700, 699)
    assert (told.vocabulary, told.end_of_text) == (49152, 0)


def test_the_table_stands_beside_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["base", "nano"])
    rows = {line[:40].strip(): line[40:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["RETRO: GPT and retrieval"] == ["145,707,264", "1,320,832"]
    assert rows["in the paper"] == ["148", "M"]
    trained, frozen, total = (
        [int(number.replace(",", "")) for number in rows[row]] for row in ("trained", "frozen", "Re-ViLM")
    )
    assert [sum(pair) for pair in zip(trained, frozen, strict=True)] == total


def test_a_preset_that_does_not_exist_is_named_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        main(["huge"])
    assert exit_of.value.code == 2
    assert "'huge' does not exist; there are nano, tiny, base" in capsys.readouterr().err
