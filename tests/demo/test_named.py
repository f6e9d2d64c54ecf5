"""In the world `named` only another caption of the group tells a name, and no caption that is asked for is told."""

import pytest

from demo.named import NAMES, NUMBERS, PHRASINGS, NamedPair, make_world, renamed
from demo.scenes import COLOURS
from model.tokenizer import Tokenizer
from stages.filter import normalised

SMALL = {"training_groups": 40, "test_groups": 20, "captions": 10, "views": 2, "asked": 5}
WORLD = make_world(1, **SMALL)


def identity(pair: NamedPair) -> tuple[str, str, str]:
    return pair.scene.object, pair.scene.texture, pair.scene.place


def test_the_default_world_has_8000_pairs_to_learn_from() -> None:
    world = make_world(1)
    assert len(world.training) >= 8000
    assert len({pair.id for pair in [*world.training, *world.shown, *world.asked]}) == 10752 + 2688 + 512


def test_no_caption_that_is_asked_for_stands_anywhere_else() -> None:
    told = {pair.caption for pair in [*WORLD.training, *WORLD.shown]}
    assert told.isdisjoint(pair.caption for pair in WORLD.asked)


def test_test_groups_look_like_no_training_group() -> None:
    learned = {identity(pair) for pair in WORLD.training}
    assert learned.isdisjoint(identity(pair) for pair in [*WORLD.shown, *WORLD.asked])
    assert {identity(pair) for pair in WORLD.shown} == {identity(pair) for pair in WORLD.asked}


def test_a_group_has_one_identity_and_one_name_and_varies_in_number_and_colour() -> None:
    for number in range(60):
        group = [pair for pair in [*WORLD.training, *WORLD.shown] if pair.group.number == number]
        assert len({(*identity(pair), pair.group.name) for pair in group}) == 1
        assert len({pair.caption for pair in group}) == 10
        assert len({pair.scene.count for pair in group}) > 1
        assert len({pair.scene.colour for pair in group}) > 2


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_a_caption_tells_name_number_and_colour_and_no_others(phrasing: str) -> None:
    for pair in WORLD.asked:
        text = NamedPair(pair.id, pair.group, pair.scene, phrasing).caption
        words = set(normalised(text).split())
        assert words & set(NAMES) == {pair.group.name}
        assert words & set(NUMBERS) == {NUMBERS[pair.scene.count - 1]}
        assert words & set(COLOURS) == {pair.scene.colour}


def test_every_word_that_is_asked_for_is_one_token() -> None:
    tokenizer = Tokenizer.train(pair.caption for pair in make_world(2).training)
    assert len(NAMES) == len(set(NAMES)) == 64
    for word in (*NAMES, *NUMBERS, *COLOURS):
        assert len(tokenizer.encode(f" {word}")) == 1
    for phrasing in PHRASINGS:
        assert not phrasing.startswith("{"), "a word at the start has no space before it, and is another token"


def test_the_seed_decides_the_world() -> None:
    assert make_world(1, **SMALL) == WORLD
    assert make_world(2, **SMALL) != WORLD


def test_names_are_drawn_without_regard_to_what_is_seen() -> None:
    names = {identity(pair): pair.group.name for pair in make_world(1).training}
    again = {identity(pair): pair.group.name for pair in make_world(2).training}
    both = names.keys() & again.keys()
    assert sum(names[each] == again[each] for each in both) / len(both) < 0.06


def test_a_renamed_group_has_another_name() -> None:
    names = renamed(WORLD.asked, seed=1)
    assert len(names) == 20
    for pair in WORLD.asked:
        assert names[pair.group] in NAMES
        assert names[pair.group] != pair.group.name
        told = pair.called(names[pair.group])
        assert told == pair.caption.replace(f" {pair.group.name}", f" {names[pair.group]}")


def test_more_groups_than_identities_are_refused() -> None:
    with pytest.raises(ValueError, match="300 \\+ 30 groups; there are 320 identities"):
        make_world(1, training_groups=300, test_groups=30)
