"""Checkpoints: a folder of config.json, model.safetensors and the tokenizer's files; nothing in it can run code.

A part that stayed frozen need not be stored again: config.json then says where its weights lie, and their hash.
A part is a child of ReViLM; its name is the first word of its tensors' names.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.config import ReViLMConfig, from_dict, to_dict
from model.files import read_json, replacing, tensor_faults
from model.hugging_face import read_language_model
from model.image_encoder import resize_positions
from model.open_clip_weights import read_weights
from model.revilm import ReViLM
from model.tokenizer import Tokenizer, check_fits

FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PICKLED = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
IMAGE_SIZE, POSITIONS = "vision.encoder.image_size", "positional_embedding"

Parts = dict[str, dict[str, Tensor]]
"""Part → name within it → tensor."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    place: str  # a relative one counts from the checkpoint's folder
    sha256: str  # the part's tensors_digest


@dataclass(frozen=True, kw_only=True)
class References:
    """Parts whose weights are not in model.safetensors.

    Each may lie in another checkpoint that stores it; the language model in a folder of Hugging Face too, the image
    encoder in a .safetensors file of open_clip.
    """

    language_model: Reference | None = None
    image_encoder: Reference | None = None
    text_encoder: Reference | None = None
    retrieval_cross_attention: Reference | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """config.json."""

    format_version: int
    model: ReViLMConfig
    references: References = References()


class Pretrained(NamedTuple):
    model: ReViLM
    tokenizer: Tokenizer
    new_parts: list[str]  # which the checkpoint has not: they begin as in a new model
    unused_parts: list[str]  # which the checkpoint has, and the model has not


def save_pretrained(
    folder: str | Path,
    model: ReViLM,
    tokenizer: Tokenizer,
    *,
    references: Mapping[str, str | Path | Reference] | None = None,
) -> None:
    """config.json comes last: without it a folder is no checkpoint, so that one whose writing was cut off cannot be
    read, but be written again.

    references: part → place of its weights, for parts that are not to be stored (see References); a relative place
    counts from the folder. The place is read: it must hold the very weights of the model. A Reference is
    believed, and the model's own tensors of that part may be on the meta device.

    Raises FileExistsError for a folder that has a config.json; ValueError for a tokenizer or a part that does not fit
    the model's configuration, and for a reference to other weights.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if (folder / CONFIG).exists():
        raise FileExistsError(f"{folder / CONFIG} exists; take another folder, or remove this one")
    check_fits(tokenizer, model.config.language_model)
    parts = _parts_of(model)
    _refuse(folder, _faults(_parts_of(_without_weights(model.config)), parts))
    places = {part: _refer(folder, model.config, parts, part, place) for part, place in (references or {}).items()}
    manifest = Manifest(
        format_version=FORMAT_VERSION, model=model.config, references=from_dict(References, places, "references")
    )
    stored = {part: tensors for part, tensors in parts.items() if part not in places}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as scratch:
        save_file({name: tensor.contiguous() for name, tensor in _by_full_name(stored).items()}, scratch)
    tokenizer.write(folder)
    for path in folder.iterdir():
        _sync(path)
    with replacing(folder / CONFIG) as scratch:
        scratch.write_text(json.dumps(to_dict(manifest), indent=2), encoding="utf-8")
        _sync(scratch)
    _sync(folder)


def from_pretrained(folder: str | Path, config: ReViLMConfig | None = None) -> Pretrained:
    """The model as it was saved, on the CPU and in evaluation mode.

    config: another configuration than the checkpoint's, such as the one with vision that follows on retrofit. Parts
    that both have are taken over (for another image size the image encoder's positions are interpolated); new ones
    begin as in a new model, next to the language model that was read.

    Raises FileNotFoundError; ValueError for another format, for pickled weights, for a tokenizer that does not fit, for
    referenced weights of another hash, and, naming all of them, for tensors that are missing, extra or misshapen and
    for other settings of a part that both have.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    model = _without_weights(manifest.model)
    due = _parts_of(model)
    found = _read_parts(folder, manifest, due)
    tokenizer = Tokenizer.read(folder)
    check_fits(tokenizer, manifest.model.language_model)
    if config is not None:
        model = _without_weights(config)
        due = _parts_of(model)
        _fit(folder, manifest.model, config, due, found)
    for part in due.keys() & found.keys():
        model.get_submodule(part).load_state_dict(found[part], assign=True)
    new = [part for part in due if part not in found]
    if new:
        begun = ReViLM(model.config, model.language_model)
        for part in new:
            model.set_submodule(part, begun.get_submodule(part))
    return Pretrained(model.eval(), tokenizer, new, [part for part in found if part not in due])


def configuration_of(folder: str | Path) -> ReViLMConfig:
    """Of a checkpoint's model. Raises FileNotFoundError, and ValueError for another format."""
    return _read_manifest(Path(folder)).model


def references_of(folder: str | Path) -> dict[str, Reference]:
    """Of the parts that a checkpoint does not store, with absolute places."""
    folder = Path(folder).absolute()
    found = vars(_read_manifest(folder).references).items()
    return {
        part: replace(reference, place=str((folder / reference.place).resolve()))
        for part, reference in found
        if reference is not None
    }


def tensors_digest(module: nn.Module) -> str:
    """sha256, hexadecimal, of a module's tensors: names, dtypes, shapes and bytes, in the order of the names."""
    return _digest(module.state_dict())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parts_of(model: ReViLM) -> Parts:
    states = {part: dict(module.state_dict()) for part, module in model.named_children()}
    return {part: tensors for part, tensors in states.items() if tensors}


def _by_full_name(parts: Parts) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _without_weights(config: ReViLMConfig) -> ReViLM:
    with torch.device("meta"):
        return ReViLM(config)


def _refer(
    folder: Path, config: ReViLMConfig, parts: Parts, part: str, place: str | Path | Reference
) -> dict[str, Any]:
    if part not in parts:
        raise ValueError(f"references names {part}; the model has {', '.join(parts)}")
    if isinstance(place, Reference):
        return to_dict(place)
    reference = Reference(place=str(place), sha256=_digest(parts[part]))
    _read_reference(folder, part, reference, config)
    return to_dict(reference)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {folder} is no checkpoint, or its writing was cut off")
    found = read_json(path)
    version = found.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {version!r}; allowed is {FORMAT_VERSION}, as save_pretrained writes it "
            "(a Hugging Face folder is opened by model.hugging_face)"
        )
    return from_dict(Manifest, found, str(path))


def _read_parts(folder: Path, manifest: Manifest, due: Parts) -> Parts:
    """All parts of the checkpoint, wherever they lie."""
    references = {part: place for part, place in vars(manifest.references).items() if place is not None}
    found = _read_stored(folder)
    _refuse(folder / WEIGHTS, _faults({part: due[part] for part in due if part not in references}, found))
    for part, reference in references.items():
        found[part] = _read_reference(folder, part, reference, manifest.model)
    _refuse(folder, _faults(due, found))
    return found


def _read_stored(folder: Path, prefix: str = "") -> Parts:
    """prefix: of the names to read; all."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.iterdir()):
        if path.suffix in PICKLED:
            raise ValueError(f"{path} is pickled and could run code; allowed is {WEIGHTS} alone. Remove it, or convert")
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    parts: Parts = {}
    try:
        with safe_open(path, framework="pt") as file:
            for full_name in filter(lambda name: name.startswith(prefix), file.keys()):
                part, _, name = full_name.partition(".")
                # A copy: the file is mapped, and would be the model's memory.
                parts.setdefault(part, {})[name] = file.get_tensor(full_name).clone()
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read, perhaps it was cut off: {error}") from error
    return parts


def _read_reference(folder: Path, part: str, reference: Reference, config: ReViLMConfig) -> dict[str, Tensor]:
    place = (folder / reference.place).resolve()
    tensors = _read_part(place, part, config)
    found = _digest(tensors)
    if found != reference.sha256:
        raise ValueError(
            f"{part}: {place} holds weights of sha256 {found}, the checkpoint's are {reference.sha256}. One of the two "
            "was changed, by training perhaps: give the place of the very weights, or save the part without reference"
        )
    return tensors


def _read_part(place: Path, part: str, config: ReViLMConfig) -> dict[str, Tensor]:
    if not place.exists():
        raise FileNotFoundError(f"{part}: {place} is missing; references in {CONFIG} says that its weights lie there")
    if _is_checkpoint(place):
        stored = _read_stored(place, f"{part}.")
        if not stored:
            raise ValueError(f"{part}: {place} has it by reference or not at all; refer to the place that stores it")
        return stored[part]
    if part == "language_model" and place.is_dir():
        return read_language_model(place).state_dict()
    if part == "image_encoder" and config.vision is not None:
        return read_weights(config.vision.encoder, place).state_dict()
    raise ValueError(f"{part}: {place} is no checkpoint; only a folder that save_pretrained wrote stores {part}")


def _is_checkpoint(place: Path) -> bool:
    return (place / CONFIG).is_file() and "format_version" in read_json(place / CONFIG)


def _fit(folder: Path, old: ReViLMConfig, new: ReViLMConfig, due: Parts, found: Parts) -> None:
    """Parts of a checkpoint against those of another configuration, as far as both have them."""
    changes = _changes("language_model", old.language_model, new.language_model)
    if old.vision is not None and new.vision is not None:
        changes += _changes("vision", old.vision, new.vision)
        encoder = found["image_encoder"]
        encoder[POSITIONS] = resize_positions(encoder[POSITIONS], new.vision.encoder.grid)
    shared = due.keys() & found.keys()
    _refuse(folder, changes + _faults(*({part: parts[part] for part in shared} for parts in (due, found))))


def _refuse(place: Path, faults: list[str]) -> None:
    if faults:
        raise ValueError(f"{place} does not fit the configuration: {'; '.join(faults)}")


def _faults(due: Parts, found: Parts) -> list[str]:
    wanted, given = ({name: each.shape for name, each in _by_full_name(parts).items()} for parts in (due, found))
    return tensor_faults(wanted, given)


def _changes(where: str, old: Any, new: Any) -> list[str]:
    """Settings that have another value. Not all of them, such as the number of heads, show in a tensor's shape."""
    if is_dataclass(old) and is_dataclass(new):
        return [
            change
            for name in vars(old)
            for change in _changes(f"{where}.{name}", getattr(old, name), getattr(new, name))
        ]
    return [f"{where} is {new} and was {old}"] if old != new and where != IMAGE_SIZE else []


def _sync(path: Path) -> None:
    """Until here a file, or the names in a folder, may be lost with the machine's power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
