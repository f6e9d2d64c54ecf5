"""A scene's captions are true, and its picture shows what they say at 64 px."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from demo.scenes import (
    COLOURS,
    COUNTS,
    OBJECTS,
    PHRASINGS,
    PLACES,
    TEXTURES,
    Scene,
    another_view,
    caption,
    random_scene,
    render,
)

NUMBERS = ("one", "two", "three", "four")
SCENE = Scene(object="box", colour="red", count=3, place="night sky", texture="dotted", view=5)


def pixels(scene: Scene, width_px: int = 64, height_px: int = 64) -> NDArray[np.int16]:
    return np.asarray(render(scene, width_px=width_px, height_px=height_px)).astype(np.int16)


def stated(text: str, words: tuple[str, ...]) -> set[str]:
    return {word for word in words if f" {word} " in f" {text.replace(',', '')} "}


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_a_caption_states_the_attributes_of_its_scene_and_no_others(phrasing: str) -> None:
    for scene in (random_scene(Random(i)) for i in range(200)):
        text = caption(scene, phrasing)
        assert stated(text, COLOURS) == {scene.colour}
        assert stated(text, NUMBERS) == {NUMBERS[scene.count - 1]}
        assert stated(text, PLACES) <= {scene.place}
        assert stated(text, TEXTURES) <= {scene.texture}
        assert [name for name in OBJECTS if any(word.startswith(name) for word in text.split())] == [scene.object]


def test_six_phrasings_leave_nothing_out_and_the_others_one_attribute() -> None:
    for scene in (random_scene(Random(i)) for i in range(50)):
        texts = [caption(scene, phrasing) for phrasing in PHRASINGS]
        told = [len(stated(text, PLACES)) + len(stated(text, TEXTURES)) for text in texts]
        assert sorted(told) == [1, 1, 2, 2, 2, 2, 2, 2]


def test_objects_are_counted_in_words() -> None:
    template = "{number} {objects}"
    assert caption(SCENE, template) == "three boxes"
    assert caption(replace(SCENE, count=1), template) == "one box"
    assert caption(replace(SCENE, object="fish"), template) == "three fish"


def test_a_scene_has_the_same_pixels_every_time_and_another_view_has_others() -> None:
    assert np.array_equal(pixels(SCENE), pixels(SCENE))
    other = another_view(SCENE, Random(1))
    assert caption(other, PHRASINGS[0]) == caption(SCENE, PHRASINGS[0])
    assert not np.array_equal(pixels(SCENE), pixels(other))


@pytest.mark.parametrize(
    "others",
    [
        [replace(SCENE, object=value) for value in OBJECTS],
        [replace(SCENE, colour=value) for value in COLOURS],
        [replace(SCENE, count=value) for value in COUNTS],
        [replace(SCENE, place=value) for value in PLACES],
        [replace(SCENE, texture=value) for value in TEXTURES],
    ],
    ids=["object", "colour", "count", "place", "texture"],
)
def test_each_value_of_an_attribute_looks_different_at_64_px(others: list[Scene]) -> None:
    seen = [pixels(scene) for scene in others]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            changed = np.abs(one - other).max(axis=2) > 20
            assert changed.mean() > 0.01


@pytest.mark.parametrize(("width_px", "height_px"), [(320, 240), (120, 160), (96, 96)])
def test_the_objects_lie_in_the_central_square(width_px: int, height_px: int) -> None:
    side = min(width_px, height_px)
    left, top = (width_px - side) // 2, (height_px - side) // 2
    for count in COUNTS:
        scene = replace(SCENE, count=count, texture="plain")
        changed = np.abs(
            pixels(scene, width_px, height_px) - pixels(replace(scene, colour="blue"), width_px, height_px)
        ).max(axis=2)
        inside = changed[top : top + side, left : left + side]
        assert np.count_nonzero(inside) == np.count_nonzero(changed) > 0


def test_a_picture_is_rgb_of_the_size_that_was_asked_for() -> None:
    picture = render(SCENE, width_px=130, height_px=97)
    assert isinstance(picture, Image.Image)
    assert (picture.mode, picture.size) == ("RGB", (130, 97))


def test_there_are_thousands_of_scenes() -> None:
    assert len(OBJECTS) * len(COLOURS) * len(COUNTS) * len(PLACES) * len(TEXTURES) > 10_000
    seen = {replace(random_scene(rng), view=0) for rng in [Random(3)] for _ in range(2000)}
    assert len(seen) > 1700
