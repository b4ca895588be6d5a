"""Checks of recordings while they are read: errors of the file, and samples that are not finite."""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer.errors import UserError

# The errors of a recording: of the file system, of the audio libraries, and of NeMo's selection of a channel.
UNREADABLE = (UserError, OSError, RuntimeError, ValueError, MemoryError)
LARGEST = 1e15  # a larger sample makes the power spectrum infinite in float32


def unreadable(path: str | list[str], error: Exception) -> str:
    """Return the problem of an utterance whose samples cannot be read."""
    if isinstance(error, UserError):
        return str(error)
    reason = " ".join(str(error).split()).strip(" :.") or type(error).__name__
    return f"audio file {path!r} cannot be read to its end ({reason}); create it again or remove it"


def wrong_values(path: str, samples: Any, rate: int, start: float) -> str:
    """Return the problem of samples (T,) or (T, channels) that are not finite or too large, or an empty string.

    Args:
        path: the name of the file in the message.
        samples: an array of NumPy.
        rate: sample rate in Hz.
        start: time of the first sample in seconds.
    """
    # With a NaN, the smallest and the largest value are NaN, and no comparison with NaN is true.
    if samples.size == 0 or (samples.min() > -LARGEST and samples.max() < LARGEST):
        return ""
    import numpy as np

    at = np.argwhere(~(np.abs(samples) < LARGEST))[0]
    return (
        f"audio file {path!r} has the sample {samples[tuple(at)]:g} at {start + at[0] / rate:.3f} s, but samples are "
        "numbers between -1 and 1; create the file again or remove it"
    )
