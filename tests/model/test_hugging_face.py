"""Folders of Hugging Face models, against transformers on the same weights."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.config import LanguageModelConfig
from model.hugging_face import read_config, read_language_model, write_language_model
from model.key_value_cache import CacheView, KeyValueCache
from model.language_model import LanguageModel, TextView
from model.tokenizer import Tokenizer, check_fits
from tests.model.small_models import FAMILIES, language_model_config

GPT2: dict[str, Any] = {"vocab_size": 61, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA: dict[str, Any] = {
    "vocab_size": 61,
    "max_position_embeddings": 32,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
THEIRS = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 untied, narrow feed-forward": ("gpt2", GPT2 | {"tie_word_embeddings": False, "n_inner": 56}),
    "gpt2 of another norm": ("gpt2", GPT2 | {"layer_norm_epsilon": 0.1, "activation_function": "gelu_pytorch_tanh"}),
    "llama": ("llama", LLAMA),
    "llama tied, grouped": ("llama", LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 2}),
    "llama of another base and norm": (
        "llama",
        LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}, "rms_norm_eps": 0.1},
    ),
}
GPT2_CONFIG, LLAMA_CONFIG = (replace(language_model_config(each, vocabulary=61), end_of_text=7) for each in FAMILIES)
OURS = {
    "gpt2": replace(GPT2_CONFIG, norm_epsilon=0.01),
    "gpt2 untied, narrow feed-forward": replace(GPT2_CONFIG, feed_forward=56, tied=False),
    "llama, grouped": LLAMA_CONFIG,
    "llama tied": replace(LLAMA_CONFIG, key_value_heads=None, tied=True, norm_epsilon=0.01, rotary_base=500.0),
}
IDS = torch.tensor(
    [[5, 9, 60, 0, 31, 31, 2, 18, 44, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [33, 0, 0, 12, 7, 3, 1, 2, 8, 9]]
)


@torch.no_grad()
def randomised(model: nn.Module) -> Any:
    """Every weight, norms and biases too, far from what it starts as, so that none can be lost unseen."""
    torch.manual_seed(3)
    for weight in model.parameters():
        weight.normal_(mean=float(weight.dim() == 1), std=0.3)
    return model.eval()


def their_model(transformers: Any, kind: str) -> Any:
    family, settings = THEIRS[kind]
    config = transformers.AutoConfig.for_model(family, **settings, eos_token_id=7, bos_token_id=None)
    return randomised(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


@torch.no_grad()
def their_logits(model: Any, ids: Tensor = IDS) -> Tensor:
    return model(ids).logits  # type: ignore[no-any-return]


@torch.no_grad()
def our_logits(model: LanguageModel, ids: Tensor = IDS) -> Tensor:
    return model(model.table(ids), TextView.causal(*ids.shape))  # type: ignore[no-any-return]


@torch.no_grad()
def cached_logits(model: LanguageModel, prompts: list[int], ids: Tensor = IDS) -> Tensor:
    """Logits from the last token of every prompt on: prompts of unlike length at once, then one token at a time.

    Left of a prompt's last token stand the logits of the prefill.
    """
    config, (rows, length) = model.config, ids.shape
    cache = KeyValueCache(config.layers, rows, config.kv_heads, length, config.head_width, model.table.weight)
    lengths, longest = torch.tensor(prompts), max(prompts)
    columns = torch.arange(longest).expand(rows, longest)
    prompt = ids[:, :longest].where(columns < lengths[:, None], 0)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()[None, None]
    view = TextView(columns, causal)
    logits = torch.zeros(rows, length, config.vocabulary)
    logits[:, :longest] = model(model.table(prompt), view, CacheView(cache, columns, longest))
    for step in range(length - min(prompts)):
        at = (lengths + step).clamp(max=length - 1)[:, None]
        seen = (torch.arange(length) <= at)[:, None, None]
        token = model.table(ids.gather(1, at))
        logits[torch.arange(rows), at[:, 0]] = model(token, TextView(at, seen), CacheView(cache, at, length))[:, 0]
    return logits


def rewrite(folder: Path, **changed: Any) -> None:
    """config.json with other values; None takes a key out."""
    found = json.loads((folder / "config.json").read_text()) | changed
    kept = {key: value for key, value in found.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def retensor(folder: Path, change: Any) -> None:
    """model.safetensors with its dict of tensors changed."""
    file = folder / "model.safetensors"
    save_file(change({name: tensor.clone() for name, tensor in load_file(file).items()}), file)


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    write_language_model(tmp_path, randomised(LanguageModel(LLAMA_CONFIG)))
    return tmp_path


@pytest.fixture
def gpt2_folder(tmp_path: Path) -> Path:
    write_language_model(tmp_path, randomised(LanguageModel(GPT2_CONFIG)))
    return tmp_path


@pytest.mark.parametrize("kind", THEIRS)
def test_a_folder_of_transformers_gives_its_logits(transformers: Any, kind: str, tmp_path: Path) -> None:
    theirs = their_model(transformers, kind)
    theirs.save_pretrained(tmp_path)
    ours = read_language_model(tmp_path)
    wanted = their_logits(theirs)
    assert wanted.std() > 1  # or 1e-4 would be no test
    assert (our_logits(ours) - wanted).abs().max() < 1e-4
    assert (cached_logits(ours, [3, 6, 1]) - wanted).abs().max() < 1e-4
    assert ours.config.end_of_text == 7


@pytest.mark.parametrize("kind", OURS)
def test_transformers_opens_our_folder_with_our_logits(transformers: Any, kind: str, tmp_path: Path) -> None:
    ours = randomised(LanguageModel(OURS[kind]))
    write_language_model(tmp_path, ours)
    theirs, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    assert theirs.config.eos_token_id == 7
    assert theirs.config.tie_word_embeddings == OURS[kind].tied
    wanted = our_logits(ours)
    assert wanted.std() > 1
    assert (their_logits(theirs) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("kind", OURS)
def test_what_is_written_is_read_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    ours = randomised(LanguageModel(OURS[kind]))
    write_language_model(tmp_path, ours)
    again = read_language_model(tmp_path)
    assert again.config.inner == ours.config.inner
    assert torch.equal(our_logits(again), our_logits(ours))
    assert all(weight.requires_grad for weight in again.parameters())


@torch.no_grad()
def test_far_from_the_first_position_the_logits_agree_too(transformers: Any, tmp_path: Path) -> None:
    theirs = their_model(transformers, "llama")
    theirs.save_pretrained(tmp_path)
    ours = read_language_model(tmp_path)
    far = torch.arange(IDS.shape[1]).expand_as(IDS) ** 2 * 100
    wanted = theirs(IDS, position_ids=far).logits
    assert (ours(ours.table(IDS), TextView(far)) - wanted).abs().max() < 1e-4


def test_a_sharded_folder_gives_the_same_model(transformers: Any, tmp_path: Path) -> None:
    theirs = their_model(transformers, "llama")
    theirs.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert (our_logits(read_language_model(tmp_path)) - their_logits(theirs)).abs().max() < 1e-4
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=r"model-0000\d-of"):
        read_language_model(tmp_path)


def test_names_without_a_prefix_and_old_buffers_are_read(gpt2_folder: Path) -> None:
    wanted = our_logits(read_language_model(gpt2_folder))

    def as_the_first_folders(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        buffers = {f"h.{n}.attn.bias": torch.ones(1, 1, 32, 32) for n in range(2)}
        return {name.removeprefix("transformer."): each for name, each in tensors.items()} | buffers

    retensor(gpt2_folder, as_the_first_folders)
    assert torch.equal(our_logits(read_language_model(gpt2_folder)), wanted)


def test_the_rotary_base_is_found_where_older_versions_wrote_it(llama_folder: Path) -> None:
    rewrite(llama_folder, rope_parameters=None, rope_theta=77)
    assert read_config(llama_folder).rotary_base == 77
    rewrite(llama_folder, rope_theta=None)
    assert read_config(llama_folder).rotary_base == 10000
    rewrite(llama_folder, rope_parameters={"rope_type": "default", "rope_theta": 5e5}, rope_theta=77)
    assert read_config(llama_folder).rotary_base == 5e5


def test_of_several_ends_of_text_the_first_is_taken(llama_folder: Path) -> None:
    rewrite(llama_folder, eos_token_id=[9, 7])
    assert read_config(llama_folder).end_of_text == 9


def test_weights_of_half_precision_are_widened(llama_folder: Path) -> None:
    retensor(llama_folder, lambda tensors: {name: each.bfloat16() for name, each in tensors.items()})
    model = read_language_model(llama_folder)
    assert model.table.weight.dtype == torch.float32
    assert torch.equal(model.table.weight, model.table.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 'rope_scaling.rope_type is "llama3"; allowed'),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope_scaling.rope_type is "linear"; allowed'),
        ({"rope_parameters": {"rope_type": "yarn"}}, 'rope_parameters.rope_type is "yarn"; allowed is "default"'),
        ({"attention_bias": True}, "attention_bias is true; allowed is false"),
        ({"mlp_bias": True}, "mlp_bias is true; allowed is false"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu"; allowed is "silu"'),
        ({"head_dim": 16}, "head_dim is 16; allowed is 8"),
        ({"quantization_config": {"bits": 4}}, 'quantization_config is {"bits": 4}; allowed is null'),
        ({"model_type": "mistral"}, 'model_type is "mistral"; allowed is "gpt2" or "llama"'),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"vocab_size": "61"}, "vocabulary is '61'; it should be int"),
        ({"eos_token_id": 61}, "end_of_text is 61, not an id of the table: 0…60"),
        ({"eos_token_id": []}, "end_of_text is []; it should be int"),
    ],
)
def test_a_llama_that_our_blocks_do_not_compute_is_refused(
    llama_folder: Path, changed: dict[str, Any], told: str
) -> None:
    rewrite(llama_folder, **changed)
    with pytest.raises(ValueError, match="config.json: ") as refusal:
        read_language_model(llama_folder)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"activation_function": "relu"},
            'activation_function is "relu"; allowed is "gelu_new" or "gelu_pytorch_tanh"',
        ),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true; allowed is false"),
        ({"scale_attn_weights": False}, "scale_attn_weights is false; allowed is true"),
        ({"add_cross_attention": True}, "add_cross_attention is true; allowed is false"),
    ],
)
def test_a_gpt2_that_our_blocks_do_not_compute_is_refused(
    gpt2_folder: Path, changed: dict[str, Any], told: str
) -> None:
    rewrite(gpt2_folder, **changed)
    with pytest.raises(ValueError, match="config.json: ") as refusal:
        read_language_model(gpt2_folder)
    assert told in str(refusal.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_pickled_weights_are_refused(llama_folder: Path, name: str) -> None:
    (llama_folder / "model.safetensors").rename(llama_folder / name)
    with pytest.raises(ValueError, match=rf"pickled \({name}\).*convert them to model.safetensors"):
        read_language_model(llama_folder)
    (llama_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        read_language_model(llama_folder)


def test_missing_extra_and_misshapen_tensors_are_named_together(llama_folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors["model.layers.1.self_attn.rotary.secret"] = tensors.pop("model.norm.weight")
        tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(128, 31)
        del tensors["model.layers.0.self_attn.k_proj.weight"]
        return tensors

    retensor(llama_folder, spoil)
    with pytest.raises(ValueError, match="the tensors are not those") as refusal:
        read_language_model(llama_folder)
    for told in (
        "model.norm.weight is missing",
        "model.layers.0.self_attn.k_proj.weight is missing",
        "model.layers.1.self_attn.rotary.secret is extra",
        "model.layers.0.mlp.up_proj.weight is [128, 31] and should be [128, 32]",
    ):
        assert told in str(refusal.value)
    assert str(refusal.value).count(";") == 3


def test_a_head_beside_a_tied_table_must_equal_it(gpt2_folder: Path) -> None:
    table = "transformer.wte.weight"
    retensor(gpt2_folder, lambda tensors: tensors | {"lm_head.weight": tensors[table].clone()})
    read_language_model(gpt2_folder)
    retensor(gpt2_folder, lambda tensors: tensors | {"lm_head.weight": tensors[table] + 1})
    with pytest.raises(ValueError, match=r"lm_head\.weight differs.*set tie_word_embeddings to false"):
        read_language_model(gpt2_folder)


def test_a_cut_file_is_named(llama_folder: Path) -> None:
    file = llama_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors file"):
        read_language_model(llama_folder)


def test_a_write_that_fails_leaves_the_folder_as_it_was(llama_folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in llama_folder.iterdir()}
    with torch.device("meta"):
        without_weights = LanguageModel(OURS["llama tied"])
    with pytest.raises((RuntimeError, NotImplementedError)):
        write_language_model(llama_folder, without_weights)
    assert {path.name: path.read_bytes() for path in llama_folder.iterdir()} == before


def test_grouped_heads_are_not_written_as_gpt2(tmp_path: Path) -> None:
    config = replace(GPT2_CONFIG, key_value_heads=2)
    with pytest.raises(ValueError, match="key_value_heads is 2; allowed in a GPT-2 folder is 4"):
        write_language_model(tmp_path, LanguageModel(config))


def test_model_and_tokenizer_are_written_to_one_folder_if_they_fit(transformers: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a red cat", "a red dog"], 300)
    last = tokenizer.end_of_text
    fields: dict[str, Any] = {"family": "llama", "positions": 8, "layers": 1, "width": 8, "heads": 2}
    model = LanguageModel(LanguageModelConfig(vocabulary=last + 1, end_of_text=last, **fields))
    write_language_model(tmp_path, model, tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("a red cat").input_ids == Tokenizer.read(tmp_path).encode("a red cat")
    assert theirs.eos_token_id == read_config(tmp_path).end_of_text == last
    small = LanguageModel(LanguageModelConfig(vocabulary=last, end_of_text=0, **fields))
    with pytest.raises(ValueError, match=f"ids 0…{last}, the language model vocabulary = {last}"):
        write_language_model(tmp_path / "new", small, tokenizer)
    assert not (tmp_path / "new").exists()


def test_a_real_folder_gives_the_logits_of_transformers(transformers: Any) -> None:
    folder = os.environ.get("REVILM_LANGUAGE_MODEL")
    if not folder:
        pytest.skip("no language model at hand (set REVILM_LANGUAGE_MODEL to a Hugging Face folder)")
    tokenizer, ours = Tokenizer.read(folder), read_language_model(folder)
    check_fits(tokenizer, ours.config)
    ids = torch.tensor([tokenizer.encode("Two dogs play with a red ball on the beach.")])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert (our_logits(ours, ids) - their_logits(theirs, ids)).abs().max() < 1e-4
