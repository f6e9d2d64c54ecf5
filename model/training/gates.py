"""How far the gated layers are open."""

import torch

from model.revilm import ReViLM


@torch.no_grad()
def gate_values(model: ReViLM) -> dict[str, tuple[float, float]]:
    """Layer, from 1 → tanh of its attention gate and of its dense gate, −1…1; both are 0 in a new model."""
    gates = {
        layer: torch.cat((gated.attention_gate, gated.feed_forward_gate)).tanh().tolist()  # type: ignore[arg-type]
        for layer, gated in model.gated_cross_attention.items()
    }
    return {layer: (attention, dense) for layer, (attention, dense) in gates.items()}
