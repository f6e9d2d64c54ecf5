"""What a model is, in numbers: one frozen record a part, written to config.json and read back.

Symbols: V rows of the subword table, P positions, L layers, D text width, E visual width.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

Config = TypeVar("Config")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{type(config).__name__}.{name} is {value}; allowed is ≥ 1")


def _colours(config: Any, name: str, *, above: float = -math.inf) -> None:
    value = getattr(config, name)
    if len(value) != 3 or not all(above < each < math.inf for each in value):
        allowed = "three numbers" + (f" > {above}" if above > -math.inf else "")
        raise ValueError(f"{type(config).__name__}.{name} is {list(value)}; allowed are {allowed}")


def _one_of(config: Any, name: str) -> None:
    value, allowed = getattr(config, name), typing.get_args(typing.get_type_hints(type(config))[name])
    if value not in allowed:
        raise ValueError(f"{type(config).__name__}.{name} is {value!r}; allowed are {', '.join(allowed)}")


def _divides(part: str, divisor: int, whole: str, number: int) -> None:
    if divisor < 1 or number % divisor:
        raise ValueError(f"{part} is {divisor}, which does not divide {whole} {number}")


def _spell_default(config: Any, name: str, default: int) -> None:
    """None, so that equal models have equal configurations."""
    if getattr(config, name) == default:
        object.__setattr__(config, name, None)


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """A decoder of the GPT-2 family (LayerNorm, learned positions, GELU, biases) or of the Llama family (RMSNorm,
    rotary positions, SwiGLU, grouped heads, no biases)."""

    family: Literal["gpt2", "llama"]
    vocabulary: int  # V
    end_of_text: int  # id of the family's end-of-text token
    positions: int  # P
    layers: int  # L
    width: int  # D
    heads: int
    key_value_heads: int | None = None  # None: as many as heads
    feed_forward: int | None = None  # inner width; None: 4 D
    norm_epsilon: float = 1e-5
    rotary_base: float = 10000.0  # llama only
    tied: bool = True  # the head's weight is the subword table

    def __post_init__(self) -> None:
        _one_of(self, "family")
        _positive(self, "vocabulary", "positions", "layers", "width", "heads", "key_value_heads", "feed_forward")
        _divides("heads", self.heads, "width", self.width)
        _divides("key_value_heads", self.kv_heads, "heads", self.heads)
        _spell_default(self, "key_value_heads", self.heads)
        _spell_default(self, "feed_forward", 4 * self.width)
        if not 0 <= self.end_of_text < self.vocabulary:
            raise ValueError(f"end_of_text is {self.end_of_text}, not an id of the table: 0…{self.vocabulary - 1}")
        if self.family == "llama" and self.head_width % 2:
            raise ValueError(f"head width {self.head_width} is odd; rotary positions turn pairs of channels")

    @property
    def kv_heads(self) -> int:
        return self.key_value_heads or self.heads

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def inner(self) -> int:
        return self.feed_forward or 4 * self.width


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """A CLIP vision transformer as open_clip's model_configs describe it, without the projection to the joint space."""

    image_size: int  # px, height and width
    patch_size: int  # px
    width: int  # E
    layers: int
    heads: int
    feed_forward: int | None = None  # None: 4 E
    quick_gelu: bool = False  # OpenAI's weights were trained with x·σ(1.702 x)
    # Of red, green and blue (0…1) in what the weights were trained on. The defaults are OpenAI's, and most others'.
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        _positive(self, "image_size", "patch_size", "width", "layers", "heads", "feed_forward")
        _colours(self, "mean")
        _colours(self, "std", above=0)
        _divides("heads", self.heads, "width", self.width)
        check_image_size(self.image_size, self.patch_size)
        _spell_default(self, "feed_forward", 4 * self.width)

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def inner(self) -> int:
        return self.feed_forward or 4 * self.width


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig:
    """Perceiver resampler (Flamingo fig. 5)."""

    layers: int = 6
    latents: int = 64
    frames: int = 8  # learned time embeddings; a longer video interpolates between them
    inner: int | None = None  # width of queries, keys and values; None: E
    head_width: int = 64

    def __post_init__(self) -> None:
        _positive(self, "layers", "latents", "frames", "inner", "head_width")


@dataclass(frozen=True, kw_only=True)
class GatedCrossAttentionConfig:
    """Gated cross-attention dense layers (Flamingo fig. 4), one before every `every`-th layer of the decoder."""

    every: int = 1
    inner: int | None = None  # width of queries, keys and values; None: D
    head_width: int = 64

    def __post_init__(self) -> None:
        _positive(self, "every", "inner", "head_width")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """All that a picture passes on its way into the text."""

    encoder: ImageEncoderConfig
    resampler: ResamplerConfig = ResamplerConfig()
    gated: GatedCrossAttentionConfig = GatedCrossAttentionConfig()

    def __post_init__(self) -> None:
        inner = self.resampler.inner or self.encoder.width
        _divides("resampler.head_width", self.resampler.head_width, "resampler.inner", inner)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """How the captions of neighbours reach the text.

    none    not at all: Flamingo.
    cross   a bidirectional encoder and cross-attention in the RETRO layers: Re-ViLM §3.4.
    prefix  as text in front of the picture: RA-CM3's way, Re-ViLM §5.5.2.
    """

    mode: Literal["none", "cross", "prefix"] = "none"
    layers: tuple[int, ...] = ()  # RETRO layers of the decoder, 1-based (cross)
    encoder_layers: int = 2  # (cross)
    neighbors: int = 2  # k at most, nearest first (Re-ViLM §5.1)
    caption_tokens: int = 64  # m: a caption and the end-of-text (prefix: <|neighbor|>) after it
    neighbor_token_dropout: float = 0.0  # training only; our reading of RA-CM3's query dropout
    prefix_loss: float = 0.0  # weight of the loss on the retrieved captions (prefix; RA-CM3)

    def __post_init__(self) -> None:
        _one_of(self, "mode")
        _positive(self, "encoder_layers", "neighbors", "caption_tokens")
        if (self.mode == "cross") != bool(self.layers):
            raise ValueError(f"retrieval.layers is {list(self.layers)} in mode {self.mode}; only cross has layers, ≥ 1")
        if list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"retrieval.layers is {list(self.layers)}; allowed are distinct layers in ascending order")
        if not 0 <= self.neighbor_token_dropout < 1:
            raise ValueError(f"neighbor_token_dropout is {self.neighbor_token_dropout}; allowed is 0 ≤ p < 1")
        if self.prefix_loss < 0 or (self.prefix_loss and self.mode != "prefix"):
            raise ValueError(f"prefix_loss is {self.prefix_loss} in mode {self.mode}; allowed is ≥ 0, in prefix only")


@dataclass(frozen=True, kw_only=True)
class ReViLMConfig:
    """The whole model. Without vision it is a RETRO (or a bare language model): what retrofit trains."""

    language_model: LanguageModelConfig
    vision: VisionConfig | None = None
    retrieval: RetrievalConfig = RetrievalConfig()

    def __post_init__(self) -> None:
        text, vision, retrieval = self.language_model, self.vision, self.retrieval
        if retrieval.layers and not 1 <= retrieval.layers[0] <= retrieval.layers[-1] <= text.layers:
            raise ValueError(f"retrieval.layers is {list(retrieval.layers)}; the decoder has layers 1…{text.layers}")
        if retrieval.mode == "cross" and retrieval.encoder_layers > text.layers:
            raise ValueError(
                f"retrieval.encoder_layers is {retrieval.encoder_layers}; they start as copies of the decoder's first, "
                f"which has {text.layers}"
            )
        if retrieval.mode == "prefix" and vision is None:
            raise ValueError("retrieval.mode is prefix without vision; its separator lies in the table of image tokens")
        evidence = retrieval.neighbors * retrieval.caption_tokens
        if retrieval.mode != "none" and evidence > text.positions:
            raise ValueError(
                f"retrieval.neighbors × caption_tokens = {retrieval.neighbors} × {retrieval.caption_tokens} = "
                f"{evidence} positions; the language model has {text.positions}"
            )
        if vision is not None:
            inner = vision.gated.inner or text.width
            _divides("gated.head_width", vision.gated.head_width, "gated.inner", inner)
            if vision.gated.every > text.layers:
                raise ValueError(f"gated.every is {vision.gated.every}; the decoder has layers 1…{text.layers}")

    @property
    def gated_layers(self) -> tuple[int, ...]:
        """Layers of the decoder (1-based) that a gated layer precedes."""
        if self.vision is None:
            return ()
        return tuple(range(self.vision.gated.every, self.language_model.layers + 1, self.vision.gated.every))

    # Ids after the subword table, held by the special-token table: the frozen table stays as it was loaded.
    @property
    def image_id(self) -> int:
        return self.language_model.vocabulary

    @property
    def end_of_chunk_id(self) -> int:
        return self.language_model.vocabulary + 1

    @property
    def pad_id(self) -> int:
        return self.language_model.vocabulary + 2

    @property
    def neighbor_id(self) -> int:
        return self.language_model.vocabulary + 3


SPECIAL_TOKENS = ("<image>", "<|endofchunk|>", "<|pad|>", "<|neighbor|>")
"""In the order of their ids V…V+3."""


def check_image_size(image_size: int, patch_size: int) -> None:
    """Raises ValueError, naming the two nearest sizes that are a multiple of the patch."""
    if image_size % patch_size:
        below = image_size // patch_size * patch_size
        allowed = f"{below} or {below + patch_size}" if below else f"{patch_size}"
        raise ValueError(f"image size {image_size} px is no multiple of the patch of {patch_size} px; take {allowed}")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists and numbers, for JSON."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], found: Any, where: str = "config") -> Config:
    """Raises ValueError for a key that is unknown or missing, naming it, and for a value that is not allowed."""
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {found!r}; it should be a section")
    types_of = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in found:
        if key not in fields:
            near = get_close_matches(key, fields, n=1)
            raise ValueError(
                f"{where}.{key} is not a setting{f'; did you mean {near[0]}?' if near else ''} "
                f"({where} has {', '.join(fields)})"
            )
    values = {}
    for name, field in fields.items():
        if name in found:
            values[name] = _read(types_of[name], found[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where}.{name} is missing")
    return kind(**values)


_PLURALS = {int: "integers", float: "numbers"}


def _read(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) is types.UnionType:
        if value is None:
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)  # type: ignore[arg-type]
    if typing.get_origin(kind) is Literal:
        return value
    if typing.get_origin(kind) is tuple:
        of = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple) or not all(type(each) in (int, of) for each in value):
            raise ValueError(f"{where} is {value!r}; it should be a list of {_PLURALS[of]}")
        return tuple(map(of, value))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}; it should be {kind.__name__}")
    return value
