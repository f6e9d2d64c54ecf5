"""The drawn sources differ as they say, and no kind of scene that is asked about stands in either."""

import json
from pathlib import Path

from demo.recipe import WorldRecipe
from demo.scenes import OBJECTS
from demo.worlds import (
    CAPTIONS,
    NEW_OBJECTS,
    OTHER_PHRASINGS,
    OWN_OBJECTS,
    OWN_PHRASINGS,
    PARTS,
    DrawWorld,
    kind_of,
    make_world,
)
from pipeline.commits import Whole
from pipeline.executor import LocalExecutor
from pipeline.run import Run
from stages.ingest import IngestRecipe, check_sources

RECIPE = WorldRecipe(own=400, other=300, test=80)
WORLD = make_world(RECIPE)


def test_no_kind_of_scene_that_is_asked_about_stands_in_a_source() -> None:
    asked = {kind_of(shown.scene) for shown in WORLD["test"]}
    assert len(asked) == 80, "every kind is asked about once"
    assert asked.isdisjoint(kind_of(shown.scene) for part in ("own", "other") for shown in WORLD[part])


def test_no_caption_of_a_source_is_a_reference() -> None:
    """A reference tells a whole kind of scene, and so does every caption."""
    references = {reference for shown in WORLD["test"] for reference in shown.captions}
    assert references.isdisjoint(text for part in ("own", "other") for shown in WORLD[part] for text in shown.captions)


def test_every_picture_that_is_asked_about_has_five_references_in_owns_words() -> None:
    for shown in WORLD["test"]:
        assert len(set(shown.captions)) == len(OWN_PHRASINGS) == 5


def test_other_has_other_phrasings_and_every_object_that_own_lacks() -> None:
    own, other = ({shown.scene.object for shown in WORLD[part]} for part in ("own", "other"))
    assert own == set(OWN_OBJECTS)
    assert other - own == set(NEW_OBJECTS)
    assert own & other, "some it has in common"
    assert own | other == set(OBJECTS)
    assert set(OWN_PHRASINGS).isdisjoint(OTHER_PHRASINGS)


def test_half_of_the_pictures_show_objects_of_own_and_half_show_new_ones() -> None:
    for domain, objects in (("in", OWN_OBJECTS), ("out", NEW_OBJECTS)):
        of_domain = [shown for shown in WORLD["test"] if shown.domain == domain]
        assert len(of_domain) == 40
        assert {shown.scene.object for shown in of_domain} == set(objects)


def test_the_same_recipe_draws_the_same_and_another_seed_of_other_changes_other_alone() -> None:
    assert make_world(RECIPE) == WORLD
    changed = make_world(RECIPE.model_copy(update={"other_seed": 7}))
    assert changed["other"] != WORLD["other"]
    assert (changed["own"], changed["test"]) == (WORLD["own"], WORLD["test"])
    assert make_world(RECIPE.model_copy(update={"seed": 7}))["own"] != WORLD["own"]


def test_the_lists_are_in_cocos_form_beside_their_pictures(tmp_path: Path) -> None:
    recipe = WorldRecipe(own=3, other=2, test=2, side_px=32)
    assert Run(str(tmp_path), [DrawWorld(recipe)]).execute(LocalExecutor()).exit_code == 0
    for part in PARTS:
        captions = Whole.open(str(tmp_path), "world").read(part).path(CAPTIONS)
        source = {"name": part, "preset": "coco", "files": [str(captions)], "folder": str(captions.parent)}
        assert check_sources(IngestRecipe.model_validate({"sources": [source]})) == []
        document = json.loads(captions.read_text())
        assert all((captions.parent / image["file_name"]).is_file() for image in document["images"])
        shown = make_world(recipe)[part]
        assert [image["domain"] for image in document["images"]] == [each.domain for each in shown]
        told = [(row["image_id"], row["caption"]) for row in document["annotations"]]
        assert told == [(number, text) for number, each in enumerate(shown) for text in each.captions]
