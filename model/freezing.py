"""What a stage of training changes (Re-ViLM §3.5), by the parts of model.revilm.

    part                       language  retrofit  pretrain  finetune
    language_model             trained   frozen    frozen    trained
    special_tokens             absent    absent    trained   trained
    image_encoder              absent    absent    frozen    trained
    resampler                  absent    absent    trained   trained
    gated_cross_attention      absent    absent    trained   trained
    text_encoder               absent    trained   frozen    trained
    retrieval_cross_attention  absent    trained   frozen    trained

language makes a small language model where no pretrained one is at hand; retrofit teaches one to read the captions of
neighbours, on text alone; pretrain gives it sight; finetune fits all of it to one task. That pretraining trains "only
the Perceiver Resampler" cannot be meant to the letter: behind untrained gates, which are 0, its gradient is 0. The
gated layers train with it.
"""

from typing import Literal

from torch import nn

from model.revilm import ReViLM

Stage = Literal["language", "retrofit", "pretrain", "finetune"]

RETRIEVAL = frozenset({"text_encoder", "retrieval_cross_attention"})
SIGHT = frozenset({"special_tokens", "resampler", "gated_cross_attention"})
TRAINED: dict[Stage, frozenset[str]] = {
    "language": frozenset({"language_model"}),
    "retrofit": RETRIEVAL,
    "pretrain": SIGHT,
    "finetune": RETRIEVAL | SIGHT | {"language_model", "image_encoder"},
}


def trainable_names(model: ReViLM, stage: Stage, *, train_retrieval: bool = False) -> list[str]:
    """Names of the parameters that the stage trains, in the order of the model's.

    train_retrieval: pretrain trains the retrieval parts too; the other stages do so anyway.
    Raises ValueError where the model is not one of the stage: language takes a bare language model, retrofit one of
    mode cross without vision, the others one with vision.
    """
    _check(model, stage)
    trained = TRAINED[stage] | (RETRIEVAL if train_retrieval else frozenset())
    return [name for name, _ in model.named_parameters() if name.split(".")[0] in trained]


def freeze(model: ReViLM, stage: Stage, *, train_retrieval: bool = False) -> None:
    """Only trainable_names() keep or get gradients from here on; puts the model into train_mode()."""
    trained = set(trainable_names(model, stage, train_retrieval=train_retrieval))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
        if name not in trained:
            parameter.grad = None
    train_mode(model)


def train_mode(model: ReViLM) -> None:
    """In place of model.train(), which would put frozen parts into training mode too."""
    model.train()
    for part in model.children():
        part.train(any(parameter.requires_grad for parameter in part.parameters()))


def parameter_table(model: ReViLM) -> str:
    """Trainable and frozen parameters of every part, for logs."""
    counts = {part: _counts(module) for part, module in model.named_children()} | {"total": _counts(model)}
    lines = [f"{'part':<26}{'trainable':>16}{'frozen':>16}"]
    lines += [f"{part:<26}{trained:>16,}{kept:>16,}" for part, (trained, kept) in counts.items() if trained + kept]
    return "\n".join(lines)


def _counts(module: nn.Module) -> tuple[int, int]:
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return trained, sum(parameter.numel() for parameter in module.parameters()) - trained


def _check(model: ReViLM, stage: Stage) -> None:
    config = model.config
    if stage not in TRAINED:
        raise ValueError(f"stage is {stage!r}; allowed are {', '.join(TRAINED)}")
    if stage == "language":
        if config.vision is not None or config.retrieval.mode != "none":
            raise ValueError(
                "language trains a language model alone; build it with vision=None and retrieval.mode none"
            )
        return
    if stage != "retrofit" and config.vision is None:
        raise ValueError(f"{stage} trains on pictures, but the model's configuration has no vision; add the section")
    if stage == "retrofit" and config.vision is not None:
        raise ValueError("retrofit trains on text alone; build the model with vision=None, and add vision for pretrain")
    if stage == "retrofit" and config.retrieval.mode != "cross":
        raise ValueError(f"retrofit trains the layers of retrieval.mode cross; the model's is {config.retrieval.mode}")
