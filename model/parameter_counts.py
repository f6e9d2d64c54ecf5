"""How many parameters the parts of a preset have, beside the papers' figures: what `python -m model.presets` prints.

Symbol: D text width.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model.config import GatedCrossAttentionConfig, ResamplerConfig, ReViLMConfig
from model.freezing import TRAINED
from model.gated_cross_attention import GatedCrossAttention
from model.perceiver_resampler import PerceiverResampler
from model.presets import PRESETS, preset
from model.revilm import ReViLM

PAPER_RETRO = {"base": "148 M", "medium": "405 or 410 M", "large": "1.5 B", "large_l14": "1.5 B"}
"""Language model, text encoder and retrieval cross-attention as Re-ViLM states them (§3.4, §5.1)."""

PRETRAINED = TRAINED["pretrain"]


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters of a preset."""

    parts: dict[str, int]  # by child of the model
    flamingo: int  # the same without retrieval
    conditioning: int
    """Of the cross-attention by which the paper's text encoder reads the decoder: as large as one of the decoder's own
    (4 D² + 6 D in GPT-2's family). It would show the decoder its own future, so it is not built."""

    @classmethod
    def of(cls, name: str) -> "Sizes":
        """Raises ValueError for a preset that does not exist."""
        config = preset(name)
        parts = count_parameters(config)
        flamingo = sum(count_parameters(preset(name, mode="none")).values())
        return cls(parts, flamingo, parts["retrieval_cross_attention"] // len(config.retrieval.layers))

    @property
    def pretrained(self) -> int:
        return sum(self.parts[part] for part in PRETRAINED)

    @property
    def added(self) -> int:
        """By retrieval."""
        return self.parts["text_encoder"] + self.parts["retrieval_cross_attention"]

    @property
    def retro(self) -> int:
        return self.parts["language_model"] + self.added


def count_parameters(config: ReViLMConfig) -> dict[str, int]:
    """By child of the model, which is built without memory for its weights."""
    with torch.device("meta"):
        model = ReViLM(config)
    return {name: _parameters(part) for name, part in model.named_children()}


def _parameters(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


def column(name: str) -> dict[str, str]:
    """What the table says of a preset, by row."""
    sizes = Sizes.of(name)
    total = sum(sizes.parts.values())

    def share(whole: int) -> str:
        return f"{sizes.added / whole:.1%} ({(sizes.added + sizes.conditioning) / whole:.1%})"

    return {
        **{
            f"{part.replace('_', ' ')}, {'trained' if part in PRETRAINED else 'frozen'}": f"{number:,}"
            for part, number in sizes.parts.items()
        },
        "Re-ViLM": f"{total:,}",
        "  trained": f"{sizes.pretrained:,}",
        "  frozen": f"{total - sizes.pretrained:,}",
        "Flamingo: without retrieval": f"{sizes.flamingo:,}",
        "retrieval adds to Flamingo": share(sizes.flamingo),
        "  to GPT and image encoder": share(sizes.parts["language_model"] + sizes.parts["image_encoder"]),
        "RETRO: GPT and retrieval": f"{sizes.retro:,}",
        "  conditioned": f"({sizes.retro + sizes.conditioning:,})",
        "  in the paper": PAPER_RETRO.get(name, ""),
    }


@dataclass(frozen=True)
class FlamingoShape:
    """A published Flamingo (arXiv 2204.14198, table 1)."""

    layers: int
    width: int
    every: int  # a gated layer before the first and every so many
    published: tuple[str, str, str, str, str]  # language model, image encoder, resampler, gated layers, all


FLAMINGO = {
    "3B": FlamingoShape(24, 2048, 1, ("1.4 B", "435 M", "194 M", "1.2 B", "3.2 B")),
    "9B": FlamingoShape(32, 4096, 4, ("7.1 B", "435 M", "194 M", "1.6 B", "9.3 B")),
    "80B": FlamingoShape(80, 8192, 7, ("70 B", "435 M", "194 M", "10 B", "80 B")),
}
FLAMINGO_VISUAL_WIDTH, FLAMINGO_IMAGE_ENCODER = 1536, 435_000_000
"""Of NFNet-F6, which is declared and not built."""


def flamingo_sizes(shape: FlamingoShape) -> dict[str, int]:
    """The language model by shape: 13 D² a layer, with a fifth D × D matrix for relative positions, and 32,000 rows."""
    with torch.device("meta"):
        resampler = PerceiverResampler(ResamplerConfig(inner=16 * 128, head_width=128), FLAMINGO_VISUAL_WIDTH)
        gated = GatedCrossAttention(GatedCrossAttentionConfig(), shape.width, FLAMINGO_VISUAL_WIDTH)
    parts = {
        "language model, by shape": 13 * shape.width**2 * shape.layers + 32_000 * shape.width,
        "image encoder, declared": FLAMINGO_IMAGE_ENCODER,
        "resampler": _parameters(resampler),
        "gated cross attention": -(-shape.layers // shape.every) * _parameters(gated),
    }
    return parts | {"Flamingo": sum(parts.values())}


def flamingo_column(shape: FlamingoShape) -> dict[str, str]:
    sizes = flamingo_sizes(shape).items()
    return {row: f"{number:,} ({known})" for (row, number), known in zip(sizes, shape.published, strict=True)}


def table(title: str, columns: dict[str, dict[str, str]]) -> str:
    """Rows as the first column has them, aligned."""
    rows = [[title, *columns]]
    rows += [[row, *(cells[row] for cells in columns.values())] for row in next(iter(columns.values()))]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ((label.ljust(widths[0]), *map(str.rjust, cells, widths[1:])) for label, *cells in rows)
    return "".join("  ".join(line).rstrip() + "\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m model.presets", description="Numbers of parameters by part.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PRESETS)}; all of them if none")
    names = parser.parse_args(arguments).names or list(PRESETS)
    try:
        presets = {name: column(name) for name in names}
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(table("parameters; trained, frozen: in pretraining", presets))
    sys.stdout.write(
        "In brackets: with the paper's text encoder, conditioned on the decoder; by formula, not built.\n\n"
    )
    flamingo = {name: flamingo_column(shape) for name, shape in FLAMINGO.items()}
    sys.stdout.write(table("Flamingo by shape (as published)", flamingo))
