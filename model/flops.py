"""The arithmetic that a training step needs, by part: what the speed of a machine is measured against.

Counted are the matrix products over what is useful, a multiplication and its addition as two operations: no padding,
of causal attention the half that is looked at, nothing that is computed a second time. Norms, biases, activations and
look-ups are left out.

Symbols: D text width, E visual width, S patches of a frame, R latents, V rows of the subword table.
"""

from collections.abc import Collection
from dataclasses import dataclass

from model.batch import IGNORED, Batch
from model.config import SPECIAL_TOKENS, LanguageModelConfig, ReViLMConfig, VisionConfig


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much of a batch is useful."""

    tokens: int
    token_pairs: int  # of text positions of which one looks at the other
    targets: int  # positions with a loss
    images: int  # pictures and videos
    frames: int
    encoded_frames: int  # that pass the image encoder: all, or none where patch tokens are given
    image_readers: int  # text positions that look at a picture
    evidence: int  # tokens of neighbours' captions
    evidence_pairs: int  # of such tokens of one set
    evidence_readers: int  # text positions that look at a set of neighbours
    evidence_reads: int  # pairs of such a position and a token of its set

    @classmethod
    def of(cls, batch: Batch) -> "Work":
        """Best of a batch in main memory: reading the counts off an accelerator waits for it."""
        real = batch.segments > 0
        lengths = batch.evidence_mask.sum(1)
        read = batch.evidence_set[batch.evidence_set >= 0]
        return cls(
            tokens=int(real.sum()),
            token_pairs=int((batch.positions[real] + 1).sum()),
            targets=int((batch.targets != IGNORED).sum()),
            images=len(batch.frames),
            frames=int((batch.frames >= 0).sum()),
            encoded_frames=0 if batch.pixels is None else len(batch.pixels),
            image_readers=int((batch.image >= 0).sum()),
            evidence=int(lengths.sum()),
            evidence_pairs=int((lengths**2).sum()),
            evidence_readers=len(read),
            evidence_reads=int(lengths[read].sum()),
        )


PARTS = (
    "language_model",
    "special_tokens",
    "image_encoder",
    "resampler",
    "gated_cross_attention",
    "text_encoder",
    "retrieval_cross_attention",
)


def training_flops(config: ReViLMConfig, work: Work, *, trained: Collection[str]) -> dict[str, int]:
    """Operations of forward and backward by part: the model's children, and the head with its special tokens.

    trained: the children whose weights get a gradient; none of them: the forward pass alone. A weight costs 2
    operations a token, 2 more where it is trained and 2 more where the gradient goes on to what lies before it.
    Raises ValueError for a child that does not exist.
    """
    unknown = set(trained) - set(PARTS)
    if unknown:
        raise ValueError(f"no part of the model: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    step = _Step(config, work, frozenset(trained))
    parts = {"language_model": step.language_model(), "head": step.head()}
    if config.vision is not None:
        parts["image_encoder"] = step.image_encoder(config.vision)
        parts["resampler"] = step.resampler(config.vision)
        parts["gated_cross_attention"] = step.gated_cross_attention(config.vision)
    if config.retrieval.mode == "cross":
        parts["text_encoder"] = step.text_encoder()
        parts["retrieval_cross_attention"] = step.retrieval_cross_attention()
    return parts


# What a layer of the decoder does, in its order.
_GATED, _SELF_ATTENTION, _RETRIEVAL, _FEED_FORWARD = range(4)


@dataclass(frozen=True)
class _Step:
    config: ReViLMConfig
    work: Work
    trained: frozenset[str]

    def language_model(self) -> int:
        text, work = self.config.language_model, self.work
        attention, feed_forward = _block_weights(text)
        trained = self._any("language_model")
        total = 0
        for layer in range(1, text.layers + 1):
            early, late = self._reached(layer, _SELF_ATTENTION), self._reached(layer, _FEED_FORWARD)
            total += _product(attention, work.tokens, trained=trained, onward=early)
            total += _attention(text.width, work.token_pairs, queries=early, keys=early)
            total += _product(feed_forward, work.tokens, trained=trained, onward=late)
        return total

    def head(self) -> int:
        text, onward = self.config.language_model, bool(self.trained)
        special = len(SPECIAL_TOKENS) * text.width if self.config.vision else 0
        return sum(
            _product(weights, self.work.targets, trained=self._any(part), onward=onward)
            for part, weights in (("language_model", text.vocabulary * text.width), ("special_tokens", special))
        )

    def image_encoder(self, vision: VisionConfig) -> int:
        tower, frames, trained = vision.encoder, self.work.encoded_frames, self._any("image_encoder")
        tokens = tower.grid**2 + 1
        pixels = 3 * tower.patch_size**2
        block = 4 * tower.width**2 + 2 * tower.width * tower.inner
        return (
            _product(pixels * tower.width, frames * tower.grid**2, trained=trained, onward=False)
            + _product(tower.layers * block, frames * tokens, trained=trained, onward=trained)
            + _attention(tower.layers * tower.width, frames * tokens**2, queries=trained, keys=trained)
        )

    def resampler(self, vision: VisionConfig) -> int:
        width, latents = vision.encoder.width, self.work.images * vision.resampler.latents
        inner = vision.resampler.inner or width
        keys = self.work.frames * vision.encoder.grid**2 + latents
        trained, onward = self._any("resampler"), self._any("resampler", "image_encoder")
        layer = (
            _product(2 * width * inner, keys, trained=trained, onward=onward)
            + _product(2 * width * inner + 8 * width**2, latents, trained=trained, onward=onward)
            + _attention(inner, keys * vision.resampler.latents, queries=onward, keys=onward)
        )
        return vision.resampler.layers * layer

    def gated_cross_attention(self, vision: VisionConfig) -> int:
        width, work = self.config.language_model.width, self.work
        inner, latents = vision.gated.inner or width, vision.resampler.latents
        trained, seen = self._any("gated_cross_attention"), self._any("resampler", "image_encoder")
        total = 0
        for layer in self.config.gated_layers:
            text = self._reached(layer, _GATED)
            total += _product(2 * vision.encoder.width * inner, work.images * latents, trained=trained, onward=seen)
            total += _product(2 * width * inner, work.image_readers, trained=trained, onward=text)
            total += _attention(inner, work.image_readers * latents, queries=text, keys=trained or seen)
            total += _product(8 * width**2, work.tokens, trained=trained, onward=text)
        return total

    def text_encoder(self) -> int:
        text, work = self.config.language_model, self.work
        trained, onward = self._any("text_encoder"), self._any("text_encoder", "language_model")
        layer = _product(sum(_block_weights(text)), work.evidence, trained=trained, onward=onward)
        layer += _attention(text.width, work.evidence_pairs, queries=onward, keys=onward)
        return self.config.retrieval.encoder_layers * layer

    def retrieval_cross_attention(self) -> int:
        width, work = self.config.language_model.width, self.work
        trained, read = self._any("retrieval_cross_attention"), self._any("text_encoder", "language_model")
        total = 0
        for layer in self.config.retrieval.layers:
            text = self._reached(layer, _RETRIEVAL)
            total += _product(2 * width**2, work.evidence, trained=trained, onward=read)
            total += _product(2 * width**2, work.evidence_readers, trained=trained, onward=text)
            total += _attention(width, work.evidence_reads, queries=text, keys=trained or read)
        return total

    def _any(self, *parts: str) -> bool:
        return not self.trained.isdisjoint(parts)

    def _reached(self, layer: int, place: int) -> bool:
        """Whether something is trained at this place of the decoder or before it, so that a gradient comes by."""
        starts = []
        if self._any("language_model", "special_tokens"):
            starts.append((1, _GATED))
        if self._any("image_encoder", "resampler", "gated_cross_attention"):
            starts += [(first, _GATED) for first in self.config.gated_layers[:1]]
        if self._any("text_encoder", "retrieval_cross_attention"):
            starts += [(first, _RETRIEVAL) for first in self.config.retrieval.layers[:1]]
        return any(start <= (layer, place) for start in starts)


def _block_weights(text: LanguageModelConfig) -> tuple[int, int]:
    """Weights of a block's matrices: of its attention, of its feed-forward."""
    keys_values = 2 * text.kv_heads * text.head_width
    matrices = 3 if text.family == "llama" else 2
    return text.width * (2 * text.width + keys_values), matrices * text.width * text.inner


def _product(weights: int, tokens: int, *, trained: bool, onward: bool) -> int:
    """Forward, the gradient of the weights, the gradient of what they were multiplied with."""
    return 2 * weights * tokens * (1 + trained + onward)


def _attention(width: int, pairs: int, *, queries: bool, keys: bool) -> int:
    """Scores and weighted sums over pairs of query and key; the gradient of queries, of keys and values."""
    return 4 * width * pairs * (1 + queries + keys)
