"""What is known of frames: lengths, masks, how far they see, at which rate, and what a stream remembers."""

from .context import Context
from .masks import Frames

__all__ = ["Context", "Frames"]
