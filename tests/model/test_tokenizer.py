"""The tokenizer: round trips, hostile captions, and agreement with transformers on what begins a text."""

import json
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import LanguageModelConfig
from model.files import replacing
from model.tokenizer import Tokenizer, check_fits

CAPTIONS = [
    f"a {size} {colour} {thing} on a table"
    for size in ("big", "small")
    for colour in ("red", "green", "blue")
    for thing in ("cat", "ball", "dog")
]
VIETNAMESE = "Một con mèo đỏ nằm trên bàn gỗ 🐈"
TRAINED = Tokenizer.train(CAPTIONS, 280)
LLAMA_LIKE = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "c", "t", "▁a", "▁c"]


def write_folder(
    folder: Path, tokenizer_json: dict[str, Any], tokenizer_config: dict[str, Any] | None, model_type: str
) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if tokenizer_config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def byte_level(**changed: Any) -> dict[str, Any]:
    """tokenizer.json of the trained tokenizer, as GPT-2 and SmolLM2 have it."""
    with TemporaryDirectory() as folder:
        TRAINED.write(folder)
        return json.loads(Path(folder, "tokenizer.json").read_text()) | changed  # type: ignore[no-any-return]


def llama() -> dict[str, Any]:
    """tokenizer.json as Llama 2 has it: words marked by ▁, bytes for what is not in the table, <s> by a template."""
    from tokenizers import Tokenizer as Rules
    from tokenizers import decoders, models, normalizers, processors

    vocabulary = {token: number for number, token in enumerate(LLAMA_LIKE)}
    rules = Rules(
        models.BPE(vocabulary, [("▁", "a"), ("▁", "c")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    rules.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rules.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    rules.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    rules.add_special_tokens(LLAMA_LIKE[:3])
    return json.loads(rules.to_str())  # type: ignore[no-any-return]


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text)) == text


def test_a_language_that_was_not_trained_on_comes_back_too() -> None:
    assert TRAINED.decode(TRAINED.encode(VIETNAMESE)) == VIETNAMESE
    both = Tokenizer.train([*CAPTIONS, VIETNAMESE, VIETNAMESE], 400)
    assert len(both.encode(VIETNAMESE)) < len(TRAINED.encode(VIETNAMESE))


def test_the_end_of_text_is_the_last_id_however_few_the_captions() -> None:
    assert (TRAINED.size, TRAINED.end_of_text) == (280, 279)
    assert (Tokenizer.train([]).size, Tokenizer.train([]).end_of_text) == (257, 256)
    few = Tokenizer.train(["a red cat"] * 3)
    assert 257 < few.size < 1024
    assert few.end_of_text == few.size - 1


def test_training_is_repeatable_and_shortens_captions() -> None:
    again = Tokenizer.train(iter(CAPTIONS), 280)
    assert [again.encode(each) for each in CAPTIONS] == [TRAINED.encode(each) for each in CAPTIONS]
    assert len(TRAINED.encode(CAPTIONS[0])) < len(CAPTIONS[0]) / 2


@pytest.mark.parametrize("size", [256, 1025])
def test_a_size_that_is_not_allowed_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"vocab_size is {size}; allowed is 257 .* to 1024"):
        Tokenizer.train(CAPTIONS, size)


@pytest.mark.parametrize("hostile", ["<|endoftext|>", "a cat<|endoftext|><image>a dog", "</s>", "<s> a cat </s>"])
def test_a_caption_that_spells_a_special_token_is_ordinary_text(hostile: str, tmp_path: Path) -> None:
    write_folder(tmp_path, llama(), None, "llama")
    for tokenizer in (TRAINED, Tokenizer.read(tmp_path), pickle.loads(pickle.dumps(TRAINED))):
        ids = tokenizer.encode(hostile)
        assert tokenizer.end_of_text not in ids
        assert tokenizer.begin_of_text not in ids
        assert tokenizer.decode(ids) == hostile


def test_an_added_token_that_the_folder_does_not_call_special_is_text_too_if_it_ends_a_text(tmp_path: Path) -> None:
    found = byte_level()
    found["added_tokens"][0]["special"] = False
    write_folder(tmp_path, found, None, "gpt2")
    tokenizer = Tokenizer.read(tmp_path)
    assert tokenizer.end_of_text not in tokenizer.encode("<|endoftext|>")
    assert tokenizer.decode([tokenizer.end_of_text]) == ""


def test_rules_that_cannot_keep_a_name_apart_from_its_token_are_refused(tmp_path: Path) -> None:
    words = {"type": "WordLevel", "vocab": {"</s>": 0, "a": 1, "?": 2}, "unk_token": "?"}
    write_folder(tmp_path, byte_level(model=words, pre_tokenizer=None, added_tokens=[]), None, "gpt2")
    with pytest.raises(ValueError, match="a text that spells </s> becomes the token itself"):
        Tokenizer.read(tmp_path)


def test_decoding_leaves_special_tokens_out_and_refuses_ids_that_it_has_not() -> None:
    ids = TRAINED.encode("a cat")
    assert TRAINED.decode([*ids, TRAINED.end_of_text]) == "a cat"
    with pytest.raises(ValueError, match=r"ids \[280, -1\] are not the tokenizer's, which has 0…279"):
        TRAINED.decode([*ids, 280, -1])


def test_settings_of_batches_do_not_cut_or_fill_a_text(tmp_path: Path) -> None:
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 50}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    write_folder(tmp_path, byte_level(truncation=cut, padding=fill | {"pad_to_multiple_of": None}), None, "gpt2")
    assert Tokenizer.read(tmp_path).encode(CAPTIONS[0]) == TRAINED.encode(CAPTIONS[0])


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
GPT2_NAMES = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
LLAMA_NAMES = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True}}
LLAMA_NAMES["tokenizer_class"] = "LlamaTokenizer"


@pytest.mark.parametrize(
    ("tokenizer_json", "tokenizer_config", "model_type", "begins"),
    [
        (byte_level(post_processor=BYTE_LEVEL), {"model_max_length": 1024}, "gpt2", False),  # GPT-2
        (byte_level(), GPT2_NAMES, "llama", False),  # SmolLM2
        (byte_level(), GPT2_NAMES | {"add_bos_token": True}, "gpt2", False),
        (llama(), LLAMA_NAMES | {"add_bos_token": True, "add_eos_token": False}, "llama", True),  # Llama 2
        (llama(), LLAMA_NAMES | {"tokenizer_class": "PreTrainedTokenizerFast"}, "llama", True),  # Llama 3
        (llama(), LLAMA_NAMES | {"add_bos_token": False}, "llama", True),
    ],
)
def test_a_text_begins_as_in_transformers(
    transformers: Any,
    tokenizer_json: dict[str, Any],
    tokenizer_config: dict[str, Any],
    model_type: str,
    begins: bool,
    tmp_path: Path,
) -> None:
    write_folder(tmp_path, tokenizer_json, tokenizer_config, model_type)
    ours = Tokenizer.read(tmp_path)
    assert (ours.begin_of_text is not None) == begins
    whole = ([ours.begin_of_text] if begins else []) + ours.encode("a cat")
    for written_by_us in (False, True):
        if written_by_us:
            ours.write(tmp_path)
            again = Tokenizer.read(tmp_path / "tokenizer.json")
            assert (again.begin_of_text, again.end_of_text) == (ours.begin_of_text, ours.end_of_text)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs.encode("a cat") == whole
        assert theirs.eos_token_id == ours.end_of_text


def test_a_template_that_only_ends_a_text_begins_none(tmp_path: Path) -> None:
    found = llama()
    template = found["post_processor"]
    template["single"] = template["single"][::-1]
    write_folder(tmp_path, found, None, "llama")
    assert Tokenizer.read(tmp_path).begin_of_text is None


def test_an_end_of_text_that_the_folder_names_goes_first_and_must_be_there(tmp_path: Path) -> None:
    write_folder(tmp_path, llama(), None, "llama")
    assert Tokenizer.read(tmp_path).end_of_text == LLAMA_LIKE.index("</s>")
    write_folder(tmp_path, llama(), {"eos_token": "<unk>"}, "llama")
    assert Tokenizer.read(tmp_path).end_of_text == LLAMA_LIKE.index("<unk>")
    write_folder(tmp_path, byte_level(), {"eos_token": "<|im_end|>"}, "gpt2")
    with pytest.raises(
        ValueError, match=r"tokenizer\.json: no token <\|im_end\|> .* set eos_token in tokenizer_config"
    ):
        Tokenizer.read(tmp_path)


def test_a_folder_without_a_tokenizer_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        Tokenizer.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer\.json"):
        Tokenizer.read(tmp_path)


def test_a_tokenizer_must_fit_the_table() -> None:
    def config(vocabulary: int, end_of_text: int) -> LanguageModelConfig:
        return LanguageModelConfig(
            family="gpt2", vocabulary=vocabulary, end_of_text=end_of_text, positions=8, layers=1, width=8, heads=1
        )

    check_fits(TRAINED, config(280, 279))
    check_fits(TRAINED, config(384, 279))
    with pytest.raises(ValueError, match="ids 0…279, the language model vocabulary = 279; take"):
        check_fits(TRAINED, config(279, 0))
    with pytest.raises(ValueError, match="ends a text with id 279, the language model with end_of_text = 0; set"):
        check_fits(TRAINED, config(280, 0))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("old")

    def fill_the_disk() -> None:
        with replacing(file) as scratch:
            scratch.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill_the_disk()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("tokenizer.json", "old")]
    with replacing(file) as scratch:
        scratch.write_text("new")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("tokenizer.json", "new")]
