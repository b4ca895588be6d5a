"""Self-attention: over all frames or a window, with relative positions, absolute ones or none."""

from .multi_head import MultiHeadAttention, RelPositionAttention, position_biases

__all__ = ["MultiHeadAttention", "RelPositionAttention", "position_biases"]
