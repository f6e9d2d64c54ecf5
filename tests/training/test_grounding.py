"""Grounding meters on models of which is known what they use."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from model.batch import collate
from model.evaluation.bootstrap import Figure, interval
from model.freezing import freeze
from model.revilm import ReViLM
from model.sequence import Chunk, SequenceBuilder
from model.training.captions import Captioned
from model.training.exchange import derangement, length_buckets, with_neighbors, with_pictures, without_neighbors
from model.training.gates import gate_values
from model.training.grounding import Grounding, measure_grounding
from model.training.samples import Sample
from tests.model.small_models import Letters, pair, picture, small_config, small_model
from tests.model.small_models import samples as mixed_chunks

KINDS = 3  # of pictures, and of neighbours


class Readable(Letters):
    def decode(self, ids: Sequence[int]) -> str:
        return "".join("abcdefghijklmnopqrstuvwxyz ??"[each] for each in ids)


def told_by_both(number: int, seed: int = 0) -> list[Sample]:
    """The first letter of a caption is in its picture alone, the last in its neighbour alone."""
    drawn = np.random.default_rng(seed).integers(KINDS, size=(number, 2)).tolist()
    return [
        Sample(str(place), (pair(seen, f"{'abcd'[seen]} {'uvwx'[told]}", f"see {'uvwx'[told]}"),))
        for place, (seen, told) in enumerate(drawn)
    ]


@pytest.fixture(scope="module")
def trained() -> ReViLM:
    """A model that has learnt to read both."""
    torch.manual_seed(0)
    model = ReViLM(small_config(mode="cross"))
    builder = SequenceBuilder(model.config, Readable())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for update in range(70):
        batch = collate([[builder.segment(each.chunks)] for each in told_by_both(16, 1 + update)], model.config)
        optimizer.zero_grad()
        model(batch).mean().backward()
        optimizer.step()
    return model.eval()


def measured(model: ReViLM, samples: Sequence[Sample], *, batch_size: int = 32, seed: int = 0) -> Grounding:
    builder = SequenceBuilder(model.config, Readable())
    return measure_grounding(model, builder, samples, device="cpu", batch_size=batch_size, max_new_tokens=5, seed=seed)


def loss_of(model: ReViLM, *samples: Sample) -> float:
    """Nats a token, by the model's own loss."""
    builder = SequenceBuilder(model.config, Readable())
    with torch.no_grad():
        loss = model(collate([[builder.segment(each.chunks)] for each in samples], model.config))
    return float(loss.caption / loss.caption_tokens)


def above_zero(delta: Figure | None) -> bool:
    return delta is not None and 0 < delta.low <= delta.value <= delta.high


def test_a_model_that_reads_pictures_and_neighbours_loses_without_either(trained: ReViLM) -> None:
    found = measured(trained, told_by_both(64))
    assert above_zero(found.image_shuffle)
    assert above_zero(found.neighbor_shuffle)
    assert above_zero(found.neighbor_empty)
    assert found.both_shuffle is not None
    assert found.image_shuffle is not None
    assert found.neighbor_shuffle is not None
    assert found.both_shuffle.value > max(found.image_shuffle.value, found.neighbor_shuffle.value)
    assert found.warnings(stage="pretrain", warmed_up=True) == []


def test_a_model_with_closed_gates_uses_no_picture_and_is_warned_of(trained: ReViLM) -> None:
    blind = ReViLM(trained.config)
    blind.load_state_dict(trained.state_dict())
    for name, gate in blind.named_parameters():
        if name.endswith("attention_gate"):
            nn.init.zeros_(gate)
    found = measured(blind.eval(), told_by_both(64))
    assert found.image_shuffle == Figure(0.0, 0.0, 0.0)
    assert above_zero(found.neighbor_shuffle)
    assert found.both_shuffle == found.neighbor_shuffle
    assert "the pictures are not used" in " ".join(found.warnings(stage="pretrain", warmed_up=True))
    assert found.warnings(stage="pretrain", warmed_up=False) == []


def test_a_new_model_uses_neither() -> None:
    found = measured(ReViLM(small_config(mode="cross")), told_by_both(8))
    nothing = Figure(0.0, 0.0, 0.0)
    assert found.image_shuffle == found.neighbor_shuffle == found.neighbor_empty == found.both_shuffle == nothing


def test_text_alone_has_no_meter_of_pictures_and_a_retrofit_without_gain_is_warned_of() -> None:
    samples = [Sample(letter, (Chunk(text=f"a {letter}", neighbors=[f"see {letter}"]),)) for letter in "uvwx"]
    found = measured(ReViLM(small_config(mode="cross", vision=False)), samples)
    assert found.image_shuffle is found.both_shuffle is None
    assert found.neighbor_empty == Figure(0.0, 0.0, 0.0)
    assert "no gain by neighbours" in " ".join(found.warnings(stage="retrofit", warmed_up=True))
    assert found.warnings(stage="pretrain", warmed_up=True) == []


def test_a_model_without_retrieval_has_no_meter_of_neighbours() -> None:
    found = measured(small_model(small_config(mode="none")), told_by_both(8))
    assert found.neighbor_shuffle is found.neighbor_empty is found.both_shuffle is None
    assert found.image_shuffle is not None
    assert found.image_shuffle.value != 0
    assert found.nearest_neighbor_cider_d is not None, "what copying would score is known without reading"


def test_neighbours_in_front_of_the_picture_are_measured_without_their_own_loss() -> None:
    samples = told_by_both(8)
    plain, learning = (
        measured(small_model(small_config(mode="prefix", prefix_loss=weight)), samples) for weight in (0.0, 0.5)
    )
    assert plain == learning
    assert plain.neighbor_shuffle is not None
    assert plain.neighbor_empty is not None
    assert plain.neighbor_empty.value != 0


def test_each_meter_is_the_loss_of_exchanged_samples_minus_the_loss() -> None:
    model = small_model(small_config(mode="cross"))
    one = Sample("1", (pair(1, "a dog", "a cat", "dogs"), pair(2, "two cats")))
    two = Sample("2", (pair(3, "a hen", "b"), pair(4, "cocks", "chicken", "hens")))
    found = measured(model, [one, two])
    seen, read = (
        [with_pictures(one, two), with_pictures(two, one)],
        [with_neighbors(one, two), with_neighbors(two, one)],
    )
    assert [chunk.text for chunk in seen[0].chunks] == ["a dog", "two cats"]
    assert [chunk.image for chunk in seen[0].chunks] == [chunk.image for chunk in two.chunks]
    assert [chunk.neighbors for chunk in read[0].chunks] == [("b",), ("chicken", "hens")]
    loss = loss_of(model, one, two)
    both = loss_of(model, with_pictures(read[0], two), with_pictures(read[1], one))
    due = {
        "loss": loss,
        "image_shuffle": loss_of(model, *seen) - loss,
        "neighbor_shuffle": loss_of(model, *read) - loss,
        "neighbor_empty": loss_of(model, without_neighbors(one), without_neighbors(two)) - loss,
        "both_shuffle": both - loss,
    }
    assert {name: found.figures()[name].value for name in due} == pytest.approx(due, abs=1e-5)


def test_samples_of_every_shape_are_measured_and_one_alone_in_its_shape_exchanges_nothing() -> None:
    model = small_model(small_config(mode="cross"))
    _, three_pictures, shots, text = (Sample(str(place), tuple(chunks)) for place, chunks in enumerate(mixed_chunks()))
    one_picture = Sample("one picture", (pair(9, "a hawk over me", "an owl"),))
    samples = [three_pictures, shots, text, one_picture]
    found = measured(model, samples)
    assert found.loss.value == pytest.approx(loss_of(model, *samples), abs=1e-5)
    assert [each.id for each in found.captions] == [each.id for each in samples]
    exchanging = measured(model, [shots, one_picture])  # the two that hold one picture
    for name in ("image_shuffle", "neighbor_shuffle", "both_shuffle"):
        assert found.figures()[name].value == pytest.approx(exchanging.figures()[name].value, abs=1e-5)


def test_an_exchange_stays_among_samples_of_a_length_and_of_as_many_pictures() -> None:
    shapes = [(pictures, length) for length in (3, 8, 1, 9, 5, 2, 7, 6, 4) for pictures in (0, 3, 1)] + [(2, 5)]
    samples = [
        Sample(str(place), tuple(Chunk(image=picture(number)) for number in range(pictures)) or (Chunk(text="a"),))
        for place, (pictures, _) in enumerate(shapes)
    ]
    buckets = length_buckets(samples, [length for _, length in shapes], 4)
    donors = derangement(buckets, np.random.default_rng(0)).tolist()
    assert sorted(donors) == list(range(len(samples)))
    for place, donor in enumerate(donors):
        assert shapes[place][0] == shapes[donor][0]
        assert abs(shapes[place][1] - shapes[donor][1]) <= 4
        assert (place == donor) == (shapes[place] == (2, 5))
    assert sorted(map(len, buckets)) == [1, 4, 4, 4, 5, 5, 5]


def test_measuring_drops_no_neighbours_draws_no_numbers_and_leaves_the_training_mode() -> None:
    model = small_model(small_config(mode="cross", dropout=0.5))
    freeze(model, "pretrain")
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    found = measured(model, told_by_both(8))
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert found == measured(small_model(small_config(mode="cross")), told_by_both(8))


def test_the_size_of_a_batch_does_not_change_the_loss_or_the_captions() -> None:
    model, samples = small_model(small_config(mode="cross")), told_by_both(9)
    small, large = measured(model, samples, batch_size=2), measured(model, samples)
    assert small.loss.value == pytest.approx(large.loss.value, abs=1e-5)
    assert [each.generated for each in small.captions] == [each.generated for each in large.captions]


def test_what_copying_the_nearest_neighbour_scores_is_told_beside_the_score_of_the_captions(trained: ReViLM) -> None:
    samples = [
        replace(sample, chunks=(replace(sample.chunks[0], neighbors=[sample.chunks[0].text, "see x"]),))
        for sample in told_by_both(16)
    ]
    found = measured(trained, samples)
    assert found.nearest_neighbor_cider_d is not None
    # Three letters with two spaces are two words: all pairs of words are right, and there is no longer run.
    assert found.nearest_neighbor_cider_d.value == pytest.approx(5.0)
    assert 0 < found.cider_d.value <= 5.0


def test_copies_are_found_by_words_and_in_the_normal_form() -> None:
    def captioned(generated: str, *neighbors: str) -> Captioned:
        return Captioned(id="1", reference="", generated=generated, neighbors=neighbors, loss=0.0)

    assert captioned("a red dog runs", "dogs", "The red dog, asleep").copied == 2 / 4
    assert captioned("a red dog runs").copied == 0
    assert captioned("", "dogs").copied == 0
    assert captioned("A red dog.", "cats", "a red dog!").equals_neighbor
    assert not captioned("a red dog", "a red dog runs").equals_neighbor
    assert not captioned("?", "!").equals_neighbor


def test_copying_is_measured_over_the_samples_that_have_a_neighbour() -> None:
    samples = [replace(sample, chunks=(replace(sample.chunks[0], neighbors=("",)),)) for sample in told_by_both(4)]
    model = small_model(small_config(mode="cross"))
    nothing_to_copy = measured(model, samples)
    assert nothing_to_copy.copy_rate is nothing_to_copy.nearest_neighbor_cider_d is None
    assert nothing_to_copy.neighbor_empty is nothing_to_copy.neighbor_shuffle is None


def test_a_caption_that_is_a_neighbours_is_a_copy_and_an_empty_one_is_none() -> None:
    deaf = small_model(small_config(mode="none"))  # says the same whatever its neighbours are
    samples = [Sample(str(seen), (pair(seen, "a b"),)) for seen in range(4)]
    said = [each.generated for each in measured(deaf, samples).captions]
    assert 0 < sum(map(bool, said)) < 4
    echoes = [
        replace(sample, chunks=(replace(sample.chunks[0], neighbors=["xyz", caption]),))
        for sample, caption in zip(samples, said, strict=True)
    ]
    found = measured(deaf, echoes)
    assert found.copy_rate is not None
    assert found.equal_to_neighbor is not None
    assert found.copy_rate.value == found.equal_to_neighbor.value == sum(map(bool, said)) / 4


def test_an_interval_holds_the_mean_weighs_by_tokens_and_is_as_wide_as_theory_has_it() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 2.0, size=400)
    found = interval(drawn, np.ones(400), seed=1)
    assert found.value == pytest.approx(drawn.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * drawn.std() / 400**0.5, rel=0.1)
    assert interval(np.array([1.0, 9.0]), np.array([1.0, 3.0]), seed=0).value == 10 / 4
    assert found == interval(drawn, np.ones(400), seed=1)


def test_the_figures_can_be_written_as_json() -> None:
    found = measured(small_model(small_config(mode="cross")), told_by_both(4))
    read = json.loads(json.dumps(asdict(found)))
    assert read["image_shuffle"] == asdict(found.figures()["image_shuffle"])
    assert read["captions"][0]["reference"] == told_by_both(1)[0].chunks[0].text


def test_what_cannot_be_measured_is_refused() -> None:
    model = small_model(small_config())
    with pytest.raises(ValueError, match="no samples"):
        measured(model, [])
    with pytest.raises(ValueError, match="batch_size is 1"):
        measured(model, told_by_both(4), batch_size=1)
    unlearned = Sample("x", (Chunk(image=picture(1), text="a", learned=False),))
    with pytest.raises(ValueError, match="sample x has no token to learn"):
        measured(model, [*told_by_both(2), unlearned])


def test_gates_are_told_by_layer() -> None:
    assert gate_values(ReViLM(small_config())) == dict.fromkeys(("1", "2", "3"), (0.0, 0.0))
    tanh = [float(torch.tensor(gate).tanh()) for gate in (0.5, 0.3)]
    assert gate_values(small_model(small_config()))["2"] == pytest.approx(tanh)
