"""The page is sound HTML that shows what is there, and what strangers wrote stays text."""

import base64
import io
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipeline.reasons import Reason
from stages.filter import FilterRecipe, Thresholds
from stages.report import write_report
from stages.report.page import page
from stages.report.root import RunRoot
from tests.stages.filter.making import crawl, filtered, in_shards
from tests.stages.report.roots import HOSTILE, make_pairs, take_back

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Raises AssertionError where an element is closed that is not the open one."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [value for name, value in self.attributes if name == "src"]
        assert all(source.startswith("data:image/") for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def read(root: str) -> Reader:
    return Reader(Path(write_report(root)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(root: str) -> Reader:
    return Reader(page(RunRoot(root)))


def test_hostile_captions_and_urls_stay_text(finished: Reader) -> None:
    assert HOSTILE in finished.text
    assert any(text.startswith('https://x.example/" onload') for text in finished.text)
    assert not finished.elements.keys() & {"script", "iframe", "link", "object", "form", "a"}
    assert finished.elements["style"] == 1
    assert not [name for name, _ in finished.attributes if name.startswith("on")]


def test_nothing_is_fetched_to_show_the_page(finished: Reader) -> None:
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in finished.attributes
    assert not [value for name, value in finished.attributes if name in ("href", "srcset", "action")]
    assert len(finished.pictures) > 12


def test_a_finished_run_shows_every_part(finished: Reader) -> None:
    text = " ".join(finished.text)
    for told in ("From the list to the index", "low_clip_score", "image to text recall@5", "nprobe", "does not cover"):
        assert told in text
    assert text.index("recall@5") < text.index("recall@10")


def test_twelve_kept_pairs_and_four_of_a_reason_are_shown_small(tmp_path: Path) -> None:
    recipe = FilterRecipe.model_validate({"defaults": {"min_clip_score": 0.5, "text": None, "max_aspect": None}})
    reader = read(filtered(tmp_path, recipe, in_shards(make_pairs(400), 100)))
    cards = [picture for picture in reader.pictures if picture.format == "JPEG"]
    sheets = 2 * 3 * 12  # of two sources
    assert len(cards) == sheets + 12 + 2 * 4  # low_clip_score and small_image
    assert max(max(picture.size) for picture in cards) <= 200


def test_the_same_root_makes_the_same_page(tmp_path: Path) -> None:
    root = filtered(tmp_path, FilterRecipe(), in_shards(make_pairs(), 20))
    pages = [Path(write_report(root)).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]


def test_a_pair_that_only_the_second_crawl_fetched_is_shown(tmp_path: Path) -> None:
    pairs = [replace(pair, reason=None) for pair in make_pairs(20)]
    failed = [replace(pair, reason=Reason.DNS) for pair in pairs]
    roots = tuple(crawl(tmp_path / name, [made]) for name, made in (("first", failed), ("second", pairs)))
    both = filtered(tmp_path / "both", FilterRecipe(inputs=roots, defaults=Thresholds(min_clip_score=None)))
    Path(both, "recipe.yaml").write_text(f"filter: {{inputs: [{', '.join(roots)}]}}")
    assert [picture.format for picture in read(both).pictures].count("JPEG") > 12


def test_a_running_root_has_a_page_too(tmp_path: Path) -> None:
    root = crawl(tmp_path, in_shards(make_pairs(), 20))
    take_back(root, "embed", "000002")
    reader = read(root)
    text = " ".join(reader.text)
    assert "embed is not whole" in text
    assert "Nothing has been judged yet" in text
    assert "What the index finds" not in text


def test_a_run_of_which_only_rows_were_read_has_a_page(tmp_path: Path) -> None:
    root = crawl(tmp_path, in_shards(make_pairs(), 20))
    for number in range(3):
        take_back(root, "embed", f"{number:06d}")
    assert "How well captions fit" not in " ".join(read(root).text)
