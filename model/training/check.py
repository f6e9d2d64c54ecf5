"""What is looked at before anything starts: whether a stage can be trained so, and what its result will depend on."""

import os
from collections.abc import Mapping

import torch

from model.config import ReViLMConfig
from model.freezing import TRAINED, freeze
from model.revilm import ReViLM
from model.training.checkpoints import Checkpoints, refuse_small_disk
from model.training.data import identities, opening_of
from model.training.encoders import open_encoder
from model.training.patches import PatchReader
from model.training.recipe import TrainRecipe
from model.training.start import configuration, encoder_recipe, identity_of_start
from pipeline.errors import FingerprintMismatch, RecipeError
from pipeline.fingerprint import differences
from pipeline.recipe import Json

UNTOLD = {"sources", "start", "updates", "micro_batch", "recompute", "compiled", "checkpoint_every", "evaluate_every"}
"""Settings of a stage that change no result, or only how far it goes."""


def check(recipe: TrainRecipe) -> dict[str, Json]:
    """→ settings: what a checkpoint was made of, so that only the same goes on from it.

    Raises RecipeError, InputError and StorageError for whatever stands in the way of the first step, and
    FingerprintMismatch where the stage's checkpoints were made of something else."""
    config = configuration(recipe)
    opened = opening_of(recipe, config)()
    for name, source in opened.items():
        if not sum(source.sizes):
            raise RecipeError(f"source {name} has no samples")
    refuse_other_patches(recipe)
    settings = settings_of(recipe, identities(opened))
    latest = Checkpoints(recipe.folder).latest()
    if latest is not None:
        refuse_other(recipe.folder, Checkpoints(recipe.folder).state(latest)["settings"], settings)
    refuse_large(recipe, config)
    return settings


def settings_of(recipe: TrainRecipe, data: Mapping[str, Json]) -> dict[str, Json]:
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
        "start": identity_of_start(recipe),
        "sources": sources,
        stage: section.model_dump(mode="json", exclude=UNTOLD | {"keep", "patience"}),
    }


def refuse_other(folder: str, made: Json, wanted: Json) -> None:
    """Raises FingerprintMismatch, naming every field that differs and both values."""
    fields = "; ".join(f"{name} was {theirs!r} and is {ours!r}" for name, theirs, ours in differences(made, wanted))
    if fields:
        raise FingerprintMismatch(
            f"the checkpoints in {folder} were made with other settings: {fields}. Restore them to go on, or give a "
            "new root to begin anew. What was made is untouched."
        )


def refuse_other_patches(recipe: TrainRecipe) -> None:
    """Raises RecipeError where cached patch tokens are of no use to the stage, InputError where another encoder made
    them."""
    stage, section = recipe.stage_and_section
    caches = [root for source in section.sources.values() for root in source.patches]
    if caches and stage == "finetune":
        raise RecipeError("finetune trains the image encoder, so its patch tokens change: leave out patches")
    if caches and stage == "pretrain":
        encoder = open_encoder(encoder_recipe(recipe))
        for cache in map(PatchReader, caches):
            cache.check(cache.corpus_identity, encoder)


def refuse_large(recipe: TrainRecipe, config: ReViLMConfig) -> None:
    """By an estimate: weights, gradients and moments exactly, activations roughly. Raises RecipeError for too little
    memory, StorageError for too small a disk."""
    stage, section = recipe.stage_and_section
    with torch.device("meta"):
        model = ReViLM(config)
    freeze(model, stage, train_retrieval=section.train_retro)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    frozen = sum(each.numel() for each in model.parameters()) - trained
    refuse_small_disk(recipe.folder, 3 * 4 * trained, section.keep + 1)
    weights = 16 * trained + (2 if section.precision == "bf16" else 4) * frozen
    due = (weights / _shards(recipe) + activation_bytes(recipe, config)) / 2**30
    room, where = _memory_gib(recipe)
    if due > room:
        raise RecipeError(
            f"{stage} needs about {due:.1f} GiB a worker ({weights / 2**30:.1f} GiB of weights, gradients and moments; "
            f"the rest is activations, by estimate); {where} has {room:.1f}. Lower {stage}.micro_batch, set "
            f"{stage}.recompute=layers or {stage}.precision=bf16, take a smaller model.preset, or sharding=fsdp"
        )


def activation_bytes(recipe: TrainRecipe, config: ReViLMConfig) -> float:
    """Of a micro-batch: what every layer of the decoder, of the resampler and of a trained image encoder keeps."""
    stage, section = recipe.stage_and_section
    text = config.language_model
    tokens = section.micro_batch * (section.text_tokens + 2)
    width_bytes = 2 if section.precision == "bf16" else 4
    kept = 1 if section.recompute == "layers" else 16  # vectors of the width, a token and layer
    total = tokens * text.width * text.layers * kept
    total += tokens * text.vocabulary * 2
    if config.vision is not None:
        tower, resampler = config.vision.encoder, config.vision.resampler
        pictures = section.micro_batch * (5 if any(source.samples for source in section.sources.values()) else 1)
        total += pictures * (tower.grid**2 + resampler.latents) * tower.width * resampler.layers * 12
        total += (
            pictures * tower.grid**2 * tower.width * tower.layers * (16 if "image_encoder" in TRAINED[stage] else 0)
        )
    return float(total * width_bytes)


def _shards(recipe: TrainRecipe) -> int:
    """In how many the weights lie."""
    fewest = recipe.workers[0] if isinstance(recipe.workers, tuple) else recipe.workers
    return fewest if recipe.sharding == "fsdp" else 1


def _memory_gib(recipe: TrainRecipe) -> tuple[float, str]:
    """Of the device where the recipe is read: the cluster's workers are taken to be like it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 2**30, "the GPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return memory, "this machine"
