"""Which samples an update holds, and how they lie in its batches, whoever makes it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.batch import IGNORED
from model.routing import Routing
from model.sequence import Chunk, SequenceBuilder
from model.training.samples import Listed, Sample
from model.training.updates import Batching, MicroBatch, Rank, Share, Update, Updates, loaded
from tests.model.small_models import Letters, samples, small_config
from tests.training.small_sources import captions, damaged, pairs
from tests.training.small_training import Training

TWO_SOURCES = Training(
    sources={"pairs": Listed(pairs(7, 1)), "more": Listed(pairs(5, 2))}, batches={"pairs": 3, "more": 2}
)


def ids(updates: Updates, numbers: Sequence[int]) -> list[str]:
    return [each for number in numbers for of_source in updates[number].ids.values() for each in of_source]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3), (1, 2), (3, 2)])
def test_training_that_goes_on_with_other_ranks_sees_every_sample_of_an_epoch_once(before: int, after: int) -> None:
    training = Training(sources={"pairs": Listed(pairs(20, 1))}, batches={"pairs": 5})
    for first_of_them in range(5):
        seen = [
            each
            for ranks, numbers in ((before, range(first_of_them)), (after, range(first_of_them, 4)))
            for rank in range(ranks)
            for each in ids(training.updates(Rank(rank, ranks)), numbers)
        ]
        assert sorted(seen) == sorted(sample.id for sample in pairs(20, 1))


def test_the_ranks_of_an_update_hold_its_samples_once_and_step_equally_often() -> None:
    training = replace(TWO_SOURCES, batching=Batching(micro_batch=2))
    for number in range(5):
        whole = training.updates()[number]
        for ranks in (2, 3, 4):
            parts = [training.updates(Rank(rank, ranks))[number] for rank in range(ranks)]
            for name in whole.ids:
                assert sorted(each for part in parts for each in part.ids[name]) == sorted(whole.ids[name])
            assert len({tuple(micro.source for micro in part.micro_batches) for part in parts}) == 1
            assert sum(micro.caption_tokens for part in parts for micro in part.micro_batches) == sum(
                micro.caption_tokens for micro in whole.micro_batches
            )


def test_an_update_is_the_same_whatever_was_asked_before() -> None:
    forwards = [ids(TWO_SOURCES.updates(), [number]) for number in range(8)]
    asked = list(range(8))
    random.Random(0).shuffle(asked)
    updates = TWO_SOURCES.updates()
    assert {number: ids(updates, [number]) for number in asked} == dict(enumerate(forwards))


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_loader_gives_the_same_updates_whatever_the_number_of_its_processes(processes: int) -> None:
    due = [contents(TWO_SOURCES.updates()[number]) for number in range(3, 9)]
    assert [contents(update) for update in loaded(TWO_SOURCES.updates(), 3, 9, processes=processes)] == due


def contents(thing: Any) -> Any:
    """Everything in an update, tensors as lists, so that == compares all of it."""
    if isinstance(thing, Tensor):
        return thing.tolist()
    if isinstance(thing, list | tuple):
        return [contents(each) for each in thing]
    if isinstance(thing, dict):
        return {name: contents(each) for name, each in thing.items()}
    if isinstance(thing, Update | MicroBatch | Routing) or type(thing).__name__ in ("Batch", "Work"):
        return contents(vars(thing))
    return thing


def test_no_micro_batch_has_more_samples_than_allowed() -> None:
    for rows in ("buckets", "packed"):
        training = Training(batches={"pairs": 7}, batching=Batching(micro_batch=3, rows=rows, row_tokens=40))
        update = training.updates()[0]
        samples_each = [
            int((micro.batch.positions[micro.batch.segments > 0] == 0).sum()) for micro in update.micro_batches
        ]
        assert len(samples_each) == 3
        assert sum(samples_each) == 7
        assert max(samples_each) == 3


def test_buckets_put_samples_of_like_length_together() -> None:
    texts = ["a" * length for length in (1, 30, 2, 31, 3, 32)]
    listed = Listed([Sample(text, (Chunk(text=text),)) for text in texts])
    training = Training(sources={"texts": listed}, batches={"texts": 6}, batching=Batching(micro_batch=3), mode="none")
    short, long = training.updates()[0].micro_batches
    assert short.batch.tokens.shape == (3, 5)  # both end tokens around the text
    assert long.batch.tokens.shape == (3, 34)


def test_packed_rows_hold_the_same_tokens_in_less_room() -> None:
    rows = Training(batches={"pairs": 14}, batching=Batching(micro_batch=14))
    packed = replace(rows, batching=Batching(micro_batch=14, rows="packed", row_tokens=64))
    (of_rows,), (of_packed,) = rows.updates()[0].micro_batches, packed.updates()[0].micro_batches
    assert of_packed.work.tokens == of_rows.work.tokens
    assert of_packed.caption_tokens == of_rows.caption_tokens
    assert of_packed.batch.tokens.shape[0] < of_rows.batch.tokens.shape[0]
    assert of_packed.batch.tokens.numel() < of_rows.batch.tokens.numel()


def test_a_sample_longer_than_the_rows_has_a_row_for_itself() -> None:
    long = Sample("long", (Chunk(text="a" * 50),))
    training = Training(
        sources={"texts": Listed([long, *captions(3, 1)])},
        batches={"texts": 4},
        batching=Batching(micro_batch=4, rows="packed", row_tokens=20),
        mode="none",
    )
    assert training.updates()[0].samples == 4


def test_samples_that_cannot_be_used_are_counted_by_reason() -> None:
    long = Sample("long", tuple(Chunk(text="a" * 60) for _ in range(3)))
    some_missing = damaged(pairs(14, 1), [0, 2])
    source = damaged(some_missing.samples, [5], instead=long)
    training = Training(sources={"pairs": source})
    update = training.updates()[0]
    assert update.skipped == {"no_picture": 2, "too_long": 1}
    assert update.samples == len(update.ids["pairs"]) == 3
    assert "long" not in update.ids["pairs"]


def test_texts_that_were_cut_are_counted() -> None:
    config = small_config(mode="none")
    shares = {"texts": Share(2)}
    texts = {"texts": Listed([Sample("cut", (Chunk(text="a" * 9),)), Sample("whole", (Chunk(text="a" * 8),))])}
    builder = SequenceBuilder(config, Letters(), text_tokens=8)
    assert Updates(lambda: texts, shares, builder, Batching(micro_batch=2))[0].cut == 1


def test_a_rank_without_samples_has_batches_without_a_loss() -> None:
    training = Training(batches={"pairs": 1})
    (micro,) = training.updates(Rank(1, 2))[0].micro_batches
    assert micro.caption_tokens == micro.retrieved_tokens == 0
    assert (micro.batch.targets == IGNORED).all()


@pytest.mark.parametrize("prefix_loss", [0.0, 0.5])
def test_the_tokens_with_a_loss_are_counted_as_the_model_counts_them(prefix_loss: float) -> None:
    config = small_config(mode="prefix", prefix_loss=prefix_loss)
    listed = Listed([Sample(str(number), tuple(chunks)) for number, chunks in enumerate(samples()[:3])])
    training = Training(sources={"pairs": listed}, mode="prefix", prefix_loss=prefix_loss)
    updates = training.updates()
    model = training.model()
    assert model.config == config
    retrieved = 0
    for micro in updates[0].micro_batches:
        with torch.no_grad():
            loss = model(micro.batch)
        assert micro.caption_tokens == loss.caption_tokens
        assert micro.retrieved_tokens == loss.retrieved_tokens
        retrieved += micro.retrieved_tokens
    assert (retrieved > 0) == (prefix_loss > 0)
