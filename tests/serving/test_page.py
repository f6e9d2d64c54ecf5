"""The page in a real browser: a person gives it a picture or a text and sees what the service says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.browser import Page, opened
from tests.serving.conftest import NEIGHBORS, SCENES, Made
from tests.serving.serving import Here, asked, served

CAPTIONS = "[...document.querySelectorAll('#hits p')].map((each) => each.textContent)"
ALL_SHOWN = "[...document.querySelectorAll('#hits img')].every((each) => each.complete && each.naturalWidth > 0)"


@pytest.fixture(scope="module")
def address(made: Made) -> Iterator[str]:
    here = Here(made.checkpoint, made.index)
    with served(here.ask, here.about) as found:
        yield found


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(f"{address}/", tmp_path_factory.mktemp("browser")) as page:
        page.until("document.querySelector('#neighbors').value !== ''")
        yield page


@pytest.mark.parametrize("how", ["choose", "drop"])
def test_a_picture_is_captioned_beside_its_neighbours(how: str, browser: Page, address: str, made: Made) -> None:
    picture = made.pictures[3 if how == "choose" else 4]
    due = asked(f"{address}/caption", picture.read_bytes()).json
    if how == "choose":
        browser.choose("#file", picture)
    else:
        browser.drop("#drop", picture)
    captions = [hit["caption"] for hit in due["neighbors"]]
    assert len(captions) == NEIGHBORS
    browser.until(f"JSON.stringify({CAPTIONS}) === JSON.stringify({json.dumps(captions)})")
    assert browser.value("document.querySelector('#asked').naturalWidth") == 320
    assert browser.value("document.querySelector('#caption').textContent") in (
        due["caption"],
        "(the model said nothing)",
    )
    browser.until(ALL_SHOWN)
    shown = browser.value("document.querySelector('.told').innerText")
    assert all(f"cosine {hit['similarity']:.3f}" in shown and hit["pair_id"] in shown for hit in due["neighbors"])
    assert "removed, as the same picture: 1" in shown
    assert "generate" in shown
    assert browser.complaints == []


def test_a_text_is_searched_for_with_the_keyboard_alone(browser: Page, address: str) -> None:
    browser.value("document.querySelector('#text').focus()")
    browser.call("Input.insertText", text="two red stars")
    browser.press("Enter")
    browser.until(f"{CAPTIONS}.length === 12")
    due = asked(f"{address}/search?k=12&text=two+red+stars").json["hits"]
    assert browser.value(CAPTIONS) == [hit["caption"] for hit in due]
    assert browser.value("document.querySelector('#caption').textContent") == ""
    assert browser.complaints == []


def test_every_field_has_a_label_and_can_be_reached(browser: Page) -> None:
    fields = "[...document.querySelectorAll('input')]"
    assert browser.value(f"{fields}.every((each) => each.labels.length === 1)") is True
    browser.value("document.activeElement.blur()")
    reached = set()
    for _ in range(12):
        browser.press("Tab")
        reached.add(browser.value("document.activeElement.id || document.activeElement.tagName"))
    assert {"file", "beams", "max_new_tokens", "neighbors", "text", "BUTTON"} <= reached


def test_what_went_wrong_is_said_in_words(browser: Page, tmp_path: Path) -> None:
    page = tmp_path / "page.jpg"
    page.write_text("<html>")
    browser.choose("#file", page)
    said = browser.until("document.querySelector('[role=alert]').textContent")
    assert said.startswith("not_an_image: ")
    assert browser.value(f"{CAPTIONS}.length") == 0
    browser.complaints.clear()  # the console notes the status


def test_a_picture_can_be_asked_about_again_in_another_way(browser: Page, made: Made) -> None:
    browser.choose("#file", made.pictures[5])
    browser.until(f"{CAPTIONS}.length === {NEIGHBORS}")
    browser.value("document.querySelector('#neighbors').value = 1")
    browser.value("document.querySelector('#again').click()")
    browser.until(f"{CAPTIONS}.length === 1")
    browser.value("document.querySelector('[value=search]').click()")
    browser.value("document.querySelector('#again').click()")
    browser.until(f"{CAPTIONS}.length === 12")
    assert browser.complaints == []


def test_the_page_of_an_index_counts_its_pairs(browser: Page) -> None:
    assert f"with {SCENES} pairs of " in browser.value("document.querySelector('#about').textContent")
