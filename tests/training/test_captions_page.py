"""The page of sample captions: what it shows, and that a caption can do no harm in it."""

import base64
import io
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from torch import Tensor

from model.evaluation.bootstrap import Figure
from model.sequence import Chunk
from model.training.captions import Captioned
from model.training.captions_page import captions_page
from model.training.grounding import Grounding
from model.training.samples import Sample

RED, BLUE = (200, 20, 20), (20, 20, 200)


class Seen(HTMLParser):
    """The text of every row of tables, the pictures, and all tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.pictures: list[Image.Image] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append("")
        if tag == "img":
            kind, _, data = (dict(attributes)["src"] or "").partition(",")
            assert kind == "data:image/jpeg;base64"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1] += f" {data}"


def plain(colour: tuple[int, int, int], height: int = 300, width: int = 600) -> Tensor:
    """(1, 3, H, W) uint8."""
    return torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, height, width)


def sample(name: str, *images: Tensor) -> Sample:
    return Sample(name, tuple(Chunk(image=image, text="a dog") for image in images))


def grounding(*names: str) -> Grounding:
    captions = tuple(
        Captioned(
            id=name,
            reference="a dog & <b>its</b> ball",
            generated="<script>alert(1)</script>",
            neighbors=('two "dogs"', "<img src=x>"),
            loss=1.2345,
        )
        for name in names
    )
    return Grounding(loss=Figure(1.5, 1.25, 1.75), cider_d=Figure(0.8, 0.6, 1.0), captions=captions)


def colour_of(picture: Image.Image) -> tuple[int, ...]:
    found = picture.getpixel((5, 5))
    assert isinstance(found, tuple)
    return found


def test_a_row_holds_the_picture_the_captions_the_neighbours_and_the_loss() -> None:
    seen = Seen(captions_page(1200, grounding("one"), [sample("one", plain(RED))]))
    row = seen.rows[-1]
    for told in ("one", "a dog & <b>its</b> ball", "<script>alert(1)</script>", 'two "dogs"', "<img src=x>", "1.234"):
        assert told in row
    assert seen.pictures[0].size == (192, 96)
    assert colour_of(seen.pictures[0]) == pytest.approx(RED, abs=4)


def test_no_caption_becomes_a_tag_of_the_page() -> None:
    page = captions_page(1, grounding("<i>"), [sample("<i>", plain(RED))])
    assert not Seen(page).tags & {"script", "b", "i", "link"}
    assert page.count("<img") == 1
    assert "default-src 'none'" in page


def test_the_head_tells_the_update_and_the_meters_with_their_intervals() -> None:
    seen = Seen(captions_page(1200, grounding("one"), [sample("one", plain(RED))]))
    assert "Captions at update 1,200" in captions_page(1200, grounding("one"), [sample("one")])
    assert any("loss" in row and "1.5" in row and "1.25 … 1.75" in row for row in seen.rows)
    assert not any("image_shuffle" in row for row in seen.rows)


def test_of_five_pairs_the_query_is_shown() -> None:
    seen = Seen(captions_page(1, grounding("one"), [sample("one", plain(BLUE), plain(RED))]))
    assert len(seen.pictures) == 1
    assert colour_of(seen.pictures[0]) == pytest.approx(RED, abs=4)


def test_samples_of_patch_tokens_are_shown_by_the_pictures_given_apart() -> None:
    patches = torch.zeros(1, 4, 16, dtype=torch.float16)
    samples = [sample("one", patches), sample("two", patches)]
    seen = Seen(captions_page(1, grounding("one", "two"), samples, pictures={"two": plain(BLUE)}))
    assert "no picture at hand" in seen.rows[-2]
    assert "no picture at hand" not in seen.rows[-1]
    assert colour_of(seen.pictures[0]) == pytest.approx(BLUE, abs=4)


def test_a_long_list_is_shown_in_part() -> None:
    names = [str(number) for number in range(9)]
    page = captions_page(1, grounding(*names), [sample(name, plain(RED, 8, 8)) for name in names], most=4)
    assert len(Seen(page).pictures) == 4
