"""What a stage of training begins with: the result of the stage before it, or pretrained weights.

language   nothing: a tokenizer is trained on the captions, and the weights are random
retrofit   the language model of stage language, or of a Hugging Face folder
pretrain   mode cross: the result of retrofit; other modes: the language model. And an image encoder
finetune   the result of pretrain
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path

import torch

from model.checkpoint import (
    CONFIG,
    Reference,
    References,
    configuration_of,
    from_pretrained,
    references_of,
    tensors_digest,
)
from model.config import ImageEncoderConfig, LanguageModelConfig, RetrievalConfig, ReViLMConfig, to_dict
from model.hugging_face import read_config, read_language_model
from model.image_encoder import ImageEncoder
from model.presets import preset
from model.revilm import ReViLM
from model.tokenizer import Tokenizer
from model.training.checkpoints import MODEL, Checkpoints, Record, result_of
from model.training.encoders import EncoderRecipe, encoder_config, open_encoder
from model.training.recipe import StageName, TrainRecipe
from pipeline.checksums import sha256_of_file, sha256_of_json
from pipeline.errors import InputError, RecipeError

TOKENIZER_CAPTIONS = 50_000  # that a tokenizer is trained on
REFERRED = [part.name for part in fields(References)]
"""Parts that a stage may leave as they were."""
LOADED = (".safetensors", ".json")  # of a Hugging Face folder


@dataclass(frozen=True)
class Start:
    model: ReViLM
    tokenizer: Tokenizer
    references: dict[str, Reference] = field(default_factory=dict)  # to parts as they lie somewhere already


@dataclass(frozen=True)
class Before:
    """The result of the stage before."""

    stage: StageName
    checkpoints: Checkpoints
    record: Record

    @property
    def identity(self) -> str:
        """Of its model, whose checksums the record has."""
        return sha256_of_json(
            {file.path: file.sha256 for file in self.record.files if file.path.startswith(f"{MODEL}/")}
        )

    @contextmanager
    def folder(self) -> Iterator[Path]:
        with self.checkpoints.opened(self.record, f"{MODEL}/") as opened:
            yield opened / MODEL

    @property
    def configuration(self) -> ReViLMConfig:
        with self.checkpoints.opened(self.record, f"{MODEL}/{CONFIG}") as opened:
            return configuration_of(opened / MODEL)

    @property
    def lasts(self) -> bool:
        """Whether other checkpoints may refer to it; not to the copy of an object store's."""
        return "://" not in self.checkpoints.folder


def before(recipe: TrainRecipe) -> Before | None:
    """None: the stage begins without one. Raises InputError where it is not finished."""
    stage, section = recipe.stage_and_section
    needed = _needed(stage, recipe)
    if needed is None:
        return None
    try:
        return Before(needed, *result_of(f"{(section.start or recipe.root).rstrip('/')}/{needed}"))
    except InputError as error:
        way_out = ", or name a folder in model.language_model" if needed == "language" else ""
        raise InputError(f"{stage} begins with the result of {needed}. {error}{way_out}") from None


def _needed(stage: StageName, recipe: TrainRecipe) -> StageName | None:
    if stage == "finetune":
        return "pretrain"
    if stage == "pretrain" and recipe.model.mode == "cross":
        return "retrofit"
    return None if stage == "language" or recipe.model.language_model else "language"


def identity_of_start(recipe: TrainRecipe) -> dict[str, str]:
    """Of all weights that the stage begins with, without reading them into a model."""
    found: dict[str, str] = {}
    stage_before, folder = before(recipe), recipe.model.language_model
    if stage_before is not None:
        found[stage_before.stage] = stage_before.identity
    elif folder is not None:
        found["language_model"] = sha256_of_json(
            {path.name: sha256_of_file(path) for path in sorted(folder.glob("*")) if path.suffix in LOADED}
        )
    if recipe.stage == "pretrain":
        encoder = open_encoder(encoder_recipe(recipe))
        found["image_encoder"] = tensors_digest(encoder)
        # Not all of it shows in the weights, such as mean and std.
        found["image_encoder_config"] = sha256_of_json(to_dict(encoder.config))
    return found


def configuration(recipe: TrainRecipe) -> ReViLMConfig:
    """Of the stage's model: the preset's, or that of the stage before, where that is of the same kind. Stage language
    may come to a smaller vocabulary. Raises RecipeError, and InputError as `before` does."""
    stage, section = recipe.stage_and_section
    try:
        if stage == "finetune":
            return _finetuned(recipe, _configuration_before(recipe))
        config = preset(recipe.model.preset, mode=recipe.mode)
        text = _language_model(recipe, config.language_model)
        _refuse_other_depth(recipe, text)
        vision = None
        if stage == "pretrain":
            assert config.vision is not None, "every preset has vision"
            tower = encoder_config(encoder_recipe(recipe))
            vision = replace(config.vision, encoder=tower)
        return ReViLMConfig(language_model=text, vision=vision, retrieval=_retrieval(recipe, config.retrieval))
    except (ValueError, FileNotFoundError) as error:
        raise RecipeError(f"model: {error}") from None


def _finetuned(recipe: TrainRecipe, old: ReViLMConfig) -> ReViLMConfig:
    assert old.vision is not None, "the result of pretrain"
    _refuse_other_depth(recipe, old.language_model)
    if old.retrieval.mode != recipe.mode:
        raise ValueError(f"the result of pretrain has model.mode={old.retrieval.mode}, and the recipe {recipe.mode}")
    size = recipe.stage_and_section[1].image_size
    tower: ImageEncoderConfig = old.vision.encoder if size is None else replace(old.vision.encoder, image_size=size)
    return replace(old, vision=replace(old.vision, encoder=tower), retrieval=_retrieval(recipe, old.retrieval))


def _refuse_other_depth(recipe: TrainRecipe, text: LanguageModelConfig) -> None:
    due = preset(recipe.model.preset).language_model.layers
    if text.layers != due:
        raise ValueError(
            f"the language model has {text.layers} layers, and preset {recipe.model.preset} {due}: take the preset of "
            "the language model, or another language model"
        )


def _retrieval(recipe: TrainRecipe, shape: RetrievalConfig) -> RetrievalConfig:
    said = recipe.model
    return replace(
        shape,
        neighbors=said.neighbors,
        caption_tokens=said.caption_tokens,
        neighbor_token_dropout=said.neighbor_token_dropout if shape.mode != "none" else 0.0,
        prefix_loss=said.prefix_loss if shape.mode == "prefix" else 0.0,
    )


def _configuration_before(recipe: TrainRecipe) -> ReViLMConfig:
    stage_before = before(recipe)
    assert stage_before is not None, "asked of stages that have one"
    return stage_before.configuration


def _language_model(recipe: TrainRecipe, shape: LanguageModelConfig) -> LanguageModelConfig:
    folder = recipe.model.language_model
    if recipe.stage == "language":
        if folder is not None:
            raise RecipeError(f"model.language_model {folder} is one already: begin with retrofit or pretrain")
        return replace(shape, vocabulary=recipe.model.vocab_size, end_of_text=recipe.model.vocab_size - 1)
    if folder is not None and before(recipe) is None:
        if not (folder / "config.json").is_file():
            raise RecipeError(f"model.language_model: {folder} has no config.json; allowed is a Hugging Face folder")
        return read_config(folder)
    return _configuration_before(recipe).language_model


def start(recipe: TrainRecipe, captions: Callable[[], Iterable[str]]) -> Start:
    """captions: for stage language, which trains its tokenizer on the first of them. New weights are drawn from the
    recipe's seed.

    Raises RecipeError and InputError where what is named is not there, or does not fit together."""
    torch.manual_seed(recipe.seed)
    config = configuration(recipe)
    try:
        if recipe.stage == "language":
            return _from_nothing(recipe, config, captions())
        stage_before = before(recipe)
        if stage_before is None:
            return _from_language_model(recipe, config)
        with stage_before.folder() as folder:
            return _from_stage(recipe, config, folder, lasts=stage_before.lasts)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from None


def _from_nothing(recipe: TrainRecipe, config: ReViLMConfig, captions: Iterable[str]) -> Start:
    tokenizer = Tokenizer.train(islice(captions, TOKENIZER_CAPTIONS), recipe.model.vocab_size)
    text = replace(config.language_model, vocabulary=tokenizer.size, end_of_text=tokenizer.end_of_text)
    return Start(ReViLM(replace(config, language_model=text)), tokenizer)


def _from_language_model(recipe: TrainRecipe, config: ReViLMConfig) -> Start:
    folder = recipe.model.language_model
    assert folder is not None, "else there is a stage before"
    language_model = read_language_model(folder)
    references = {"language_model": Reference(place=str(folder.absolute()), sha256=tensors_digest(language_model))}
    encoder = _image_encoder(recipe, references)
    return Start(ReViLM(config, language_model, encoder), Tokenizer.read(folder), references)


def _from_stage(recipe: TrainRecipe, config: ReViLMConfig, folder: Path, *, lasts: bool) -> Start:
    read = from_pretrained(folder, config)
    kept = [part for part in REFERRED if part not in read.new_parts and getattr(read.model, part, None)]
    known = references_of(folder)
    references = {part: known[part] for part in kept if part in known}
    if lasts:
        references |= {part: _reference(folder, read.model, part) for part in kept if part not in known}
    encoder = _image_encoder(recipe, references)
    if encoder is not None:
        read.model.image_encoder = encoder
    return Start(read.model, read.tokenizer, references)


def _reference(folder: Path, model: ReViLM, part: str) -> Reference:
    return Reference(place=str(folder.absolute()), sha256=tensors_digest(model.get_submodule(part)))


def _image_encoder(recipe: TrainRecipe, references: dict[str, Reference]) -> ImageEncoder | None:
    """Of pretrain; it is added to the references, where it lasts."""
    if recipe.stage != "pretrain":
        return None
    said = encoder_recipe(recipe)
    encoder = open_encoder(said)
    if said.lasts:
        references["image_encoder"] = Reference(place=str(said.files()[1].absolute()), sha256=tensors_digest(encoder))
    return encoder


def encoder_recipe(recipe: TrainRecipe) -> EncoderRecipe:
    """Raises RecipeError where the recipe has none."""
    if recipe.model.image_encoder is None:
        raise RecipeError("pretrain needs model.image_encoder: model and weights of open_clip, or the root of a run")
    return recipe.model.image_encoder
