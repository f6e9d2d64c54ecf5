"""Two sources of captioned pictures that differ, and held-out pictures with five references each.

own     scenes of OWN_OBJECTS in OWN_PHRASINGS: what a model is trained on
other   a source drawn apart from it: other phrasings, and all of NEW_OBJECTS, which own lacks, beside some that it has
test    scenes of kinds that neither source shows, half with objects of own (domain `in`), half with NEW_OBJECTS
        (domain `out`); the references are the five of OWN_PHRASINGS, as those who captioned own would have said it

A kind of scene is all that a caption may tell: object, colour, count, place and texture.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from random import Random
from typing import Literal

from demo.pictures import Picture, encode
from demo.recipe import WorldRecipe
from demo.scenes import COLOURS, COUNTS, OBJECTS, PHRASINGS, PLACES, TEXTURES, Scene, caption, random_scene
from pipeline.recipe import Json
from pipeline.stage import Counts, Plan, Shard, Stage
from pipeline.writer import ShardWriter, Task

Part = Literal["own", "other", "test"]
PARTS: tuple[Part, ...] = ("own", "other", "test")
NEW_OBJECTS = ("fish", "moon", "arrow", "cross")
OWN_OBJECTS = tuple(name for name in OBJECTS if name not in NEW_OBJECTS)
OTHER_OBJECTS = (*NEW_OBJECTS, "ball", "house")
OWN_PHRASINGS = PHRASINGS[:5]
OTHER_PHRASINGS = (
    PHRASINGS[5],
    "look at the {objects} {where}: {number}, {texture} and {colour}",
    "some {texture} {objects} in {colour}, {number} of them, {where}",
    "this shows {place} and {number} {objects} that are {colour} and {texture}",
    "there is {place}, and in front of it {colour} {texture} {objects}, {number} in number",
)
CAPTIONS = "captions.json"
Kind = tuple[str, str, int, str, str]  # the fields of Scene but its view


@dataclass(frozen=True)
class Shown:
    """A picture and what is said of it."""

    scene: Scene
    captions: tuple[str, ...]
    domain: Literal["in", "out"]  # whether own shows such an object


def make_world(recipe: WorldRecipe) -> dict[Part, tuple[Shown, ...]]:
    """The same for the same recipe."""
    held_out = [*_drawn_kinds(recipe, OWN_OBJECTS), *_drawn_kinds(recipe, NEW_OBJECTS)]
    views = Random(f"test {recipe.seed}")
    test = tuple(_shown(Scene(*kind, views.getrandbits(48)), OWN_PHRASINGS) for kind in held_out)
    own = tuple(_drawn("own", recipe.own, OWN_OBJECTS, OWN_PHRASINGS, set(held_out), recipe.seed))
    other = tuple(_drawn("other", recipe.other, OTHER_OBJECTS, OTHER_PHRASINGS, set(held_out), recipe.other_seed))
    return {"own": own, "other": other, "test": test}


def _drawn_kinds(recipe: WorldRecipe, objects: Sequence[str]) -> list[Kind]:
    """Half of the test's, no two the same."""
    kinds = list(product(objects, COLOURS, COUNTS, PLACES, TEXTURES))
    return Random(f"held out {recipe.seed} {objects[0]}").sample(kinds, recipe.test // 2)


def _drawn(
    part: Part, pictures: int, objects: Sequence[str], phrasings: Sequence[str], held_out: set[Kind], seed: int
) -> Iterator[Shown]:
    """Every picture with one caption."""
    rng, drawn = Random(f"{part} {seed}"), 0
    while drawn < pictures:
        scene = replace(random_scene(rng), object=rng.choice(objects))
        if kind_of(scene) not in held_out:
            drawn += 1
            yield _shown(scene, [rng.choice(phrasings)])


def kind_of(scene: Scene) -> Kind:
    return scene.object, scene.colour, scene.count, scene.place, scene.texture


def _shown(scene: Scene, phrasings: Sequence[str]) -> Shown:
    domain: Literal["in", "out"] = "in" if scene.object in OWN_OBJECTS else "out"
    return Shown(scene, tuple(caption(scene, phrasing) for phrasing in phrasings), domain)


@dataclass(frozen=True)
class DrawWorld(Stage[None]):
    """The lists in COCO's form with their pictures, a shard each.

    Writes  captions (COCO's JSON, every image with its domain) and the pictures it names, in one folder
    """

    recipe: WorldRecipe
    name, version = "world", 1

    def settings(self) -> Mapping[str, Json]:
        return self.recipe.model_dump(mode="json")

    def plan(self, whole: object) -> Plan:
        return Plan([Shard(part) for part in PARTS])

    def process(self, task: Task, out: ShardWriter, state: None) -> Counts:
        shown = next(listed for part, listed in make_world(self.recipe).items() if part == task.id)
        out.file(CAPTIONS, f"{{stem}}/{CAPTIONS}").write_text(json.dumps(coco_form(shown)), encoding="utf-8")
        for number, each in enumerate(shown):
            picture = Picture(each.scene, self.recipe.side_px, self.recipe.side_px)
            out.file(file_name(number), f"{{stem}}/{file_name(number)}").write_bytes(encode(picture))
        return Counts(rows_in=0, rows_out=0)


def coco_form(shown: Sequence[Shown]) -> dict[str, Json]:
    images = [
        {"id": number, "file_name": file_name(number), "domain": each.domain, "scene": asdict(each.scene)}
        for number, each in enumerate(shown)
    ]
    told = [(number, text) for number, each in enumerate(shown) for text in each.captions]
    annotations = [{"id": row, "image_id": number, "caption": text} for row, (number, text) in enumerate(told)]
    return {"images": images, "annotations": annotations}


def file_name(number: int) -> str:
    return f"{number:06d}.jpg"
