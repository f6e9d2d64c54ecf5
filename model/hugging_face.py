"""Language models of the GPT-2 and Llama families in local Hugging Face folders, read and written without transformers.

Shapes: V rows of the subword table, D width. GPT-2 stores the matrices of its blocks as (inputs, outputs), the other
way round than torch.nn.Linear; Llama stores queries, keys, values, and gate and up, as matrices of their own.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import LanguageModelConfig, from_dict
from model.files import read_json, replacing, tensor_faults
from model.language_model import LanguageModel
from model.tokenizer import Tokenizer, check_fits

HEAD = "lm_head.weight"
# Masks and angles that older versions of transformers stored; they follow from the configuration.
BUFFERS = re.compile(r".*\.\d+\.(attn\.(masked_)?bias|self_attn\.rotary_emb\.inv_freq)")


@dataclass(frozen=True)
class Family:
    """How transformers writes one family down."""

    architecture: str
    prefix: str  # of all tensors but the head's; a folder of the bare decoder goes without
    keys: dict[str, str]  # our setting → the key of config.json
    defaults: dict[str, Any]  # of the keys that may be left out
    allowed: dict[str, tuple[Any, ...]]  # values that our blocks compute, by key, the default first
    modules: dict[str, tuple[str, ...]]  # our module → those whose rows it holds, one below another
    transposed: bool = False  # the matrices of the blocks


GPT2 = Family(
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    keys={
        "vocabulary": "vocab_size",
        "end_of_text": "eos_token_id",
        "positions": "n_positions",
        "layers": "n_layer",
        "width": "n_embd",
        "heads": "n_head",
        "feed_forward": "n_inner",
        "norm_epsilon": "layer_norm_epsilon",
        "tied": "tie_word_embeddings",
    },
    defaults={"eos_token_id": 50256, "n_inner": None, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    allowed={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "quantization_config": (None,),
    },
    modules={
        "table": ("wte",),
        "position_table": ("wpe",),
        "attention_norm": ("h.{}.ln_1",),
        "attention.queries_keys_values": ("h.{}.attn.c_attn",),
        "attention.output": ("h.{}.attn.c_proj",),
        "feed_forward_norm": ("h.{}.ln_2",),
        "feed_forward.up": ("h.{}.mlp.c_fc",),
        "feed_forward.down": ("h.{}.mlp.c_proj",),
        "norm": ("ln_f",),
    },
    transposed=True,
)

LLAMA = Family(
    architecture="LlamaForCausalLM",
    prefix="model.",
    keys={
        "vocabulary": "vocab_size",
        "end_of_text": "eos_token_id",
        "positions": "max_position_embeddings",
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "heads": "num_attention_heads",
        "key_value_heads": "num_key_value_heads",
        "feed_forward": "intermediate_size",
        "norm_epsilon": "rms_norm_eps",
        "tied": "tie_word_embeddings",
    },
    defaults={"eos_token_id": 2, "num_key_value_heads": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False},
    allowed={
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "rope_interleaved": (False,),
        "quantization_config": (None,),
    },
    modules={
        "table": ("embed_tokens",),
        "attention_norm": ("layers.{}.input_layernorm",),
        "attention.queries_keys_values": tuple(f"layers.{{}}.self_attn.{each}_proj" for each in "qkv"),
        "attention.output": ("layers.{}.self_attn.o_proj",),
        "feed_forward_norm": ("layers.{}.post_attention_layernorm",),
        "feed_forward.up": ("layers.{}.mlp.gate_proj", "layers.{}.mlp.up_proj"),
        "feed_forward.down": ("layers.{}.mlp.down_proj",),
        "norm": ("norm",),
    },
)

FAMILIES = {"gpt2": GPT2, "llama": LLAMA}


def read_config(folder: str | Path) -> LanguageModelConfig:
    """config.json of a folder.

    Raises FileNotFoundError, and ValueError for a setting that our blocks do not compute, naming it.
    """
    path = Path(folder, "config.json")
    found = read_json(path)
    try:
        return _config_of(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_language_model(folder: str | Path) -> LanguageModel:
    """config.json with model.safetensors, whole or sharded; weights are widened to float32.

    Raises FileNotFoundError; ValueError for a setting that our blocks do not compute, for pickled weights, and for
    tensors that are missing, extra or misshapen, all of them named.
    """
    with torch.device("meta"):
        model = LanguageModel(read_config(folder))
    stored = _stored_tensors(Path(folder), FAMILIES[model.config.family].prefix)
    copy = stored.pop(HEAD, None) if model.config.tied else None
    due = {name: view.shape for name, view in tensors_of(model).items()}
    faults = tensor_faults(due, {name: tensor.shape for name, tensor in stored.items()})
    if faults:
        raise ValueError(f"{folder}: the tensors are not those that config.json tells of: {'; '.join(faults)}")
    model.to_empty(device="cpu")
    for name, view in tensors_of(model).items():
        view.copy_(stored[name].read())
    if copy is not None and not torch.equal(copy.read().to(model.table.weight), model.table.weight):
        raise ValueError(f"{copy.file}: {HEAD} differs from the table; set tie_word_embeddings to false in config.json")
    return model


def write_language_model(folder: str | Path, model: LanguageModel, tokenizer: Tokenizer | None = None) -> None:
    """A folder that AutoModelForCausalLM.from_pretrained of transformers opens. Every file appears whole; config.json
    comes last.

    Raises ValueError for a tokenizer that does not fit, and for grouped heads in the GPT-2 family.
    """
    from safetensors.torch import save_file

    config = model.config
    if config.family == "gpt2" and config.kv_heads != config.heads:
        raise ValueError(
            f"key_value_heads is {config.kv_heads}; allowed in a GPT-2 folder is {config.heads}, as many as heads"
        )
    if tokenizer is not None:
        check_fits(tokenizer, config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Clones: safetensors stores no views of one tensor.
    tensors = {name: view.clone(memory_format=torch.contiguous_format) for name, view in tensors_of(model).items()}
    with replacing(folder / "model.safetensors") as scratch:
        save_file(tensors, scratch, metadata={"format": "pt"})
    if tokenizer is not None:
        tokenizer.write(folder)
    settings = _settings_of(config, None if tokenizer is None else tokenizer.begin_of_text)
    with replacing(folder / "config.json") as scratch:
        scratch.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def tensors_of(model: LanguageModel) -> dict[str, Tensor]:
    """The parameters as transformers names, splits and turns them: views, so that what is copied to one is the
    model's."""
    config, family = model.config, FAMILIES[model.config.family]
    views = {}
    for name, parameter in model.named_parameters():
        if name == "head.weight":
            views[HEAD] = parameter.detach()
            continue
        block, module, kind = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.+)\.(\w+)", name).groups()  # type: ignore[union-attr]
        theirs = family.modules[module]
        turned = family.transposed and block is not None and parameter.dim() == 2
        parts = torch.split(parameter.detach(), _rows(config, len(theirs), len(parameter)))
        for their, part in zip(theirs, parts, strict=True):
            views[f"{family.prefix}{their.format(block)}.{kind}"] = part.T if turned else part
    return views


def _rows(config: LanguageModelConfig, parts: int, rows: int) -> list[int]:
    """Of a module of ours that holds three of theirs (queries, keys, values), two (gate, up) or one."""
    grouped = config.kv_heads * config.head_width
    return [config.width, grouped, grouped] if parts == 3 else [rows // parts] * parts


def _config_of(found: dict[str, Any]) -> LanguageModelConfig:
    kind = found.get("model_type")
    _check_allowed("model_type", kind, tuple(FAMILIES))
    family = FAMILIES[str(kind)]
    for key, allowed in family.allowed.items():
        _check_allowed(key, found.get(key, allowed[0]), allowed)
    values = {ours: _value(found, key, family.defaults) for ours, key in family.keys.items()}
    if isinstance(values["end_of_text"], list) and values["end_of_text"]:
        values["end_of_text"] = values["end_of_text"][0]
    if family is LLAMA:
        values["rotary_base"] = _rotary_base(found)
    config = from_dict(LanguageModelConfig, values | {"family": kind}, "language_model")
    if found.get("head_dim") is not None:
        _check_allowed("head_dim", found["head_dim"], (config.head_width,))
    return config


def _value(found: dict[str, Any], key: str, defaults: dict[str, Any]) -> Any:
    if key not in found and key not in defaults:
        raise ValueError(f"{key} is missing")
    return found.get(key, defaults.get(key))


def _check_allowed(key: str, value: object, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} is {json.dumps(value)}; allowed is {' or '.join(map(json.dumps, allowed))}")


def _rotary_base(found: dict[str, Any]) -> float:
    """transformers 5 writes rope_parameters; before, rope_theta stood alone and rope_scaling beside it."""
    for key in ("rope_scaling", "rope_parameters"):
        rotary = found.get(key) or {}
        _check_allowed(f"{key}.rope_type", rotary.get("rope_type", rotary.get("type", "default")), ("default",))
    rotary = found.get("rope_scaling") or found.get("rope_parameters") or {}
    return rotary.get("rope_theta", found.get("rope_theta", 10000.0))  # type: ignore[no-any-return]


def _settings_of(config: LanguageModelConfig, begin_of_text: int | None) -> dict[str, Any]:
    family = FAMILIES[config.family]
    values = dataclasses.asdict(config) | {"feed_forward": config.inner, "key_value_heads": config.kv_heads}
    settings: dict[str, Any] = {"architectures": [family.architecture], "model_type": config.family}
    settings |= {"bos_token_id": begin_of_text} | {key: values[ours] for ours, key in family.keys.items()}
    settings |= {key: allowed[0] for key, allowed in family.allowed.items() if allowed[0] is not None}
    if family is LLAMA:
        settings |= {
            "head_dim": config.head_width,
            "rope_theta": config.rotary_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        }
    return settings


@dataclass(frozen=True)
class _StoredTensor:
    file: Path
    name: str
    shape: list[int]

    def read(self) -> Tensor:
        from safetensors import safe_open

        with safe_open(self.file, "pt") as opened:
            return opened.get_tensor(self.name)  # type: ignore[no-any-return]


def _stored_tensors(folder: Path, prefix: str) -> dict[str, _StoredTensor]:
    """By name, the prefix put before where the folder goes without; old buffers are left out."""
    found = [tensor for file in _weight_files(folder) for tensor in _tensors_in(file)]
    bare = not any(tensor.name.startswith(prefix) for tensor in found)
    named = {prefix + each.name if bare and each.name != HEAD else each.name: each for each in found}
    return {name: tensor for name, tensor in named.items() if not BUFFERS.fullmatch(name)}


def _weight_files(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{index} has no weight_map, which names the shard of every tensor")
        return [folder / name for name in sorted(set(shards.values()))]
    pickled = sorted(path.name for ending in ("bin", "pt", "pth") for path in folder.glob(f"*.{ending}"))
    if pickled:
        raise ValueError(
            f"{folder}: the weights are pickled ({', '.join(pickled)}), and opening a pickle runs what it holds; "
            "convert them to model.safetensors where you trust them: save_pretrained of transformers writes it"
        )
    raise FileNotFoundError(f"{folder} has neither {whole.name} nor {index.name}")


def _tensors_in(file: Path) -> list[_StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return [_StoredTensor(file, name, opened.get_slice(name).get_shape()) for name in opened.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is no whole safetensors file: {error}") from error
