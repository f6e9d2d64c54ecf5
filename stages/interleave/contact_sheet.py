"""Samples drawn by chance, side by side: what a person judges by eye. A row a sample: the query, then its supports, the
most similar caption first."""

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.commits import Whole
from pipeline.errors import InputError
from stages.filter import CorpusReader
from stages.index import by_shard

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PICTURE = 220  # px, the longer side
GAP = 16  # px
LINE = 17  # px
CAPTION_LINES = 5
PAPER, FRAME, INK, FAINT, QUERY = "#ffffff", "#eef0f3", "#1c2430", "#6b7684", "#b03a2e"

COLUMNS = ("distances", "caption_similarities", "order", "pairs")  # of SAMPLES

Row = dict[str, Any]


def draw_samples(samples: Whole, count: int, seed: int) -> list[Row]:
    """COLUMNS of some samples, each with the same chance, in the order in which they were written; of all, if there are
    fewer."""
    starts = np.cumsum([0, *(shard.rows_out for shard in samples.shards.values())])
    drawn = np.random.default_rng(seed).choice(starts[-1], min(count, starts[-1]), replace=False)
    names = list(samples.shards)
    return [
        row
        for number, _, rows in by_shard(starts, np.sort(drawn))
        for row in samples.read(names[number]).table("samples", COLUMNS).take(rows).to_pylist()
    ]


def save_contact_sheet(heading: str, samples: Sequence[Row], corpora: Sequence[CorpusReader], path: Path) -> None:
    """A picture that cannot be read any more is told in its place."""
    from PIL import Image

    width = GAP + max((len(sample["pairs"]) for sample in samples), default=1) * (PICTURE + GAP)
    strips = [_heading(heading, width), *(_strip(sample, corpora, width) for sample in samples)]
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips)), PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    sheet.save(path)


def _heading(text: str, width: int) -> "Image.Image":
    from PIL import Image, ImageDraw

    lines = wrapped(text, _font("DejaVuSans-Bold"), width - 2 * GAP)
    strip = Image.new("RGB", (width, 2 * GAP + len(lines) * LINE), PAPER)
    _write(ImageDraw.Draw(strip), lines, GAP, GAP, INK, "DejaVuSans-Bold")
    return strip


def _strip(sample: Row, corpora: Sequence[CorpusReader], width: int) -> "Image.Image":
    from PIL import Image, ImageDraw

    told = _told(sample)
    captions = [wrapped(pair["caption"], _font("DejaVuSans"), PICTURE) for pair, _ in told]
    below = GAP + PICTURE + LINE // 2
    strip = Image.new("RGB", (width, below + (1 + max(map(len, captions))) * LINE + GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.line((GAP, 0, width - GAP, 0), FRAME, 2)
    for column, ((pair, figures), caption) in enumerate(zip(told, captions, strict=True)):
        left = GAP + column * (PICTURE + GAP)
        strip.paste(_framed(_picture(pair, corpora)), (left, GAP))
        _write(draw, [figures], left, below, FAINT if column else QUERY, "DejaVuSans" if column else "DejaVuSans-Bold")
        _write(draw, caption, left, below + LINE, INK, "DejaVuSans")
    return strip


def _told(sample: Row) -> list[tuple[Row, str]]:
    """The pairs as they are shown, and what is said of each."""
    *shuffled, query = sample["pairs"]
    by_rank = dict(zip(sample["order"], shuffled, strict=True))
    figures = zip(sample["distances"], sample["caption_similarities"], strict=True)
    supports = [
        (by_rank[rank], f"{distance:.3f} apart · captions {similarity:.3f}")
        for rank, (distance, similarity) in enumerate(figures)
    ]
    return [(query, query["pair_id"]), *supports]


def _picture(pair: Row, corpora: Sequence[CorpusReader]) -> "Image.Image | None":
    """None where there is no picture, or none any more."""
    from PIL import Image, ImageOps

    try:
        stored = Image.open(io.BytesIO(corpora[pair["corpus"]].picture(pair)))
        return ImageOps.contain(stored.convert("RGB"), (PICTURE, PICTURE))
    except (InputError, OSError):
        return None


def _framed(picture: "Image.Image | None") -> "Image.Image":
    from PIL import Image, ImageDraw

    frame = Image.new("RGB", (PICTURE, PICTURE), FRAME)
    if picture is None:
        middle = (PICTURE // 2, PICTURE // 2)
        ImageDraw.Draw(frame).text(middle, "no picture to read", FAINT, _font("DejaVuSans"), anchor="mm")
    else:
        frame.paste(picture, ((PICTURE - picture.width) // 2, (PICTURE - picture.height) // 2))
    return frame


def _write(draw: "ImageDraw.ImageDraw", lines: Sequence[str], left: int, top: int, colour: str, font: str) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + number * LINE), line, colour, _font(font))


def wrapped(text: str, font: "ImageFont.FreeTypeFont", width: int) -> list[str]:
    """At most CAPTION_LINES lines of a width in px; a word that is wider is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        for piece in _pieces(word, font, width):
            if line and font.getlength(f"{line} {piece}") > width:
                lines.append(line)
                line = ""
            line = f"{line} {piece}".strip()
        if len(lines) >= CAPTION_LINES:
            return [*lines[: CAPTION_LINES - 1], f"{lines[CAPTION_LINES - 1][:-1]}…"]
    return [*lines, line]


def _pieces(word: str, font: "ImageFont.FreeTypeFont", width: int) -> Iterator[str]:
    """A word as it fits into lines."""
    while word:
        fits = bisect_right(range(1, len(word) + 1), float(width), key=lambda letters: font.getlength(word[:letters]))
        yield word[: max(fits, 1)]
        word = word[max(fits, 1) :]


def _font(name: str) -> "ImageFont.FreeTypeFont":
    """One that comes with matplotlib: the same letters on every machine, and more scripts than Pillow's own has."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), 13)
