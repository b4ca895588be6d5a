"""Lengths, masks, contexts and frame rates of frames, and the streaming state."""

from .context import Context
from .masks import Frames

__all__ = ["Context", "Frames"]
