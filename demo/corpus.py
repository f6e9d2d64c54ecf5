"""Two url lists of drawn scenes, with what a crawler meets on the web mixed in, and the truth about every row.

    folder/cc3m.tsv       caption <tab> url
    folder/cc12m.tsv      url <tab> caption
    folder/truth.parquet  TRUTH, one row a line of the lists

Everything is decided by the seed, the number of urls and the base url. What the urls answer is in `DemoCorpus.answers`,
for demo.server.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from demo.pictures import Picture
from demo.scenes import PHRASINGS, Scene, another_view, caption, random_scene
from demo.server import Answer, Delivery
from pipeline.reasons import Reason

SOURCES = ("cc3m", "cc12m")
CLOSED_ADDRESS = "127.0.0.1:1"
"""Nobody listens there. A crawler that guards its addresses has to be told that it may try."""

TRUTH = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # of SOURCES
        pa.field("row", pa.int64(), nullable=False),  # line of the source's list, from 0
        pa.field("url", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # name of one of KINDS
        pa.field("caption", pa.string(), nullable=False),  # as listed; bytes that are not UTF-8 replaced
        pa.field("reason", pa.string()),  # pipeline.reasons.Reason; null: kept, or up to the score
        pa.field("mismatched", pa.bool_(), nullable=False),  # the caption tells of another object in another colour
    ]
)


@dataclass(frozen=True)
class Kind:
    """What a url leads to. The defaults are those of a good pair."""

    name: str
    per_3000: int = 0
    reason: Reason | None = None
    captions: tuple[str, ...] = ("{caption}",)
    url: str = "{base_url}{path}.jpg"
    encoding: str = "jpeg"  # of demo.pictures.ENCODINGS
    size_px: tuple[int, int] | None = None  # width, height; None: as usual
    answer: Answer = Answer()  # less its body
    location: str | None = None  # of a redirect

    def num_rows(self, urls: int) -> int:
        """Its part of the mix, at least 1. Of slow answers a large corpus has no more: each costs its deadline."""
        scale = min(1.0, urls / 3000) if self.answer.delivery in (Delivery.DRIP, Delivery.ENDLESS) else urls / 3000
        return max(1, round(self.per_3000 * scale))


GZIPPED = Answer(headers=(("Content-Encoding", "gzip"),))

GOOD = Kind("good")  # whatever the others leave
SHARED_CAPTION = Kind("shared_caption", 120)  # the words of an earlier pair, truly, under another picture
DUPLICATE = Kind("duplicate", 150)  # the bytes of an earlier pair under another url
MISMATCHED = Kind("mismatched", 180)

KINDS = (
    GOOD,
    SHARED_CAPTION,
    DUPLICATE,
    MISMATCHED,
    # good pictures that a careless reader loses
    Kind("webp_as_png", 40, url="{base_url}{path}.png", encoding="webp"),
    Kind("cmyk_jpeg", 20, encoding="cmyk_jpeg"),
    Kind("gray_jpeg", 30, encoding="gray_jpeg"),
    Kind("turned_jpeg", 30, encoding="turned_jpeg"),
    Kind("transparent_png", 30, url="{base_url}{path}.png", encoding="transparent_png"),
    Kind("deep_png", 20, url="{base_url}{path}.png", encoding="deep_png"),
    Kind("moved_permanently", 20, answer=Answer(status=301), location="/moved{path}"),
    Kind("moved_for_now", 20, answer=Answer(status=302), location="/moved{path}"),
    # good pictures with a caption that tells nothing
    Kind("short_caption", 15, Reason.CAPTION_TOO_SHORT, captions=("ok", "a", "hm")),
    Kind("url_caption", 15, Reason.CAPTION_URL, captions=("https://shop.example/items/red-star", "www.shop.example")),
    Kind("file_name_caption", 15, Reason.CAPTION_FILE_NAME, captions=("red_star_final.jpg", "DSC_0412.JPG")),
    Kind("html_caption", 15, Reason.CAPTION_HTML, captions=('<a href="/shop">{caption}</a>', "{caption}<br/><br/>")),
    Kind("digits_caption", 15, Reason.CAPTION_DIGITS, captions=("no 4711 0815 2319 7781 6654", "20190412 113355 ab")),
    Kind("boilerplate_caption", 15, Reason.CAPTION_BOILERPLATE, captions=("image not available",)),
    Kind("repeated_caption", 15, Reason.CAPTION_REPETITION, captions=("aaaaaaaaaaaaaaaaaaaa", "star " * 12 + "star")),
    Kind("no_letters_caption", 15, Reason.CAPTION_NO_LETTERS, captions=("... --- ...", "★ ★ ★ ★ !!!")),
    # nothing there
    Kind("not_found", 60, Reason.HTTP_CLIENT_ERROR, encoding="html", answer=Answer(status=404)),
    Kind("gone", 15, Reason.HTTP_CLIENT_ERROR, encoding="html", answer=Answer(status=410)),
    Kind("server_error", 20, Reason.HTTP_SERVER_ERROR, encoding="html", answer=Answer(status=500)),
    Kind("unavailable", 15, Reason.HTTP_SERVER_ERROR, encoding="html", answer=Answer(status=503)),
    Kind("busy", 15, Reason.HTTP_BUSY, encoding="html", answer=Answer(status=429, headers=(("Retry-After", "0"),))),
    Kind("no_content", 6, Reason.HTTP_UNEXPECTED, encoding="nothing", answer=Answer(status=204)),
    Kind("empty_body", 8, Reason.EMPTY_BODY, encoding="nothing"),
    Kind("refused", 15, Reason.CONNECTION, url=f"http://{CLOSED_ADDRESS}{{path}}.jpg"),
    Kind("no_such_host", 15, Reason.DNS, url="http://pictures.invalid{path}.jpg"),
    # not to be had honestly
    Kind("private_address", 5, Reason.ADDRESS_REFUSED, url="http://127.0.0.1:2{path}.jpg"),
    Kind("to_metadata", 4, Reason.ADDRESS_REFUSED, answer=Answer(status=302), location="http://169.254.169.254/"),
    Kind("to_file", 4, Reason.BAD_REDIRECT, answer=Answer(status=302), location="file:///etc/passwd"),
    Kind("redirect_loop", 6, Reason.TOO_MANY_REDIRECTS, answer=Answer(status=302), location="{path}"),
    Kind("opted_out", 20, Reason.OPTED_OUT, answer=Answer(headers=(("X-Robots-Tag", "noai"),))),
    # bodies that hurt
    Kind("drip", 6, Reason.DEADLINE, answer=Answer(delivery=Delivery.DRIP)),
    Kind("endless", 4, Reason.TOO_MANY_BYTES, answer=Answer(delivery=Delivery.ENDLESS)),
    Kind("cut", 10, Reason.CONNECTION, answer=Answer(delivery=Delivery.CUT)),
    Kind("understated_length", 8, Reason.CORRUPT_IMAGE, answer=Answer(delivery=Delivery.UNDERSTATED)),
    Kind("gzip_bomb", 4, Reason.ENCODED_BODY, encoding="gzip_bomb", answer=GZIPPED),
    Kind("pixel_bomb", 3, Reason.TOO_MANY_PIXELS, url="{base_url}{path}.png", encoding="pixel_bomb"),
    # bytes that are no picture, or not one to keep
    Kind("html_as_jpg", 30, Reason.NOT_AN_IMAGE, encoding="html"),
    Kind("truncated_jpeg", 30, Reason.CORRUPT_IMAGE, encoding="truncated_jpeg"),
    Kind("animated_gif", 15, Reason.ANIMATED, url="{base_url}{path}.gif", encoding="animated_gif"),
    Kind("svg", 10, Reason.UNSUPPORTED_FORMAT, url="{base_url}{path}.svg", encoding="svg"),
    Kind("banner", 15, Reason.EXTREME_ASPECT, size_px=(1600, 160)),
    Kind("tiny", 20, Reason.SMALL_IMAGE, size_px=(20, 20)),
    # rows that the list itself spoils
    Kind("bad_scheme", 4, Reason.BAD_URL, url="htp:/x"),
    Kind("not_a_url", 4, Reason.BAD_URL, url="not a url"),
    Kind("empty_url", 4, Reason.BAD_URL, url=""),
    Kind("not_utf8", 6, Reason.NOT_UTF8, captions=("{caption}, caf\udce9",)),  # byte E9: é in Latin-1
    Kind("empty_caption", 8, Reason.NULL_CAPTION, captions=("",)),
    Kind("missing_column", 6, Reason.MALFORMED_ROW),
    Kind("huge_caption", 1, Reason.OVERSIZED_CAPTION, captions=("{caption}, " * 8000,)),
)
FEWEST_URLS = 3 * len(KINDS)


@dataclass(frozen=True)
class Row:
    """One line of a list, and what its url answers."""

    source: str
    row: int
    kind: Kind
    caption: str  # as listed; a byte that is not UTF-8 is a lone surrogate
    picture: Picture
    path: str  # of the url, without the suffix
    url: str

    def line(self) -> bytes:
        columns = (self.caption, self.url) if self.source == "cc3m" else (self.url, self.caption)
        text = columns[0] if self.kind.name == "missing_column" else "\t".join(columns)
        return text.encode(errors="surrogateescape") + b"\n"

    def truth(self) -> dict[str, object]:
        return {
            "source": self.source,
            "row": self.row,
            "url": self.url,
            "kind": self.kind.name,
            "caption": self.caption.encode(errors="surrogateescape").decode(errors="replace"),
            "reason": self.kind.reason,
            "mismatched": self.kind is MISMATCHED,
        }

    def answers(self, base_url: str) -> dict[str, Answer]:
        """By path, both steps of a redirect that leads to a picture."""
        path = self.url.removeprefix(base_url)
        if not path.startswith("/"):
            return {}
        shown = replace(self.kind.answer, body=self.picture)
        if self.kind.location is None:
            return {path: shown}
        location = self.kind.location.format(path=path)
        redirect = replace(self.kind.answer, headers=(("Location", location),))
        leads_to_picture = location.startswith("/") and location != path
        return {path: redirect, location: Answer(self.picture)} if leads_to_picture else {path: redirect}


@dataclass(frozen=True)
class DemoCorpus:
    folder: Path
    rows: tuple[Row, ...]  # source by source, in the order of the lists
    base_url: str

    @property
    def lists(self) -> dict[str, Path]:
        """The url list of each source."""
        return {source: self.folder / f"{source}.tsv" for source in SOURCES}

    @property
    def truth(self) -> Path:
        return self.folder / "truth.parquet"

    @property
    def allowed_addresses(self) -> tuple[str, str]:
        """What of loopback a crawler has to be allowed, host:port: the server, and where nobody listens."""
        return self.base_url.removeprefix("http://"), CLOSED_ADDRESS

    @cached_property
    def answers(self) -> Mapping[str, Answer]:
        """What the server says, by path."""
        return {path: answer for row in self.rows for path, answer in row.answers(self.base_url).items()}


def make_corpus(folder: Path, *, seed: int, urls: int = 3000, base_url: str) -> DemoCorpus:
    """Write the lists and the truth table. `base_url` is the server's, such as http://127.0.0.1:8791.

    Raises ValueError below FEWEST_URLS.
    """
    drafts = _draft_rows(Random(seed), urls)
    rows = tuple(_number_rows(drafts, base_url))
    corpus = DemoCorpus(folder, rows, base_url)
    folder.mkdir(parents=True, exist_ok=True)
    for source, path in corpus.lists.items():
        path.write_bytes(b"".join(row.line() for row in rows if row.source == source))
    pq.write_table(pa.Table.from_pylist([row.truth() for row in rows], schema=TRUTH), corpus.truth, compression="zstd")
    return corpus


@dataclass(frozen=True)
class _Draft:
    """A row before it has a place."""

    kind: Kind
    caption: str
    picture: Picture


def _draft_rows(rng: Random, urls: int) -> list[_Draft]:
    if urls < FEWEST_URLS:
        raise ValueError(
            f"urls is {urls}, but a corpus with every kind and good pairs enough needs {FEWEST_URLS} or more"
        )
    others = [kind for kind in KINDS if kind is not GOOD for _ in range(kind.num_rows(urls))]
    good = [_draft(GOOD, rng, []) for _ in range(urls - len(others))]
    drafts = good + [_draft(kind, rng, good) for kind in others]
    rng.shuffle(drafts)
    return drafts


def _draft(kind: Kind, rng: Random, good: list[_Draft]) -> _Draft:
    picture = _random_picture(kind, rng)
    text = caption(picture.scene, rng.choice(PHRASINGS))
    if kind is DUPLICATE:
        picture = rng.choice(good).picture
        text = caption(picture.scene, rng.choice(PHRASINGS))
    elif kind is SHARED_CAPTION:
        first = rng.choice(good)
        picture, text = replace(picture, scene=another_view(first.picture.scene, rng)), first.caption
    elif kind is MISMATCHED:
        text = caption(_unlike(picture.scene, rng), rng.choice(PHRASINGS))
    return _Draft(kind, rng.choice(kind.captions).format(caption=text), picture)


def _random_picture(kind: Kind, rng: Random) -> Picture:
    """96–320 px a side, no longer than 4:3; about a sixth have a short side of 256 px or more."""
    short_px = rng.randint(96, 288)
    long_px = rng.randint(short_px, min(320, short_px * 4 // 3))
    width_px, height_px = kind.size_px or rng.sample((short_px, long_px), 2)
    return Picture(random_scene(rng), width_px, height_px, rng.randint(60, 95), kind.encoding)


def _unlike(scene: Scene, rng: Random) -> Scene:
    """A scene of another object in another colour."""
    while True:
        other = random_scene(rng)
        if other.object != scene.object and other.colour != scene.colour:
            return other


def _number_rows(drafts: list[_Draft], base_url: str) -> list[Row]:
    """The first half is the first source's, the rest the second's."""
    half = (len(drafts) + 1) // 2
    rows = []
    for i, draft in enumerate(drafts):
        source, number = (SOURCES[0], i) if i < half else (SOURCES[1], i - half)
        path = f"/{source}/{number:06d}"
        url = draft.kind.url.format(base_url=base_url, path=path)
        rows.append(Row(source, number, draft.kind, draft.caption, draft.picture, path, url))
    return rows
