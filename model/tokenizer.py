"""Text to ids and back: a tokenizer.json of the Hugging Face tokenizers, read from a folder or trained on captions.

Shapes: V rows of the language model's subword table; ids are plain lists of integers.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import LanguageModelConfig
from model.files import read_json, replacing

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
SMALLEST, LARGEST = 257, 1024
"""Sizes that can be trained: every byte and the end-of-text, up to what a small table holds."""


class Tokenizer:
    """A tokenizer.json with the ids that begin and end a text.

    end_of_text    id of the token that ends a text
    begin_of_text  id of the token that the folder's own tokenizer puts before every text, or None where it puts none
    size           largest id + 1
    """

    def __init__(self, rules: "tokenizers.Tokenizer", end_of_text: str, begin_of_text: str | None = None) -> None:
        self._rules = rules
        self._names = (end_of_text, begin_of_text)
        rules.add_special_tokens([name for name in self._names if name])
        rules.encode_special_tokens = True  # as ordinary text, that is
        rules.no_truncation()
        rules.no_padding()
        ids = rules.get_vocab()
        self.end_of_text = ids[end_of_text]
        self.begin_of_text = ids[begin_of_text] if begin_of_text else None
        self.size = max(ids.values()) + 1

    @classmethod
    def read(cls, path: str | Path) -> "Tokenizer":
        """A folder with tokenizer.json, or that file. tokenizer_config.json beside it, if any, names the token that
        ends a text; else it is <|endoftext|> or </s>.

        Raises FileNotFoundError, and ValueError where no token is known to end a text, or where the rules take the
        name of a token that begins or ends a text for the token.
        """
        file = Path(path, "tokenizer.json") if Path(path).is_dir() else Path(path)
        rules = _read_rules(file)
        settings_file = file.with_name("tokenizer_config.json")
        settings = read_json(settings_file) if settings_file.is_file() else {}
        try:
            tokenizer = cls(rules, _end_of_text(rules, settings), _begin_of_text(rules))
            tokenizer._check_names_are_text()
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return tokenizer

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int = LARGEST) -> "Tokenizer":
        """Byte-level BPE; the same captions give the same ids. Few captions give fewer than `vocab_size` ids: the last
        one is the end-of-text in any case.

        Raises ValueError for a size outside 257…1,024.
        """
        if not SMALLEST <= vocab_size <= LARGEST:
            raise ValueError(
                f"vocab_size is {vocab_size}; allowed is {SMALLEST} (256 bytes and {END_OF_TEXT}) to {LARGEST}"
            )
        from tokenizers import Tokenizer as Rules
        from tokenizers import decoders, models, pre_tokenizers, trainers

        rules = Rules(models.BPE())
        rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rules.decoder = decoders.ByteLevel()
        # The trainer would put special tokens first; the end-of-text comes last, after what was found.
        bytes_ = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=bytes_, show_progress=False)
        rules.train_from_iterator(captions, trainer)
        return cls(rules, END_OF_TEXT)

    def write(self, folder: str | Path) -> None:
        """tokenizer.json, and tokenizer_config.json with the tokens that begin and end a text."""
        end_of_text, begin_of_text = self._names
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end_of_text,
            "bos_token": begin_of_text,
        }
        with replacing(Path(folder, "tokenizer.json")) as scratch:
            scratch.write_text(self._rules.to_str(), encoding="utf-8")
        with replacing(Path(folder, "tokenizer_config.json")) as scratch:
            scratch.write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """No token is put before or after, and a text that spells the name of a special token is only text."""
        return self._rules.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out. Raises ValueError for ids that are not the tokenizer's."""
        foreign = [each for each in ids if not 0 <= each < self.size]
        if foreign:
            raise ValueError(f"ids {foreign} are not the tokenizer's, which has 0…{self.size - 1}")
        return self._rules.decode(list(ids), skip_special_tokens=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # The rules alone forget in a pickle that special tokens are to be read as text.
        return Tokenizer, (self._rules, *self._names)

    def _check_names_are_text(self) -> None:
        for name in filter(None, self._names):
            if self._rules.token_to_id(name) in self.encode(name):
                raise ValueError(
                    f"a text that spells {name} becomes the token itself, so that a caption could end a text; allowed "
                    "are rules that spell it out, as the byte-level and byte-fallback BPE of GPT-2 and Llama do"
                )


def check_fits(tokenizer: Tokenizer, config: LanguageModelConfig) -> None:
    """Raises ValueError where an id has no row of the table, or where the two end a text with different ids. Rows
    without an id are fine: tables are padded."""
    if tokenizer.size > config.vocabulary:
        raise ValueError(
            f"the tokenizer has ids 0…{tokenizer.size - 1}, the language model vocabulary = {config.vocabulary}; take "
            f"the tokenizer that the model was trained with, or for a new model set vocabulary to {tokenizer.size}"
        )
    if tokenizer.end_of_text != config.end_of_text:
        raise ValueError(
            f"the tokenizer ends a text with id {tokenizer.end_of_text}, the language model with end_of_text = "
            f"{config.end_of_text}; set eos_token in tokenizer_config.json, or end_of_text (a Hugging Face folder: "
            "eos_token_id) in config.json, to the one that the model was trained with"
        )


def _read_rules(file: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer as Rules

    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; AutoTokenizer's save_pretrained (transformers) writes it")
    try:
        return Rules.from_file(str(file))
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"{file} is no tokenizer.json: {error}") from error


def _end_of_text(rules: "tokenizers.Tokenizer", settings: dict[str, Any]) -> str:
    named = _token(settings, "eos_token")
    names = [named] if named else [END_OF_TEXT, "</s>"]
    for name in names:
        if rules.token_to_id(name) is not None:
            return name
    raise ValueError(f"no token {' or '.join(names)} to end a text with; set eos_token in tokenizer_config.json")


def _begin_of_text(rules: "tokenizers.Tokenizer") -> str | None:
    """By the template in tokenizer.json alone: beside it, transformers 5 does not read add_bos_token."""
    encoded = rules.encode("a")
    return encoded.tokens[0] if encoded.special_tokens_mask[:1] == [1] else None


def _token(settings: dict[str, Any], key: str) -> str | None:
    """A token is named by a string, or by a record with its content."""
    found = settings.get(key)
    return found["content"] if isinstance(found, dict) else found
