"""What is saved comes back bit for bit; what is not whole, or not what it says, is refused by name."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint import from_pretrained, save_pretrained, tensors_digest
from model.config import ReViLMConfig
from model.hugging_face import write_language_model
from model.image_encoder import ImageEncoder
from model.revilm import ReViLM
from model.sequence import Chunk
from model.tokenizer import Tokenizer
from tests.model.small_models import FAMILIES, MODES, Family, Mode, batch_of, logits_of, pair, small_config, small_model

TOKENIZER = Tokenizer.train(["a dog on a beach", "two cats"], 260)


def config_of(
    mode: Mode = "cross", family: Family = "gpt2", *, tied: bool | None = None, vision: bool = True
) -> ReViLMConfig:
    return small_config(family, mode, tied=tied, vision=vision, vocabulary=TOKENIZER.size)


def logits_for(model: ReViLM, chunk: Chunk) -> Tensor:
    return logits_of(model, batch_of(model.config, [[[chunk]]]))


def assert_same_weights(found: ReViLM, due: ReViLM) -> None:
    theirs, ours = found.state_dict(), due.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) and theirs[name].dtype == ours[name].dtype for name in ours)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of mode cross, whole."""
    save_pretrained(tmp_path / "saved", small_model(config_of()), TOKENIZER)
    return tmp_path / "saved"


def edit_weights(folder: Path, **changes: Tensor | None) -> None:
    """By name, with __ for a dot; None takes a tensor away."""
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        tensors = {each: value for each, value in tensors.items() if each != name}
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


def edit_config(folder: Path, **changes: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | changes))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_comes_back_bit_for_bit(tmp_path: Path, mode: Mode, family: Family, tied: bool) -> None:
    model = small_model(config_of(mode, family, tied=tied))
    save_pretrained(tmp_path, model, TOKENIZER)
    found = from_pretrained(tmp_path)
    assert found.model.config == model.config
    assert_same_weights(found.model, model)
    assert (found.new_parts, found.unused_parts, found.model.training) == ([], [], False)
    assert found.tokenizer.encode("two dogs") == TOKENIZER.encode("two dogs")
    stored = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == sum(each.numel() for each in model.parameters())
    chunk = pair(1, "a dog", "a cat")
    assert torch.equal(logits_for(found.model, chunk), logits_for(model, chunk))


def test_parts_keep_the_dtype_that_they_have(tmp_path: Path) -> None:
    model = small_model(config_of())
    model.language_model.bfloat16()
    save_pretrained(tmp_path, model, TOKENIZER)
    assert_same_weights(from_pretrained(tmp_path).model, model)


def test_a_model_outlives_the_file_that_it_came_from(saved: Path) -> None:
    model = from_pretrained(saved).model
    before = tensors_digest(model)
    with (saved / "model.safetensors").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(bytes(size))
    assert tensors_digest(model) == before


def test_parts_by_reference_come_back_from_where_they_lie(tmp_path: Path) -> None:
    model = small_model(config_of())
    write_language_model(tmp_path / "gpt2", model.language_model, TOKENIZER)
    encoder = {f"visual.{name}": tensor for name, tensor in model.image_encoder.state_dict().items()}  # type: ignore[union-attr]
    save_file(encoder, tmp_path / "clip.safetensors")
    save_pretrained(tmp_path / "retrofit", model, TOKENIZER)
    places: dict[str, str | Path] = {
        "language_model": tmp_path / "gpt2",
        "image_encoder": tmp_path / "clip.safetensors",
        "text_encoder": tmp_path / "retrofit",
        "retrieval_cross_attention": "../retrofit",  # counts from the checkpoint's folder
    }
    save_pretrained(tmp_path / "saved", model, TOKENIZER, references=places)
    parts = {name.split(".")[0] for name in load_file(tmp_path / "saved" / "model.safetensors")}
    assert parts == {"special_tokens", "resampler", "gated_cross_attention"}
    assert_same_weights(from_pretrained(tmp_path / "saved").model, model)


def test_a_part_that_was_trained_since_cannot_be_saved_by_reference(saved: Path, tmp_path: Path) -> None:
    model = from_pretrained(saved).model
    before = tensors_digest(model.language_model)
    with torch.no_grad():
        next(model.language_model.norm.parameters())[0].add_(1e-6)
    with pytest.raises(ValueError, match="language_model") as error:
        save_pretrained(tmp_path / "next", model, TOKENIZER, references={"language_model": saved})
    for said in (str(saved), before, tensors_digest(model.language_model)):
        assert said in str(error.value)
    assert not (tmp_path / "next").exists()


def test_a_reference_whose_weights_changed_is_refused_with_both_hashes(saved: Path, tmp_path: Path) -> None:
    model = from_pretrained(saved).model
    save_pretrained(tmp_path / "next", model, TOKENIZER, references={"text_encoder": saved})
    edit_weights(saved, text_encoder__blocks__0__attention_norm__bias=torch.zeros(32))
    changed = from_pretrained(saved).model
    with pytest.raises(ValueError, match="text_encoder") as error:
        from_pretrained(tmp_path / "next")
    for part in (model.text_encoder, changed.text_encoder):
        assert tensors_digest(part) in str(error.value)  # type: ignore[arg-type]
    assert str(saved) in str(error.value)


def test_a_reference_that_is_gone_is_named(saved: Path, tmp_path: Path) -> None:
    save_pretrained(tmp_path / "next", from_pretrained(saved).model, TOKENIZER, references={"text_encoder": saved})
    shutil.move(saved, tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"text_encoder: {saved} is missing"):
        from_pretrained(tmp_path / "next")


def test_a_place_that_does_not_store_the_part_is_refused(saved: Path, tmp_path: Path) -> None:
    model = from_pretrained(saved).model
    save_pretrained(tmp_path / "next", model, TOKENIZER, references={"text_encoder": saved})
    (tmp_path / "empty").mkdir()
    for references, said in (
        ({"text_encoder": tmp_path / "next"}, "refer to the place that stores it"),
        ({"text_encoder": tmp_path / "empty"}, "is no checkpoint"),
        ({"resampler": saved}, "resampler is not a setting"),
        ({"vision": saved}, "references names vision"),
    ):
        with pytest.raises(ValueError, match=said):
            save_pretrained(tmp_path / "third", model, TOKENIZER, references=references)


def test_the_digest_tells_names_dtypes_shapes_and_bytes() -> None:
    def digest(name: str, tensor: Tensor) -> str:
        module = torch.nn.Module()
        module.register_buffer(name, tensor)
        return tensors_digest(module)

    zeros = torch.zeros(2, 3)
    others = [digest("b", zeros), digest("a", zeros.view(3, 2)), digest("a", zeros.int()), digest("a", -zeros)]
    assert len({digest("a", zeros), *others}) == 5
    assert digest("a", torch.zeros(3, 2).T) == digest("a", zeros)


@pytest.mark.parametrize("family", FAMILIES)
def test_retrofit_goes_on_as_pretrain_with_the_same_logits(tmp_path: Path, family: Family) -> None:
    retro = small_model(config_of(family=family, vision=False))
    save_pretrained(tmp_path, retro, TOKENIZER)
    found = from_pretrained(tmp_path, config_of(family=family))
    assert found.new_parts == ["special_tokens", "image_encoder", "resampler", "gated_cross_attention"]
    for chunk in (Chunk(text="a dog", neighbors=["a cat on a beach", "dogs"]), Chunk(text="two cats")):
        assert torch.equal(logits_for(found.model, chunk)[..., : TOKENIZER.size], logits_for(retro, chunk))
    rows, language_model = found.model.special_tokens, retro.language_model
    assert rows is not None
    assert torch.equal(rows.table, language_model.table.weight[[TOKENIZER.end_of_text] * 4])


def test_another_mode_takes_what_both_have_and_begins_the_rest_anew(tmp_path: Path) -> None:
    flamingo = small_model(config_of("none"))
    save_pretrained(tmp_path / "none", flamingo, TOKENIZER)
    found = from_pretrained(tmp_path / "none", config_of("cross"))
    assert found.new_parts == ["text_encoder", "retrieval_cross_attention"]
    chunk = pair(1, "a dog", "a cat")
    assert torch.equal(logits_for(found.model, chunk), logits_for(flamingo, chunk))
    assert found.model.text_encoder is not None
    first, copy = flamingo.language_model.blocks[0], found.model.text_encoder.blocks[0]
    assert tensors_digest(copy) == tensors_digest(first)
    save_pretrained(tmp_path / "cross", found.model, TOKENIZER)
    back = from_pretrained(tmp_path / "cross", config_of("none"))
    assert sorted(back.unused_parts) == ["retrieval_cross_attention", "text_encoder"]
    assert_same_weights(back.model, flamingo)


def test_another_image_size_interpolates_the_positions_and_keeps_the_rest(saved: Path) -> None:
    config = config_of()
    assert config.vision is not None
    larger = replace(config, vision=replace(config.vision, encoder=replace(config.vision.encoder, image_size=32)))
    before, found = from_pretrained(saved).model, from_pretrained(saved, larger).model
    name = "image_encoder.positional_embedding"
    assert found.state_dict()[name].shape == (17, 16)
    kept = {each: tensor for each, tensor in before.state_dict().items() if each != name}
    assert all(torch.equal(found.state_dict()[each], tensor) for each, tensor in kept.items())
    chunk = Chunk(image=torch.ones(1, 3, 32, 32), text="a dog", neighbors=["a cat"])
    assert logits_for(found, chunk).isfinite().all()


def test_missing_extra_and_misshapen_tensors_are_all_named(saved: Path) -> None:
    edit_weights(
        saved,
        language_model__norm__weight=None,
        resampler__latents=torch.zeros(5, 16),
        resampler__more=torch.zeros(1),
        other__weight=torch.zeros(1),
    )
    with pytest.raises(ValueError, match="model.safetensors") as error:
        from_pretrained(saved)
    for said in (
        "language_model.norm.weight is missing",
        "resampler.latents is [5, 16] and should be [4, 16]",
        "resampler.more is extra",
        "other.weight is extra",
    ):
        assert said in str(error.value)


def test_a_configuration_that_does_not_fit_a_part_that_both_have_is_refused(saved: Path) -> None:
    config = config_of()
    other = replace(
        config,
        language_model=replace(config.language_model, heads=2, positions=48),
        retrieval=replace(config.retrieval, layers=(1, 3)),
    )
    with pytest.raises(ValueError, match="language_model.heads is 2 and was 4") as error:
        from_pretrained(saved, other)
    for said in (
        "language_model.position_table.weight is [160, 32] and should be [48, 32]",
        "retrieval_cross_attention.1.query.weight is missing",
        "retrieval_cross_attention.2.query.weight is extra",
    ):
        assert said in str(error.value)


def test_pickled_weights_are_refused_by_name(saved: Path) -> None:
    for name in ("model.bin", "pytorch_model.bin", "model.pt", "model.pth"):
        (saved / name).write_bytes(b"")
        with pytest.raises(ValueError, match=re.escape(str(saved / name))):
            from_pretrained(saved)
        (saved / name).unlink()
    (saved / "model.safetensors").rename(saved / "model.pt")
    with pytest.raises(ValueError, match="allowed is model.safetensors alone"):
        from_pretrained(saved)


def test_a_part_of_another_shape_than_the_configuration_is_not_saved(tmp_path: Path) -> None:
    model = small_model(config_of())
    assert model.image_encoder is not None
    model.image_encoder = ImageEncoder(replace(model.image_encoder.config, image_size=32))
    with pytest.raises(
        ValueError, match=re.escape("image_encoder.positional_embedding is [17, 16] and should be [5, 16]")
    ):
        save_pretrained(tmp_path / "saved", model, TOKENIZER)


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    state = torch.random.get_rng_state()
    from_pretrained(saved)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_file_that_was_cut_off_is_named(saved: Path) -> None:
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{path} cannot be read, perhaps it was cut off"):
            from_pretrained(saved)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} is missing"):
        from_pretrained(saved)


def test_a_config_of_another_format_or_with_an_unknown_setting_is_refused(saved: Path) -> None:
    edit_config(saved, remote_code="model.py")
    with pytest.raises(ValueError, match=r"config.json.remote_code is not a setting"):
        from_pretrained(saved)
    edit_config(saved, format_version=2)
    with pytest.raises(ValueError, match="format_version is 2; allowed is 1"):
        from_pretrained(saved)
    (saved / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="format_version is None"):
        from_pretrained(saved)


def test_a_tokenizer_that_does_not_fit_the_table_is_refused(saved: Path, tmp_path: Path) -> None:
    larger = Tokenizer.train(["a dog on a beach", "two cats"], 262)
    with pytest.raises(ValueError, match="the tokenizer has ids 0…261"):
        save_pretrained(tmp_path / "other", small_model(config_of()), larger)
    larger.write(saved)
    with pytest.raises(ValueError, match="the tokenizer has ids 0…261"):
        from_pretrained(saved)


@pytest.mark.parametrize("obstacle", ["model.safetensors", "tokenizer.json", "config.json.tmp"])
def test_a_write_that_fails_leaves_no_checkpoint_and_can_be_done_again(tmp_path: Path, obstacle: str) -> None:
    model = small_model(config_of("none"))
    (tmp_path / obstacle / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=obstacle):
        save_pretrained(tmp_path, model, TOKENIZER)
    with pytest.raises(FileNotFoundError, match="its writing was cut off"):
        from_pretrained(tmp_path)
    shutil.rmtree(tmp_path / obstacle)
    save_pretrained(tmp_path, model, TOKENIZER)
    assert_same_weights(from_pretrained(tmp_path).model, model)


def test_a_checkpoint_is_not_written_over(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="take another folder, or remove this one"):
        save_pretrained(saved, small_model(config_of(), seed=1), TOKENIZER)
    assert (saved / "model.safetensors").read_bytes() == before
