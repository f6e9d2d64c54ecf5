"""What training computes, on one process."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import tensors_digest
from model.freezing import Stage
from model.revilm import ReViLM
from model.sequence import Chunk
from model.training.loop import NotFinite, Pace
from model.training.samples import Listed, Sample
from model.training.updates import Batching
from model.training.world import World
from tests.model.small_models import MODES, Family, Mode, batch_of, picture
from tests.training.small_sources import Damaged, captions, damaged, pairs
from tests.training.small_training import Learned, Training, furthest, gradients, outcome

ALONE = World.here()
ROUNDING = 5e-5  # of sums in another order, for tensors of which little is left
TWO_SOURCES = Training(
    sources={"pairs": Listed(pairs(9, 1)), "more": Listed(pairs(5, 2))},
    batches={"pairs": 5, "more": 3},
    pace=Pace(learning_rate=1e-2, weights={"pairs": 0.3, "more": 2.0}),
)


def mean_loss(model: ReViLM, samples: list[Sample], *, retrieved: bool = False) -> Tensor:
    """Of one source in one batch, a sample a row: nats by token of captions, or of their neighbours."""
    batch = batch_of(model.config, [[sample.chunks] for sample in samples])
    hidden = model.hidden(model.embed(batch.tokens), model.view_of(batch), model.condition(batch))
    nats = F.cross_entropy(model.logits(hidden).transpose(1, 2), batch.targets, reduction="none", ignore_index=-100)
    wanted = (batch.targets != -100) & (batch.retrieved.roll(-1, dims=1) == retrieved)
    return nats[wanted].mean()


def samples_of_first_update(training: Training) -> dict[str, list[Sample]]:
    update = training.updates()[0]
    of_id = {sample.id: sample for source in training.sources.values() for sample in source.samples}  # type: ignore[attr-defined]
    return {name: [of_id[each] for each in ids] for name, ids in update.ids.items()}


def gradients_of(model: ReViLM, loss: Tensor) -> Learned:
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(
    "batching", [Batching(micro_batch=2), Batching(micro_batch=3, rows="packed"), Batching(micro_batch=9)]
)
def test_the_gradient_is_that_of_the_weighted_sum_of_every_sources_mean_loss(batching: Batching) -> None:
    model = TWO_SOURCES.model()
    drawn = samples_of_first_update(TWO_SOURCES)
    due = gradients_of(model, 0.3 * mean_loss(model, drawn["pairs"]) + 2.0 * mean_loss(model, drawn["more"]))
    assert furthest(gradients(replace(TWO_SOURCES, batching=batching)), due) < ROUNDING


def test_the_loss_that_is_told_is_every_sources_mean_over_its_tokens() -> None:
    model = TWO_SOURCES.model()
    drawn = samples_of_first_update(TWO_SOURCES)
    (step,) = outcome(TWO_SOURCES, range(1)).steps
    with torch.no_grad():
        due = {name: float(mean_loss(model, samples)) for name, samples in drawn.items()}
    assert step.losses == pytest.approx(due, rel=1e-5)
    assert step.tokens == sum(len(sample.chunks[0].text) + 1 for samples in drawn.values() for sample in samples)


def test_micro_batches_weigh_by_their_tokens() -> None:
    texts = Listed([Sample("short", (Chunk(text="a"),)), Sample("long", (Chunk(text="bcdefghijk" * 3),))])
    training = Training(
        sources={"texts": texts}, batches={"texts": 2}, batching=Batching(micro_batch=1), mode="none", stage="language"
    )
    model = training.model()
    due = gradients_of(model, mean_loss(model, list(texts.samples)))
    assert furthest(gradients(training), due) < ROUNDING


def test_retrieved_captions_of_mode_prefix_have_a_mean_of_their_own() -> None:
    training = Training(mode="prefix", prefix_loss=0.4)
    model = training.model()
    (drawn,) = samples_of_first_update(training).values()
    due = gradients_of(model, mean_loss(model, drawn) + 0.4 * mean_loss(model, drawn, retrieved=True))
    assert furthest(gradients(training), due) < ROUNDING


@pytest.mark.parametrize("mode", MODES)
def test_packed_rows_have_the_gradient_of_buckets(mode: Mode) -> None:
    buckets = Training(mode=mode, batching=Batching(micro_batch=3))
    packed = replace(buckets, batching=Batching(micro_batch=3, rows="packed", row_tokens=70))
    assert furthest(gradients(packed), gradients(buckets)) < 1e-5


@pytest.mark.parametrize("stage", ["retrofit", "pretrain"])
def test_recomputed_layers_have_the_same_gradient(stage: Stage) -> None:
    source = Listed(captions(14, 1) if stage == "retrofit" else pairs(14, 1))
    plain = Training(stage=stage, sources={"pairs": source}, dropout=0.3)
    recomputing = replace(plain, pace=replace(plain.pace, recompute="layers"))
    assert furthest(gradients(recomputing), gradients(plain)) < 1e-6


@pytest.mark.parametrize("stage", ["retrofit", "pretrain"])
def test_frozen_parts_stay_as_they_were(stage: Stage) -> None:
    source = Listed(captions(14, 1) if stage == "retrofit" else pairs(14, 1))
    training = Training(stage=stage, sources={"pairs": source})
    model, optimizer = training.start(ALONE)
    before = {part: tensors_digest(module) for part, module in model.named_children()}
    training.go_on(model, optimizer, ALONE, range(3))
    trained = {name.split(".")[0] for name, each in model.named_parameters() if each.requires_grad}
    assert trained
    assert trained != before.keys()
    for part, module in model.named_children():
        if before[part] != tensors_digest(torch.nn.Module()):
            assert (tensors_digest(module) == before[part]) == (part not in trained), part
    for name, parameter in model.named_parameters():
        learned = name.split(".")[0] in trained
        assert (parameter.grad is not None, parameter in optimizer.state) == (learned, learned), name


@pytest.mark.parametrize("mode", MODES)
def test_four_samples_are_learned_by_heart(mode: Mode) -> None:
    """What a text begins with, the picture alone can tell. All is trained, for a frozen head of random weights cannot
    be sure of anything."""
    texts = ("dog runs", "cats", "two birds", "a cow")
    four = [
        Sample(text, (Chunk(image=picture(n), text=text, neighbors=["so", "it is"]),)) for n, text in enumerate(texts)
    ]
    training = Training(
        sources={"four": Listed(four)},
        batches={"four": 4},
        batching=Batching(micro_batch=4),
        mode=mode,
        stage="finetune",
        pace=Pace(learning_rate=1e-2, warm_up=5),
    )
    losses = outcome(training, range(40)).losses
    assert losses[0] > 2
    assert losses[-1] < 0.02


def test_behind_gated_layers_that_are_frozen_the_resampler_gets_no_gradient() -> None:
    training = Training()
    model = training.model()
    for name, parameter in model.gated_cross_attention.named_parameters():
        parameter.requires_grad_(False)
        if name.endswith("_gate"):
            torch.nn.init.zeros_(parameter)
    found = gradients(training, model)
    of_resampler = [each for name, each in found.items() if name.startswith("resampler.")]
    assert of_resampler
    assert all(not each.any() for each in of_resampler)
    opened = gradients(training)
    assert all(each.any() for name, each in opened.items() if name.startswith("resampler.layers"))


def test_bad_samples_are_counted_and_the_others_learned() -> None:
    whole, some_bad = Listed(pairs(14, 1)), damaged(pairs(14, 1), [1, 4])
    training = Training(sources={"pairs": some_bad})
    model = training.model()
    order = samples_of_first_update(Training(sources={"pairs": whole}))["pairs"]
    kept = {sample.id for sample in some_bad.samples if sample}
    good = [sample for sample in order if sample.id in kept]
    assert len(good) == 4
    assert furthest(gradients(training), gradients_of(model, mean_loss(model, good))) < ROUNDING
    assert [step.skipped for step in outcome(training, range(2)).steps] == [{"no_picture": 2}, {}]


def test_an_update_without_a_usable_sample_is_counted_and_training_goes_on() -> None:
    steps = outcome(Training(sources={"pairs": damaged(pairs(14, 1), range(6))}), range(3)).steps
    assert [step.skipped for step in steps[:2]] == [{"no_picture": 6}, {}]
    assert steps[0].tokens == 0
    assert steps[1].losses["pairs"] > 0


def spoiled(position: int) -> Damaged:
    """A picture of which is not a number."""
    broken = Sample("broken", (Chunk(image=picture(1) * float("nan"), text="a dog"),))
    return damaged(pairs(14, 1), [position], instead=broken)


def test_a_loss_that_is_not_finite_stops_before_anything_is_touched() -> None:
    training = Training(sources={"pairs": spoiled(8)}, pace=Pace(learning_rate=1e-2, warm_up=4))
    model, optimizer = training.start(ALONE)
    training.go_on(model, optimizer, ALONE, [0])
    before = [each.clone() for each in state_of(model, optimizer)]
    with pytest.raises(NotFinite, match="update 2: the loss of pairs is nan") as raised:
        training.go_on(model, optimizer, ALONE, [1, 2])
    assert "broken" in raised.value.update.ids["pairs"]
    assert all(map(torch.equal, state_of(model, optimizer), before))
    assert [group["lr"] for group in optimizer.param_groups] == [0.0025, 0.0025]


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    moments = [each for state in optimizer.state.values() for each in state.values()]
    return [*model.parameters(), *moments]


def test_the_gradient_is_clipped_once_an_update_by_its_whole_norm() -> None:
    training = replace(TWO_SOURCES, pace=replace(TWO_SOURCES.pace, clip=0.01))
    whole = gradients(training)
    norm = torch.stack([each.norm() for each in whole.values()]).norm()
    model, optimizer = training.start(ALONE)
    (step,) = training.go_on(model, optimizer, ALONE, [0])
    assert step.gradient_norm == pytest.approx(float(norm), rel=1e-5)
    clipped = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert furthest(clipped, {name: each * 0.01 / norm for name, each in whole.items()}) < 1e-4


def test_the_rate_of_an_update_is_set_before_it_is_made() -> None:
    training = Training(pace=Pace(learning_rate=0.4, warm_up=4))
    model, optimizer = training.start(ALONE)
    used: list[float] = []
    steps = training.go_on(model, optimizer, ALONE, range(6), lambda _: used.append(optimizer.param_groups[0]["lr"]))
    assert used == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert [step.learning_rate for step in steps] == used


@pytest.mark.parametrize("mode", ["cross", "prefix"])
def test_dropped_tokens_of_neighbors_are_the_same_from_whatever_update_one_begins(mode: Mode) -> None:
    """Of one sample, whose loss differs from update to update by them alone."""
    told = Sample("told", (Chunk(image=picture(1), text="a dog", neighbors=["it is a cat", "two birds"]),))
    training = Training(
        sources={"told": Listed([told])},
        batches={"told": 1},
        mode=mode,
        dropout=0.5,
        pace=Pace(learning_rate=0.0),
        weight_decay=0.0,
    )
    model, optimizer = training.start(ALONE)
    losses = [step.losses["told"] for step in training.go_on(model, optimizer, ALONE, range(5))]
    assert len(set(losses)) == 5
    again = [training.go_on(model, optimizer, ALONE, [number])[0].losses["told"] for number in (4, 2, 3)]
    assert again == [losses[4], losses[2], losses[3]]
    other_seed = replace(training, pace=replace(training.pace, seed=1))
    assert other_seed.go_on(model, optimizer, ALONE, [0])[0].losses["told"] != losses[0]


@pytest.mark.parametrize(("family", "stage"), [("llama", "retrofit"), ("gpt2", "pretrain"), ("gpt2", "finetune")])
def test_bf16_learns_as_fp32_does(family: Family, stage: Stage) -> None:
    """Within 2 % of the loss; what is trained stays in float32, and so do frozen norms and tables."""
    source = Listed(captions(14, 1) if stage == "retrofit" else pairs(14, 1))
    full = Training(family=family, stage=stage, sources={"pairs": source}, batching=Batching(micro_batch=6))
    narrow = replace(full, pace=replace(full.pace, precision="bf16"))
    due = outcome(full, range(6)).losses
    model, optimizer = narrow.start(ALONE)
    losses = [step.losses["pairs"] for step in narrow.go_on(model, optimizer, ALONE, range(6))]
    assert losses == pytest.approx(due, rel=0.02)
    assert losses != due
    assert losses[-1] < losses[0]
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim > 1 and not name.endswith(("table.weight", "positional_embedding", "in_proj_weight"))
        if matrix and not parameter.requires_grad:
            assert parameter.dtype == torch.bfloat16, name
        elif parameter.requires_grad or "norm" in name or "table" in name:
            assert parameter.dtype == torch.float32, name
    assert all(each.dtype == torch.float32 for state in optimizer.state.values() for each in state.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own
def test_a_compiled_model_learns_the_same() -> None:
    plain = Training(
        sources={"texts": Listed(captions(14, 1))},
        batches={"texts": 6},
        batching=Batching(micro_batch=6),
        mode="none",
        stage="language",
    )
    compiled = outcome(replace(plain, compiled=True))
    assert compiled.losses == pytest.approx(outcome(plain).losses, rel=1e-5)


def test_a_step_tells_where_its_seconds_went() -> None:
    (step,) = outcome(Training(), range(1)).steps
    assert set(step.seconds) == {"wait", "compute", "step"}
    assert all(seconds > 0 for seconds in step.seconds.values())
