"""What is looked at before anything starts: whether a stage can be trained so, and what its result will depend on."""

import logging
import os
from collections.abc import Mapping

import torch

from model.config import ReViLMConfig
from model.freezing import TRAINED, freeze
from model.revilm import ReViLM
from model.training.checkpoints import Checkpoints
from model.training.data import held_out, identities, opening_of
from model.training.patches import PatchReader
from model.training.recipe import TrainRecipe
from model.training.sources import DOCUMENT
from model.training.start import before, configuration, identity_of_start
from pipeline.errors import FingerprintMismatch, InputError, RecipeError
from pipeline.fingerprint import differences
from pipeline.recipe import Json

UNTOLD = {
    *("updates", "patience", "checkpoint_every", "evaluate_every", "keep"),
    *("micro_batch", "recompute", "compiled"),
    *("sources", "start"),  # told by what they hold
}
"""Settings of a stage that change no weights, or only how far it goes."""

log = logging.getLogger("training")


def check(recipe: TrainRecipe) -> dict[str, Json]:
    """→ settings: what a checkpoint was made of, so that only the same goes on from it.

    Raises RecipeError and InputError for whatever stands in the way of the first step, and FingerprintMismatch where
    the stage's checkpoints were made of something else."""
    config = configuration(recipe)
    begins_with = identity_of_start(recipe)
    refuse_patches_that_change(recipe)
    opened = opening_of(recipe, config)()
    refuse_patches_of_other_weights(recipe, begins_with)
    for name, source in opened.items():
        if not sum(source.sizes):
            raise RecipeError(f"source {name} has no samples")
    refuse_nothing_held_out(recipe, config)
    settings = settings_of(recipe, begins_with, identities(opened))
    checkpoints = Checkpoints(recipe.folder)
    latest = checkpoints.latest()
    if latest is not None:
        refuse_other(recipe.folder, checkpoints.state(latest)["settings"], settings)
    refuse_large(recipe, config)
    refuse_sharding_alone(recipe)
    warn_of_no_gain(recipe)
    return settings


def settings_of(recipe: TrainRecipe, begins_with: Mapping[str, str], data: Mapping[str, Json]) -> dict[str, Json]:
    stage, section = recipe.stage_and_section
    sources = {
        name: {"data": data[name], **source.model_dump(mode="json", include={"batch", "weight", "learn"})}
        for name, source in section.sources.items()
    }
    model = recipe.model.model_dump(mode="json", exclude={"language_model", "image_encoder"})
    return {
        "stage": stage,
        "seed": recipe.seed,
        "model": model,
        "held_out": recipe.held_out.share,
        "start": dict(begins_with),
        "evaluated": next(iter(section.sources)),  # whose held-out pairs are looked at
        "sources": sources,
        stage: section.model_dump(mode="json", exclude=UNTOLD),
    }


def refuse_other(folder: str, made: Json, wanted: Json) -> None:
    """Raises FingerprintMismatch, naming every field that differs and both values."""
    fields = "; ".join(f"{name} was {theirs!r} and is {ours!r}" for name, theirs, ours in differences(made, wanted))
    if fields:
        raise FingerprintMismatch(
            f"the checkpoints in {folder} were made with other settings: {fields}. Restore them to go on, or give a "
            "new root to begin anew. What was made is untouched."
        )


def refuse_nothing_held_out(recipe: TrainRecipe, config: ReViLMConfig) -> None:
    """Raises RecipeError where a share is to be held out, and no sample is in it."""
    if recipe.held_out.share and next(held_out(recipe, config), None) is None:
        name = next(iter(recipe.stage_and_section[1].sources))
        raise RecipeError(
            f"held_out.share={recipe.held_out.share:g} leaves no sample of source {name} to evaluate on; raise it, or "
            "say 0 to train without evaluations"
        )


def refuse_patches_that_change(recipe: TrainRecipe) -> None:
    stage, section = recipe.stage_and_section
    if stage == "finetune" and any(source.patches for source in section.sources.values()):
        raise RecipeError("finetune trains the image encoder, so it needs the pictures: name no patches")


def refuse_patches_of_other_weights(recipe: TrainRecipe, begins_with: Mapping[str, str]) -> None:
    stage, section = recipe.stage_and_section
    roots = {root for source in section.sources.values() for root in source.patches}
    for root in sorted(roots) if stage == "pretrain" else ():
        reader, wanted = PatchReader(root), begins_with["image_encoder"]
        if reader.tower != wanted:
            raise InputError(
                f"the patches in {root} were made by an image encoder of other weights: theirs have sha256 "
                f"{reader.tower[:12]}, those of model.image_encoder {wanted[:12]}. Make the patches anew"
            )


def refuse_sharding_alone(recipe: TrainRecipe) -> None:
    """Raises RecipeError where no processes are joined that could hold a part each."""
    if recipe.sharding == "fsdp" and recipe.engine == "local" and "WORLD_SIZE" not in os.environ:
        raise RecipeError("sharding=fsdp is for several processes: set engine=ray, or start the job by torchrun")


def warn_of_no_gain(recipe: TrainRecipe) -> None:
    """Where a pretrain begins with a retrofit whose loss was no smaller with neighbours than without."""
    begun = before(recipe)
    if begun is None or begun.stage != "retrofit" or recipe.stage_and_section[1].train_retro:
        return
    gain = begun.checkpoints.state(begun.record)["figures"].get("neighbor_empty")
    if gain is not None and gain[1] <= 0:
        log.warning(
            "pretrain begins with a retrofit that shows no gain by neighbours (%.4f, 95 %% interval %.4f … %.4f nats a "
            "token), and leaves its layers as they are. Train retrofit longer, or set pretrain.train_retro=true",
            *gain,
        )


def refuse_large(recipe: TrainRecipe, config: ReViLMConfig) -> None:
    """By an estimate: weights, gradients and moments exactly, activations roughly. Raises RecipeError for too little
    memory, of which a cluster's driver only warns, or too small a disk."""
    stage, section = recipe.stage_and_section
    with torch.device("meta"):
        model = ReViLM(config)
    freeze(model, stage, train_retrieval=section.train_retro)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    frozen = sum(each.numel() for each in model.parameters()) - trained
    Checkpoints(recipe.folder).refuse_small_disk(3 * 4 * trained, section.keep + 1)
    weights = 16 * trained + (2 if section.precision == "bf16" else 4) * frozen
    due = (weights / _shards(recipe) + activation_bytes(recipe, config)) / 2**30
    room, where = _memory_gib(recipe)
    if due > room:
        told = (
            f"{stage} needs about {due:.1f} GiB a worker ({weights / 2**30:.1f} GiB of weights, gradients and moments; "
            f"the rest is activations, by estimate); {where} has {room:.1f}. Lower {stage}.micro_batch, set "
            f"{stage}.recompute=layers or {stage}.precision=bf16, take a smaller model.preset, or sharding=fsdp"
        )
        if not os.environ.get("RAY_ADDRESS"):
            raise RecipeError(told)
        log.warning("%s (workers on other machines may have more)", told)


def activation_bytes(recipe: TrainRecipe, config: ReViLMConfig) -> float:
    """Of a micro-batch: what every layer of the decoder, of the resampler and of a trained image encoder keeps."""
    stage, section = recipe.stage_and_section
    text = config.language_model
    fives = any(source.samples for source in section.sources.values())
    captions = section.micro_batch * (DOCUMENT if fives or stage == "language" else 1)
    retrieval = config.retrieval
    in_prefix = retrieval.neighbors * retrieval.caption_tokens if retrieval.mode == "prefix" else 0
    tokens = captions * (section.text_tokens + 2 + in_prefix)
    width_bytes = 2 if section.precision == "bf16" else 4
    kept = 1 if section.recompute == "layers" else 16  # vectors of the width, a token and layer
    total = tokens * text.width * text.layers * kept
    if config.vision is not None:
        tower, resampler = config.vision.encoder, config.vision.resampler
        total += captions * (tower.grid**2 + resampler.latents) * tower.width * resampler.layers * 12
        if "image_encoder" in TRAINED[stage]:
            total += captions * tower.grid**2 * tower.width * tower.layers * 16
    logits = tokens * text.vocabulary * (2 * 4 + width_bytes)  # as they are, in float32, and their gradient
    return float(total * width_bytes + logits)


def _shards(recipe: TrainRecipe) -> int:
    """In how many the weights lie."""
    fewest = recipe.workers[0] if isinstance(recipe.workers, tuple) else recipe.workers
    return fewest if recipe.sharding == "fsdp" else 1


def _memory_gib(recipe: TrainRecipe) -> tuple[float, str]:
    """Of a worker on the device where the recipe is read: a cluster's are taken to be like it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 2**30, "the GPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    most = recipe.workers[1] if isinstance(recipe.workers, tuple) else recipe.workers
    if most == 1 or os.environ.get("RAY_ADDRESS"):
        return memory, "this machine"
    return memory / most, f"this machine's share for one of {most}"
