"""Samples are what the pipeline made: each pair with its own neighbours, each picture of five with its own, and nothing
of the pairs that are held out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.config import ImageEncoderConfig
from model.sequence import SequenceBuilder
from model.training.data import held_out_samples
from model.training.pictures import decode
from model.training.recipe import SourceRecipe, TrainRecipe
from model.training.samples import Sample, Source, Unusable
from model.training.sources import DOCUMENT, Reads, Split, open_sources
from model.training.updates import Batching, Share, Updates
from pipeline.errors import InputError, RecipeError
from stages.interleave import SampleReader
from stages.neighbors import NeighborReader
from tests.model.small_models import Letters, small_config
from tests.stages.index.corpora import finish
from tests.training.tiny import IMAGE_PX, PATCH_PX, Scenes, Tiny, make_neighbors, make_samples

ENCODER = ImageEncoderConfig(image_size=IMAGE_PX, patch_size=PATCH_PX, width=64, layers=1, heads=2)
K = 3
SHARE = 0.25  # of the pairs, that are held out


def pairs(tiny: Tiny, **more: object) -> SourceRecipe:
    return SourceRecipe.model_validate({"corpus": tiny.root("corpus"), "neighbors": tiny.root("neighbors"), **more})


def fives(tiny: Tiny, **more: object) -> SourceRecipe:
    return SourceRecipe.model_validate({"samples": tiny.root("samples"), **more})


def opened(recipe: SourceRecipe, reads: Reads) -> Source:
    return open_sources({"it": recipe}, reads)["it"]


def places(source: Source) -> list[tuple[int, int]]:
    return [(shard, row) for shard, rows in enumerate(source.sizes) for row in range(rows)]


def usable(source: Source) -> tuple[list[Sample], dict[str, int]]:
    """All samples that there are, and how many are not for each reason."""
    found: list[Sample] = []
    refused: dict[str, int] = {}
    for place in places(source):
        try:
            found.append(source.sample(*place))
        except Unusable as reason:
            refused[str(reason)] = refused.get(str(reason), 0) + 1
    return found, refused


def stored_neighbors(tiny: Tiny) -> dict[str, list[tuple[str, str]]]:
    """Pair → pair_id and caption of its neighbours, nearest first."""
    reader = NeighborReader(tiny.root("neighbors"))
    rows = [row for shard in reader.shards for row in reader.table(shard).to_pylist()]
    return {row["pair_id"]: [(each["pair_id"], each["caption"]) for each in row["neighbors"]] for row in rows}


# ── pairs ──


def test_a_pair_is_joined_with_its_own_neighbors_the_nearest_first(tiny: Tiny) -> None:
    stored, reader = stored_neighbors(tiny), NeighborReader(tiny.root("neighbors"))
    similarities = [
        [each["similarity"] for each in row["neighbors"]]
        for shard in reader.shards
        for row in reader.table(shard).to_pylist()
    ]
    assert all(each == sorted(each, reverse=True) for each in similarities)
    for k in (1, K):
        samples, refused = usable(opened(pairs(tiny), Reads(k, None)))
        assert len(samples) == tiny.scenes.rows
        assert not refused
        for sample in samples:
            (chunk,) = sample.chunks
            assert chunk.text == tiny.scenes.caption(int(sample.id[-10:]))
            assert list(chunk.neighbors) == [caption for _, caption in stored[sample.id][:k]]


def test_the_picture_of_a_pair_is_its_own(tiny: Tiny) -> None:
    source = opened(pairs(tiny), Reads(0, ENCODER))
    for place in places(source)[::7]:
        sample = source.sample(*place)
        (chunk,) = sample.chunks
        assert chunk.image is not None
        assert torch.equal(chunk.image, decode(tiny.scenes.jpeg(int(sample.id[-10:])), IMAGE_PX))


@pytest.mark.parametrize("kind", ["pairs", "fives"])
def test_held_out_pairs_are_neither_learned_nor_shown_as_a_neighbor(kind: str, tiny: Tiny) -> None:
    split = Split(SHARE)
    source = opened(pairs(tiny) if kind == "pairs" else fives(tiny), Reads(K, None, split))
    everything, _ = usable(opened(pairs(tiny) if kind == "pairs" else fives(tiny), Reads(K, None)))
    samples, refused = usable(source)
    out = {tiny.scenes.caption(int(pair_id[-10:])) for pair_id in stored_neighbors(tiny) if split.held_out(pair_id)}
    assert 8 < len(out) < 30
    learned = {chunk.text for sample in samples for chunk in sample.chunks}
    shown = {caption for sample in samples for chunk in sample.chunks for caption in chunk.neighbors}
    assert learned.isdisjoint(out)
    assert shown.isdisjoint(out)
    assert refused == {"held_out": len(everything) - len(samples)}
    others = {chunk.text for sample in everything for chunk in sample.chunks} - out
    assert kind == "fives" or learned == others


def test_both_parts_of_a_split_are_all_pairs_and_share_none(tiny: Tiny) -> None:
    split = Split(SHARE)
    learned, _ = usable(opened(pairs(tiny), Reads(K, None, split)))
    held_out, refused = usable(opened(pairs(tiny), Reads(K, None, replace(split, learns="the held out"))))
    ids = [sample.id for sample in learned + held_out]
    assert len(ids) == len(set(ids)) == tiny.scenes.rows
    assert refused == {"learned": len(learned)}
    assert all(split.held_out(sample.id) for sample in held_out)


def test_what_the_model_has_no_positions_for_is_not_evaluated_either(tiny: Tiny, tmp_path: Path) -> None:
    given = tiny.recipe(tmp_path, "pretrain", sources={"fives": fives(tiny).model_dump()})
    recipe = TrainRecipe.model_validate(given | {"held_out": {"share": SHARE, "samples": 100}})
    config = small_config("gpt2", "none", vision=True)

    def lengths(positions: int) -> list[int]:
        text = replace(config.language_model, positions=positions)
        builder = SequenceBuilder(replace(config, language_model=text), Letters())
        return [len(builder.segment(sample.chunks)) for sample in held_out_samples(recipe, builder)]

    found = lengths(1000)
    middle = sorted(found)[len(found) // 2]
    assert lengths(middle) == [length for length in found if length <= middle] != found


def test_what_is_held_out_stays_so_in_another_order_of_the_pairs_and_with_a_larger_share() -> None:
    ids = [f"cc3m-{number:010d}" for number in range(5000)]
    small, large = ({each for each in ids if Split(share).held_out(each)} for share in (0.01, 0.1))
    assert small < large
    assert 25 < len(small) < 80
    assert 420 < len(large) < 580


def test_a_row_without_a_readable_picture_is_counted_and_training_goes_on(tmp_path: Path) -> None:
    broken = (3, 17, 40)
    finish(tmp_path, [Scenes(rows=48, broken=broken)])
    recipe = SourceRecipe(corpus=str(tmp_path))
    source = opened(recipe, Reads(0, ENCODER))
    samples, refused = usable(source)
    assert refused == {"no_picture": 3}
    assert {int(sample.id[-10:]) for sample in samples} == set(range(48)) - set(broken)
    builder = SequenceBuilder(small_config(), Letters(), text_tokens=30)
    updates = Updates(lambda: {"it": source}, {"it": Share(16)}, builder, Batching(micro_batch=16))
    epoch = [updates[number] for number in range(3)]
    assert sum(update.skipped.get("no_picture", 0) for update in epoch) == 3
    assert sum(update.samples for update in epoch) == 45


def test_without_pictures_none_is_looked_at(tmp_path: Path) -> None:
    finish(tmp_path, [Scenes(rows=12, broken=tuple(range(12)))])
    samples, refused = usable(opened(SourceRecipe(corpus=str(tmp_path)), Reads(0, None)))
    assert len(samples) == 12
    assert not refused
    assert all(chunk.image is None for sample in samples for chunk in sample.chunks)


# ── five pairs ──


def test_five_pairs_come_in_their_stored_order_each_with_its_own_picture_and_neighbors(tiny: Tiny) -> None:
    stored, reader = stored_neighbors(tiny), SampleReader(tiny.root("samples"))
    rows = [row for shard in reader.shards for row in reader.table(shard).to_pylist()]
    samples, _ = usable(opened(fives(tiny), Reads(2, ENCODER)))
    assert len(samples) == len(rows) > 30
    for sample, row in zip(samples, rows, strict=True):
        assert sample.id == row["pair_id"] == row["pairs"][-1]["pair_id"]
        assert [chunk.text for chunk in sample.chunks] == [pair["caption"] for pair in row["pairs"]]
        for chunk, pair in zip(sample.chunks, row["pairs"], strict=True):
            assert chunk.image is not None
            assert torch.equal(chunk.image, decode(tiny.scenes.jpeg(int(pair["pair_id"][-10:])), IMAGE_PX))
            # None of the sample's own pairs is shown beside another of them.
            inside = {each["pair_id"] for each in row["pairs"]}
            allowed = [caption for pair_id, caption in stored[pair["pair_id"]] if pair_id not in inside]
            assert list(chunk.neighbors) == allowed[:2]
    assert any(chunk.neighbors for sample in samples for chunk in sample.chunks)


@pytest.mark.parametrize(("learn", "expected"), [("all", [True] * 5), ("query", [False] * 4 + [True])])
def test_of_five_pairs_all_captions_are_learned_or_the_query_s(learn: str, expected: list[bool], tiny: Tiny) -> None:
    samples, _ = usable(opened(fives(tiny, learn=learn), Reads(0, None)))
    assert all([chunk.learned for chunk in sample.chunks] == expected for sample in samples)


def test_samples_without_neighbors_are_refused_where_some_are_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    make_samples(tmp_path / "bare", tiny.root("corpus"))
    recipe = SourceRecipe(samples=str(tmp_path / "bare"))
    samples, _ = usable(opened(recipe, Reads(0, None)))
    assert all(chunk.neighbors == () for sample in samples for chunk in sample.chunks)
    with pytest.raises(InputError, match=r"bare were made without neighbours; make them with interleave.neighbors"):
        opened(recipe, Reads(1, None))


# ── documents ──


@pytest.mark.parametrize("kind", ["pairs", "fives"])
def test_a_document_is_one_to_five_related_captions_and_ends_with_the_pair_s_own(kind: str, tiny: Tiny) -> None:
    stored = stored_neighbors(tiny)
    reads = Reads(DOCUMENT - 1, None, fewer_will_do=True)
    source = open_sources({"it": pairs(tiny) if kind == "pairs" else fives(tiny)}, reads, "documents")["it"]
    samples, _ = usable(source)
    lengths = [len(sample.chunks) for sample in samples]
    assert set(lengths) == set(range(1, DOCUMENT + 1 if kind == "fives" else K + 2))  # K neighbours are stored
    for sample in samples:
        texts = [chunk.text for chunk in sample.chunks]
        assert texts[-1] == tiny.scenes.caption(int(sample.id[-10:]))
        assert len(set(texts)) == len(texts)
        assert all(chunk.image is None and not chunk.neighbors for chunk in sample.chunks)
        if kind == "pairs":  # the nearest stands last of the others, so that a short document has it
            nearest = [caption for _, caption in stored[sample.id]]
            assert texts[-2::-1] == nearest[: len(texts) - 1]


# ── what does not belong together ──


def test_neighbors_that_are_not_there_are_an_error_that_names_them(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neighbors is not whole \(no manifest.json\); run its job again"):
        opened(pairs(tiny, neighbors=str(tmp_path)), Reads(1, None))
    with pytest.raises(RecipeError, match=r"corpus .*corpus names no neighbors"):
        opened(SourceRecipe(corpus=tiny.root("corpus")), Reads(1, None))


def test_a_file_of_neighbors_that_is_gone_is_an_error_that_names_it(tiny: Tiny, tmp_path: Path) -> None:
    make_neighbors(tmp_path / "own", tiny.root("corpus"))
    source = opened(pairs(tiny, neighbors=str(tmp_path / "own")), Reads(1, None))
    victim = sorted((tmp_path / "own" / "neighbors").rglob("*000001*.parquet"))[0]
    victim.unlink()
    with pytest.raises(InputError, match=f"{victim.name} is missing"):
        usable(source)
