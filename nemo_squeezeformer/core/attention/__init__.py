"""Self-attention over all frames or over a window, with relative or absolute positions."""

from .multi_head import MultiHeadAttention, RelPositionAttention, position_biases

__all__ = ["MultiHeadAttention", "RelPositionAttention", "position_biases"]
