"""Sample captions as one HTML page that needs no script, no network and no other file.

A row a sample: its picture, the reference caption, the model's caption, the captions of its neighbours, its loss.
Shapes: a picture is (1, 3, H, W) uint8 pixels.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.training.captions import Captioned
from model.training.grounding import Grounding
from model.training.samples import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE = 192  # px, the longer side
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may do with the page: nothing that a caption could ask for."""

STYLE = """
body { margin: 24px auto; max-width: 1120px; color: #22272e; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
table { border-collapse: collapse; margin: 0 0 24px; }
th, td { padding: 6px 16px 6px 0; border-bottom: 1px solid #e3e6ea; text-align: left; vertical-align: top; }
th, small { color: #68707b; font-weight: 500; }
td { overflow-wrap: anywhere; }
ol { margin: 0; padding-left: 20px; }
img { display: block; width: 192px; }
"""


def captions_page(
    update: int,
    grounding: Grounding,
    samples: Sequence[Sample],
    *,
    pictures: Mapping[str, Tensor] | None = None,
    most: int = 64,
) -> str:
    """samples: those that the grounding was measured on, in its order; the first `most` are shown.
    pictures: by the sample's id, for samples that hold patch tokens in place of pixels."""
    rows = [
        _row(captioned, _picture(sample, pictures or {}))
        for captioned, sample in list(zip(grounding.captions, samples, strict=False))[:most]
    ]
    title = f"Captions at update {update:,}"
    head = ("picture", "reference", "generated", "neighbours", "nats a token")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        f"{_table(('meter', 'value', '95 % interval'), _meters(grounding))}\n{_table(head, rows)}\n</body></html>\n"
    )


def _meters(grounding: Grounding) -> list[list[str]]:
    return [
        [escape(name), f"{figure.value:.4g}", f"{figure.low:.4g} … {figure.high:.4g}"]
        for name, figure in grounding.figures().items()
    ]


def _row(captioned: Captioned, picture: Tensor | None) -> list[str]:
    shown = "<small>no picture at hand</small>" if picture is None else _thumbnail(picture)
    neighbors = "".join(f"<li>{escape(caption)}</li>" for caption in captioned.neighbors)
    return [
        f"{shown}<small>{escape(captioned.id)}</small>",
        escape(captioned.reference),
        escape(captioned.generated),
        f"<ol>{neighbors}</ol>",
        f"{captioned.loss:.3f}",
    ]


def _picture(sample: Sample, pictures: Mapping[str, Tensor]) -> Tensor | None:
    """The caller's, or the last of the sample's own: that of the chunk that is captioned."""
    own = [chunk.image for chunk in sample.chunks if chunk.image is not None and chunk.image.dtype == torch.uint8]
    return pictures.get(sample.id, own[-1] if own else None)


def _thumbnail(picture: Tensor) -> str:
    from PIL import Image

    return picture_tag(Image.fromarray(picture[0].permute(1, 2, 0).cpu().numpy()))


def picture_tag(picture: "Image", longest: int = PICTURE) -> str:
    """An img that holds its picture. longest: px, of the longer side; a larger one is shrunk in place."""
    picture.thumbnail((longest, longest))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=85)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}" alt="">'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    cells = [[f"<th>{cell}</th>" for cell in head], *([f"<td>{cell}</td>" for cell in row] for row in rows)]
    return "<table>" + "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells) + "</table>"
