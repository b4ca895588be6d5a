"""The lengths, the masks, the attention contexts and the frame rates of a batch, and the streaming state."""

from .context import Context
from .masks import Frames

__all__ = ["Context", "Frames"]
