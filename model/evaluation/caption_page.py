"""Captions with their neighbours as one HTML page that needs no script, no network and no other file."""

import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from model.evaluation.captioner import Caption
from model.evaluation.live_index import LiveIndex, Neighbor
from model.training.captions_page import POLICY, picture_tag

PICTURE, SMALL = 256, 128  # px, the longer side
STYLE = """
body { margin: 0 auto; padding: 8px 24px; max-width: 1120px; color: #22272e; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
section { display: flex; gap: 24px; padding: 20px 0; border-bottom: 1px solid #e3e6ea; }
figure { margin: 0; width: 150px; } figure.asked { width: 260px; flex: none; }
figcaption, small { color: #68707b; font-size: 13px; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 19px; font-weight: 600; } .row { display: flex; gap: 16px; flex-wrap: wrap; }
"""


def caption_page(captions: Sequence[Caption], index: LiveIndex | None) -> str:
    """index: where the neighbours' pictures lie."""
    body = "\n".join(_section(each, index) for each in captions)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>Captions</title><style>{STYLE}</style></head>\n<body>{body}\n</body></html>"
    )


def _section(caption: Caption, index: LiveIndex | None) -> str:
    said = escape(caption.caption) if caption.caption is not None else f"no caption: {escape(caption.error)}"
    picture = _image(caption.jpeg, PICTURE) if caption.jpeg else ""
    neighbors = "".join(_neighbor(each, index) for each in caption.neighbors if index)
    removed = f"<small>removed, for they show this picture: {caption.removed}</small>" if caption.removed else ""
    return (
        f'<section><figure class="asked">{picture}<figcaption>{escape(caption.picture)}</figcaption></figure>'
        f'<div><h2>{said}</h2><div class="row">{neighbors}</div>{removed}</div></section>'
    )


def _neighbor(neighbor: Neighbor, index: LiveIndex | None) -> str:
    assert index is not None, "neighbours come from one"
    shown = _image(index.retriever.picture(neighbor.pair), SMALL)
    told = f"{escape(neighbor.caption)}<br>{neighbor.similarity:.3f} · {escape(neighbor.pair['pair_id'])}"
    return f"<figure>{shown}<figcaption>{told}</figcaption></figure>"


def _image(jpeg: bytes, longest: int) -> str:
    with Image.open(io.BytesIO(jpeg)) as picture:
        return picture_tag(picture, longest)
