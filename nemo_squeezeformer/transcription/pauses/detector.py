"""The probability of speech in each window of a recording, computed by silero-vad."""

from __future__ import annotations

import importlib.util
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process.extras import install

RATE = 16_000  # samples per second of the network
WINDOW = 512  # samples for one probability, 32 ms
ROWS = 32  # parts of the audio in one batch; without parts, the network needs ten times as long
WARM_UP = 16  # windows before a part, because the network has a memory; more windows give no closer probabilities
SHORTEST = 128  # minimum number of windows of a part


def is_installed() -> bool:
    """Return True if the package silero-vad is installed."""
    return importlib.util.find_spec("silero_vad") is not None


def require(option: str) -> None:
    """Raise a UserError with the command that installs silero-vad, if the package is not installed."""
    if not is_installed():
        raise UserError(f"{option} needs the package silero-vad, which is not installed; run: {install('vad')}")


class Detector:
    """silero-vad (https://github.com/snakers4/silero-vad, version 6). The package contains the weights."""

    def __init__(self) -> None:
        import torch

        threads = torch.get_num_threads()
        import silero_vad

        torch.set_num_threads(threads)  # the import of silero_vad has set the number to 1
        self.network: Any = silero_vad.load_silero_vad()

    def probabilities(self, samples: Any, before: Any) -> list[float]:
        """Return the probability of speech in each window. The last window is padded with zeros.

        Args:
            samples: samples (T,) at ``RATE``.
            before: the samples before ``samples``; only the last ``WARM_UP`` windows are used.
        """
        import torch
        from torch.nn.functional import pad

        windows = -(-len(samples) // WINDOW)
        if not windows:
            return []
        rows = max(min(ROWS, windows // SHORTEST), 1)
        each = -(-windows // rows)
        before = torch.as_tensor(before)[-WARM_UP * WINDOW :]
        sound = torch.cat([pad(before, (WARM_UP * WINDOW - len(before), 0)), torch.as_tensor(samples)])
        sound = pad(sound, (0, (WARM_UP + rows * each) * WINDOW - len(sound)))
        parts = sound.unfold(0, (WARM_UP + each) * WINDOW, each * WINDOW)  # (rows, samples of a part)
        with torch.inference_mode():
            self.network.reset_states()
            found = [self.network(part, RATE)[:, 0] for part in parts.split(WINDOW, dim=1)]
        return torch.stack(found[WARM_UP:], dim=1).flatten()[:windows].tolist()
