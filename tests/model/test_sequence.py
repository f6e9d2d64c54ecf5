"""Samples as rows of tokens, against tables written by hand.

In the tables I is `<image>`, . is `<|endofchunk|>`, / is `<|neighbor|>`, $ is `<|endoftext|>`, ^ is begin-of-text and
_ is padding; in targets - is none. Pictures and sets of neighbours are counted from 1, 0 is none.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.batch import IGNORED, Batch, collate
from model.config import ReViLMConfig
from model.sequence import Chunk, Segment, SequenceBuilder, pack
from tests.model.small_models import (
    BEGIN,
    END,
    END_OF_CHUNK,
    IMAGE,
    MODES,
    NEIGHBOR,
    PAD,
    VOCABULARY,
    Letters,
    Mode,
    language_model_config,
    pair,
    picture,
    retrieval_config,
    small_config,
)

SPELLED = {
    **dict(enumerate("abcdefghijklmnopqrstuvwxyz ?")),
    **{BEGIN: "^", END: "$", IMAGE: "I", END_OF_CHUNK: ".", PAD: "_", NEIGHBOR: "/", IGNORED: "-"},
}


def collated(config: ReViLMConfig, *rows: Sequence[Sequence[Chunk]], begin: int | None = None) -> Batch:
    builder = SequenceBuilder(config, Letters(begin))
    return collate([[builder.segment(sample) for sample in row] for row in rows], config)


def spelled(ids: Tensor) -> list[str]:
    return ["".join(SPELLED[each] for each in row) for row in ids.tolist()]


def digits(numbers: Tensor) -> list[str]:
    return ["".join(str(int(each)) for each in row) for row in numbers.tolist()]


def table(batch: Batch) -> list[list[str]]:
    """Of each row: tokens, targets, φ, ρ, segments, positions (their last digit)."""
    rows = [
        spelled(batch.tokens),
        spelled(batch.targets),
        digits(batch.image + 1),
        digits(batch.evidence_set + 1),
        digits(batch.segments),
        digits(batch.positions % 10),
    ]
    return [list(row) for row in zip(*rows, strict=True)]


def shown(number: int, text: str, *neighbors: str) -> Chunk:
    return pair(number, text, *neighbors)


def test_a_pair() -> None:
    batch = collated(small_config(mode="cross"), [[shown(1, "dog", "cat", "cow")]])
    assert table(batch) == [["Idog.", "dog.-", "11111", "11111", "11111", "01234"]]
    assert spelled(batch.evidence) == ["cat$cow$"]
    assert batch.evidence_mask.all()


def test_an_interleaved_sample_looks_at_the_latest_picture_and_its_neighbors_only() -> None:
    chunks = [shown(1, "dog", "cat"), shown(2, "hen"), shown(3, "a", "x", "y")]
    batch = collated(small_config(mode="cross"), [chunks])
    assert table(batch) == [
        ["Idog.Ihen.Ia.", "dog.-hen.-a.-", "1111122222333", "1111100000222", "1" * 13, "0123456789012"]
    ]
    assert spelled(batch.evidence) == ["cat$", "x$y$"]


def test_a_prompt_is_read_and_not_learned_and_an_open_chunk_has_no_end() -> None:
    config = small_config(mode="cross")
    shot = replace(shown(1, "dog"), prompt="so ")
    query = replace(shown(2, "", "x"), prompt="so ", ends=False)
    assert table(collated(config, [[shot, query]])) == [
        ["Iso dog.Iso ", "---dog.-----", "111111112222", "000000001111", "1" * 12, "012345678901"]
    ]
    silent = replace(shot, learned=False)
    assert spelled(collated(config, [[silent, shot]]).targets) == ["-----------dog.-"]


def test_text_before_the_first_picture_has_no_picture_and_no_neighbors() -> None:
    prompt = [Chunk(text="dog"), Chunk(text="cow"), replace(shown(1, "a", "x"), ends=False)]
    assert table(collated(small_config(mode="cross"), [prompt])) == [
        ["dog.cow.Ia", "og.cow.-a-", "0000000011", "0000000011", "1" * 10, "0123456789"]
    ]


def test_text_alone_reads_its_neighbors_from_its_first_to_its_last_token_between_two_ends_of_text() -> None:
    batch = collated(small_config(mode="cross"), [[Chunk(text="dog", neighbors=["x"])]])
    assert table(batch) == [["$dog$", "dog$-", "00000", "11111", "11111", "01234"]]
    two = collated(small_config(mode="cross"), [[Chunk(text="dog", neighbors=["x"]), Chunk(text="hen")]])
    assert table(two) == [["$dog$hen$", "dog$hen$-", "0" * 9, "1" * 9, "1" * 9, "012345678"]]


def test_text_alone_is_the_same_where_the_model_has_no_vision() -> None:
    config = ReViLMConfig(language_model=language_model_config(), retrieval=retrieval_config("cross"))
    batch = collated(config, [[Chunk(text="dog", neighbors=["x"])]], [[Chunk(text="a")]])
    assert table(batch)[0] == ["$dog$", "dog$-", "00000", "11111", "11111", "01234"]
    assert table(batch)[1] == ["$a$__", "a$---", "00000", "00000", "11100", "01200"]


def test_in_front_of_a_picture_its_neighbors_look_at_no_picture_and_not_at_the_one_before() -> None:
    chunks = [shown(1, "dog", "x", "yz"), shown(2, "hen", "w")]
    assert table(collated(small_config(mode="prefix"), [chunks])) == [
        ["x/yz/Idog.w/Ihen.", "-----dog.---hen.-", "00000111110022222", "0" * 17, "1" * 17, "01234567890123456"]
    ]
    assert spelled(collated(small_config(mode="prefix"), [[Chunk(text="dog", neighbors=["x"])]]).tokens) == ["$x/dog$"]


def test_with_a_loss_on_them_the_neighbors_are_targets_too() -> None:
    batch = collated(small_config(mode="prefix", prefix_loss=0.1), [[shown(1, "dog", "x", "yz"), shown(2, "a", "w")]])
    assert spelled(batch.targets) == ["/yz/-dog.w/-a.-"]
    assert digits(batch.retrieved) == ["111110000011000"]


def test_samples_of_a_packed_row_share_nothing_and_rows_are_padded() -> None:
    first = [[shown(1, "dog", "x")], [Chunk(text="ab", neighbors=["y"])], [Chunk(text="c"), shown(2, "d", "z")]]
    second = [[shown(3, "hen", "w")]]
    assert table(collated(small_config(mode="cross"), first, second)) == [
        ["Idog.$ab$c.Id.", "dog.-ab$-.-d.-", "11111000000222", "11111222200333", "11111222233333", "01234012301234"],
        ["Ihen._________", "hen.----------", "33333000000000", "44444000000000", "11111000000000", "01234000000000"],
    ]


def test_a_tokenizer_with_begin_of_text_has_it_in_front_of_every_sample() -> None:
    row = [[shown(1, "dog", "x")], [Chunk(text="a", neighbors=["y"])]]
    assert table(collated(small_config(mode="cross"), row, begin=BEGIN)) == [
        ["^Idog.^a$", "-dog.-a$-", "011111000", "011111222", "111111222", "012345012"]
    ]
    prefix = collated(small_config(mode="prefix"), row, begin=BEGIN)
    assert spelled(prefix.tokens) == ["^x/Idog.^y/a$"]


def test_a_text_that_is_too_long_is_cut_and_has_no_end() -> None:
    builder = SequenceBuilder(small_config(mode="cross"), Letters(), text_tokens=3)
    long, exact = builder.segment([shown(1, "dogs")]), builder.segment([shown(1, "dog")])
    assert spelled(torch.tensor([long.tokens])) == ["Idog"]
    assert spelled(torch.tensor([exact.tokens])) == ["Idog."]
    assert (long.cut, exact.cut) == (1, 0)


def test_a_neighbor_that_is_too_long_is_cut_and_has_its_end() -> None:
    config = small_config(mode="cross")
    segment = SequenceBuilder(config, Letters()).segment([shown(1, "dog", "x" * 16, "y" * 15)])
    assert spelled(torch.tensor(segment.evidence)) == ["x" * 15 + "$" + "y" * 15 + "$"]
    assert segment.cut == 1


def test_text_that_spells_a_special_token_is_text() -> None:
    batch = collated(small_config(mode="cross"), [[shown(1, "<image>", "<|endoftext|>")]])
    assert spelled(batch.tokens) == ["I?image?."]
    assert digits(batch.image + 1) == ["1" * 9]
    assert spelled(batch.evidence) == ["??endoftext??$"]


def test_pictures_and_videos_come_in_reading_order() -> None:
    videos = [picture(1), picture(2, frames=3), picture(3, frames=2)]
    batch = collated(small_config(), [[Chunk(image=videos[0]), Chunk(image=videos[1])]], [[Chunk(image=videos[2])]])
    assert batch.frames.tolist() == [[0, -1, -1], [1, 2, 3], [4, 5, -1]]
    assert batch.pixels is None
    assert batch.patches is not None
    assert torch.equal(batch.patches, torch.cat(videos))
    pixels = [torch.rand(frames, 3, 16, 16) for frames in (2, 1)]
    batch = collated(small_config(), [[Chunk(image=each) for each in pixels]])
    assert batch.patches is None
    assert batch.pixels is not None
    assert torch.equal(batch.pixels, torch.cat(pixels))


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_can_be_moved(mode: Mode) -> None:
    batch = collated(small_config(mode=mode), [[shown(1, "dog", "x")]])
    moved = batch.to("meta")
    tensors = [moved.tokens, moved.patches, moved.evidence, moved.evidence_routing.place, moved.image_routing.position]
    assert all(tensor is not None and tensor.device.type == "meta" for tensor in tensors)
    assert moved.frames.device.type == "meta"


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 64), max_size=40))
def test_packing_keeps_every_sample_once_and_no_row_overflows(lengths: list[int]) -> None:
    rows = pack(lengths, 64)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    used = [sum(lengths[index] for index in row) for row in rows]
    assert max(used, default=0) <= 64
    assert sum(2 * each <= 64 for each in used) <= 1


def test_packing_takes_the_longest_first_and_the_first_row_with_room() -> None:
    assert pack([2, 5, 3, 4, 6], 10) == [[4, 3], [1, 2, 0]]


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 1 has 65 tokens; a row holds 64"):
        pack([3, 65], 64)


# ---- bad input ----


def test_too_many_neighbors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"chunk 1 has 3 neighbours; .*neighbors is 2"):
        collated(small_config(mode="cross"), [[shown(1, "dog"), shown(2, "dog", "x", "y", "z")]])


@pytest.mark.parametrize(
    "chunks",
    [[shown(1, "dog"), Chunk(text="a", neighbors=["x"])], [Chunk(text="dog"), Chunk(text="a", neighbors=["x"])]],
)
def test_neighbors_of_text_that_has_no_picture_are_refused(chunks: list[Chunk]) -> None:
    with pytest.raises(ValueError, match="chunk 1 has neighbours but no picture"):
        collated(small_config(mode="cross"), [chunks])


@pytest.mark.parametrize(("tokens", "images"), [([IMAGE, 1, IMAGE], 1), ([IMAGE, 1], 2), ([1, 2], 1), ([IMAGE], 0)])
def test_as_many_pictures_as_image_tokens_are_needed(tokens: list[int], images: int) -> None:
    config = small_config()
    segment = SequenceBuilder(config, Letters()).segment([shown(1, "dog")])
    segment = replace(segment, images=[picture(each) for each in range(images)])
    segment.tokens[:] = []
    segment.extend(tokens)
    with pytest.raises(ValueError, match=rf"{tokens.count(IMAGE)} <image> tokens and {images} pictures"):
        collate([[segment]], config)


def test_a_sample_that_was_built_for_another_mode_is_refused() -> None:
    segment = SequenceBuilder(small_config(), Letters()).segment([shown(1, "dog", "x")])
    with pytest.raises(ValueError, match="1 pictures has 0 sets of neighbours; it needs 1"):
        collate([[segment]], small_config(mode="cross"))


def test_a_picture_is_refused_where_the_model_has_no_vision() -> None:
    with pytest.raises(ValueError, match="holds a picture, but .* no vision"):
        collated(ReViLMConfig(language_model=language_model_config()), [[shown(1, "dog")]])


def test_neighbors_longer_than_the_positions_are_refused() -> None:
    long = Segment([29, 1, 29], [False, True, True], [False] * 3, evidence=[[1] * 161])
    with pytest.raises(ValueError, match="161 tokens of neighbours; the language model has 160"):
        collate([[long]], small_config(mode="cross"))


def test_an_empty_slot_is_no_neighbor() -> None:
    filled, gap = ([pair(1, "dog", *captions)] for captions in (["cat"], ["", "cat"]))
    assert torch.equal(*(collated(small_config(mode="cross"), [sample]).evidence for sample in (filled, gap)))


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="without a chunk"):
        collated(small_config(), [[]])


@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(1, 3, 16, 16), (1, 4, 16)], id="pixels and patches"),
        pytest.param([(3, 32, 32)], id="no axis of frames"),
        pytest.param([(32, 32)], id="no channels"),
        pytest.param([(1, 1, 16, 16)], id="grey"),
        pytest.param([(1, 3, 16, 16), (1, 3, 32, 32)], id="two sizes"),
        pytest.param([(1, 4, 16), (1, 9, 16)], id="two numbers of patches"),
        pytest.param([(1, 4, 17)], id="another width"),
        pytest.param([(0, 3, 16, 16)], id="a video without a frame"),
    ],
)
def test_pictures_of_other_shapes_are_refused_with_the_shapes_that_are_allowed(shapes: list[tuple[int, ...]]) -> None:
    chunks = [Chunk(image=torch.zeros(shape), text="dog") for shape in shapes]
    with pytest.raises(ValueError, match=r"\(.*(\d+, )+\d+\).*allowed is \(frames, 3, H, W\).*\(frames, 4, 16\)"):
        collated(small_config(), [chunks])


def test_bytes_and_normalised_pixels_do_not_mix() -> None:
    chunks = [Chunk(image=torch.zeros(1, 3, 16, 16, dtype=dtype)) for dtype in (torch.uint8, torch.float32)]
    with pytest.raises(ValueError, match=r"dtypes \['torch.float32', 'torch.uint8'\]; allowed is one a batch"):
        collated(small_config(), [[chunk] for chunk in chunks])


def test_a_tokenizer_that_does_not_fit_the_table_is_refused_before_a_sample_is_built() -> None:
    for size in (VOCABULARY + 1, VOCABULARY - 1):
        with pytest.raises(ValueError, match="the tokenizer"):
            SequenceBuilder(small_config(), Letters(size=size))
