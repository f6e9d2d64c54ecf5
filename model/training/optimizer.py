"""AdamW as Flamingo §B.1.2 has it: a linear warm-up, then a constant rate, and decay on matrices alone."""

from collections.abc import Iterable

import torch
from torch import nn

from model.training.sharding import bare

UNDECAYED = (
    "resampler.",
    "special_tokens.",
    "language_model.table",
    "language_model.position_table",
    "image_encoder.positional_embedding",
)
"""Names that begin so: Flamingo's resampler, and tables, whose rows are not seen in every step."""


def adam_w(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """Over the parameters that are trained; the rate is set before every step."""
    trained = [(name, parameter) for name, parameter in bare(model).named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if decays(name, p) is wanted], "weight_decay": weight_decay * wanted}
        for wanted in (True, False)
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=(0.9, 0.95))


def decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.startswith(UNDECAYED)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def warmed_up(learning_rate: float, update: int, warm_up: int) -> float:
    """The rate of an update, counted from 0."""
    return learning_rate * min(1.0, (update + 1) / max(warm_up, 1))


def trained_parameters(model: nn.Module) -> Iterable[nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)
