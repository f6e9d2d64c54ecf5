"""Re-ViLM (arXiv 2302.04858, fig. 2): pictures and the captions of their neighbours → text.

    picture → image encoder → resampler ──────────────┐
    neighbours' captions → text encoder ──────────┐   │
    text → [ gated cross-attention ◄──────────────┼───┘
             self-attention, frozen               │
             retrieval cross-attention ◄──────────┘
             feed-forward, frozen ] × L → next token

Which of the parts there are is the configuration's: mode none is Flamingo, prefix is retrieval as context, and without
vision it is RETRO.
Shapes: B rows, T text positions, D text width, N pictures of R latents, M sets of neighbours of W tokens, V subwords.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import KeysValues
from model.batch import Batch
from model.config import ReViLMConfig
from model.gated_cross_attention import GatedCrossAttention
from model.image_encoder import ImageEncoder
from model.key_value_cache import CacheView
from model.language_model import LanguageModel, Rotation, TextView
from model.loss import Loss, caption_loss
from model.perceiver_resampler import PerceiverResampler
from model.retrieval_cross_attention import RetrievalCrossAttention
from model.routing import Routing
from model.special_tokens import SpecialTokens
from model.text_encoder import TextEncoder


@dataclass(frozen=True)
class Conditioning:
    """What text looks at besides text: computed once a batch, shared by all decoding steps and beams."""

    images: dict[str, KeysValues]  # of every gated layer: (N, h, R, w)
    evidence: dict[str, KeysValues]  # of every RETRO layer: (M, h, W, w)
    evidence_keep: Tensor  # (M, W) bool
    image_routing: Routing
    evidence_routing: Routing


class ReViLM(nn.Module):
    """A new model is the first step of training: gates and retrieval outputs 0, special tokens copies of end-of-text,
    the text encoder a copy of the decoder's first layers."""

    def __init__(
        self,
        config: ReViLMConfig,
        language_model: LanguageModel | None = None,
        image_encoder: ImageEncoder | None = None,
    ) -> None:
        """language_model, image_encoder: pretrained ones of the configuration's shape; None: random weights."""
        super().__init__()
        self.config = config
        text, vision, retrieval = config.language_model, config.vision, config.retrieval
        _check_shape("language_model", language_model, text)
        _check_shape("image_encoder", image_encoder, vision and vision.encoder)
        self.language_model = language_model or LanguageModel(text)
        self.special_tokens = SpecialTokens(self.language_model) if vision else None
        self.image_encoder = (image_encoder or ImageEncoder(vision.encoder)) if vision else None
        self.resampler = PerceiverResampler(vision.resampler, vision.encoder.width) if vision else None
        self.gated_cross_attention = nn.ModuleDict(
            {
                str(layer): GatedCrossAttention(vision.gated, text.width, vision.encoder.width)
                for layer in config.gated_layers
                if vision
            }
        )
        self.text_encoder = TextEncoder(text, retrieval.encoder_layers) if retrieval.mode == "cross" else None
        self.retrieval_cross_attention = nn.ModuleDict(
            {str(layer): RetrievalCrossAttention(text) for layer in retrieval.layers}
        )
        if self.text_encoder is not None:
            self.text_encoder.start_from(self.language_model)

    def forward(self, batch: Batch, *, recompute: Literal["none", "layers"] = "none") -> Loss:
        """The loss of a batch. recompute: layers gives up their activations for memory and computes them again."""
        conditioning = self.condition(batch)
        hidden = self.hidden(self.embed(batch.tokens), self.view_of(batch), conditioning, recompute=recompute)
        return self.loss(batch, hidden)

    def loss(self, batch: Batch, hidden: Tensor) -> Loss:
        """hidden (B, T, D) → the loss; logits are computed where there is a target."""
        # The token that is predicted stands one to the right, and so does the flag that it is a neighbour's.
        targets, retrieved = (
            each.flatten()[batch.predicting] for each in (batch.targets, batch.retrieved.roll(-1, dims=1))
        )
        logits = self.logits(hidden.flatten(0, 1)[batch.predicting])
        return caption_loss(logits, targets, retrieved, self.config.retrieval.prefix_loss)

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) int64 → (B, T, D)."""
        embeddings: Tensor = self.language_model.table(tokens.clamp(max=self.config.language_model.vocabulary - 1))
        return embeddings if self.special_tokens is None else self.special_tokens.embed(tokens, embeddings)

    def view_of(self, batch: Batch) -> TextView:
        """Causal within a segment; a dropped token of a neighbour is seen by none but itself."""
        dropped = self._dropped("prefix", batch.retrieved & (batch.tokens != self.config.neighbor_id))
        if not batch.packed and dropped is None:
            return TextView(batch.positions)
        same = batch.segments[:, :, None] == batch.segments[:, None, :]
        mask = same.tril()
        if dropped is not None:
            own = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
            mask = mask & (~dropped[:, None, :] | own)
        return TextView(batch.positions, mask[:, None])

    def condition(self, batch: Batch) -> Conditioning:
        """Keys and values of the batch's pictures and neighbours."""
        keep = batch.evidence_mask
        ends = batch.evidence == self.config.language_model.end_of_text
        dropped = self._dropped("cross", keep & ~ends)
        keep = keep if dropped is None else keep & ~dropped
        images: dict[str, KeysValues] = {}
        evidence: dict[str, KeysValues] = {}
        if self.resampler is not None:
            latents = self.resampler(self.patches_of(batch), batch.frames)
            images = {layer: gated.keys_values(latents) for layer, gated in self.gated_cross_attention.items()}  # type: ignore[operator]
        if self.text_encoder is not None:
            encoded = self.text_encoder(batch.evidence, keep, batch.evidence_rows, self.language_model)
            evidence = {
                layer: read.keys_values(encoded, batch.evidence_rows)  # type: ignore[operator]
                for layer, read in self.retrieval_cross_attention.items()
            }
        return Conditioning(images, evidence, keep, batch.image_routing, batch.evidence_routing)

    def patches_of(self, batch: Batch) -> Tensor:
        """(ΣF, S, E): as given, in the resampler's dtype, or of the pixels; of a batch without pictures (0, S, E), so
        that every part takes part in every step and has a gradient, if one of zeros."""
        if batch.patches is not None:
            assert self.resampler is not None
            return batch.patches.to(self.resampler.latents.dtype)
        assert self.image_encoder is not None
        pixels = batch.pixels
        if pixels is None:
            size, dtype = self.image_encoder.config.image_size, self.image_encoder.conv1.weight.dtype
            # On the batch's device and not made from a weight, which may be sharded here.
            pixels = torch.zeros(0, 3, size, size, dtype=dtype, device=batch.tokens.device)
        return self.image_encoder(pixels)  # type: ignore[no-any-return]

    def hidden(
        self,
        embeddings: Tensor,
        view: TextView,
        conditioning: Conditioning,
        *,
        cache: CacheView | None = None,
        recompute: Literal["none", "layers"] = "none",
    ) -> Tensor:
        """embeddings (B, T, D) → (B, T, D) after the final norm; logits() gives the scores of the next token."""
        x, rotation = self.language_model.start(embeddings, view.positions)
        for number in range(1, self.config.language_model.layers + 1):
            layer = partial(self._layer, number, view, rotation, conditioning, cache)
            x = checkpoint(layer, x, use_reentrant=False) if recompute == "layers" else layer(x)
        return self.language_model.norm(x)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (…, D) → (…, V + 4), or V where there is no vision."""
        subwords = self.language_model.logits(hidden)
        if self.special_tokens is None:
            return subwords
        return torch.cat((subwords, self.special_tokens.logits(hidden)), dim=-1)

    def _layer(
        self,
        number: int,
        view: TextView,
        rotation: Rotation | None,
        conditioning: Conditioning,
        cache: CacheView | None,
        x: Tensor,
    ) -> Tensor:
        """Layer `number`, from 1: Flamingo's gated layer, then RETRO's order."""
        block, key = self.language_model.blocks[number - 1], str(number)
        if key in self.gated_cross_attention:
            x = self.gated_cross_attention[key](x, conditioning.images[key], conditioning.image_routing)
        x = block.attend(x, view, rotation, cache and cache.layer(number - 1))  # type: ignore[operator]
        if key in self.retrieval_cross_attention:
            x = self.retrieval_cross_attention[key](
                x, conditioning.evidence[key], conditioning.evidence_keep, conditioning.evidence_routing
            )
        return block.transform(x)  # type: ignore[no-any-return, operator]

    def _dropped(self, mode: str, droppable: Tensor) -> Tensor | None:
        """neighbor_token_dropout: which of the droppable tokens, those of neighbours in a mode, nobody may look at in
        this pass."""
        retrieval = self.config.retrieval
        share = retrieval.neighbor_token_dropout
        if not self.training or retrieval.mode != mode or share == 0:
            return None
        return droppable & (torch.rand(droppable.shape, device=droppable.device) < share)


def _check_shape(part: str, given: nn.Module | None, config: object) -> None:
    if given is not None and given.config != config:
        raise ValueError(f"{part} has another shape than the configuration: {given.config} is given, {config} is due")
