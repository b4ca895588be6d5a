"""The encoders of the benchmark of a device. They are built from ``nemo_squeezeformer.core``, without NeMo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nemo_squeezeformer.core import SqueezeformerEncoder

# The recipes install PyYAML, which reads conf/size. This program needs only PyTorch.
SIZES: dict[str, dict[str, int]] = {
    "s": {"d_model": 196, "n_layers": 18, "n_heads": 4},
    "m": {"d_model": 324, "n_layers": 20, "n_heads": 4},
    "quick": {"d_model": 16, "n_layers": 3, "n_heads": 2},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "Squeezeformer": {"subsampling": "dw_striding"},
    "Conformer": {"block": "conformer", "time_reduce_idx": None},
}
RATES: dict[str, dict[str, Any]] = {
    "4x": {"subsampling_factor": 4, "conv_kernel_size": 31},
    "8x": {"subsampling_factor": 8, "conv_kernel_size": 9, "subsampling_conv_channels": 256},
}
# NeMo's Conformer has full convolutions in the subsampling, and NeMo's FastConformer has depthwise convolutions.
CONFORMER_SUBSAMPLING = {"4x": "striding", "8x": "dw_striding"}
POSITIONS = ("rel_pos", "rope")
# The context of a stream with a latency of 480 ms: frames to the left, and frames to the right in the chunk.
STREAM = {"4x": [156, 11], "8x": [84, 5]}
# The values of the recipes. With a dropout of 0, training would omit the work of dropout.
SHARED: dict[str, Any] = {"feat_in": 80, "dropout": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1}


class Network(NamedTuple):
    """An encoder of the benchmark. The fields are keys of the tables above."""

    size: str
    network: str
    rate: str
    positions: str

    @property
    def shown(self) -> str:
        """The name of the encoder on the page."""
        return f"{self.network} {self.size}, {self.rate}, {self.positions}"

    @property
    def chunk(self) -> int:
        """The number of feature frames of a step of a stream."""
        factor: int = RATES[self.rate]["subsampling_factor"]
        return factor * (STREAM[self.rate][1] + 1)

    def settings(self, streaming: bool = False, counted: bool = False) -> dict[str, Any]:
        """Return the arguments of the encoder.

        ``counted`` gives the encoder with plain attention, whose operations are counted.
        """
        settings = SHARED | SIZES[self.size] | RATES[self.rate] | NETWORKS[self.network]
        if self.network == "Conformer":
            settings["subsampling"] = CONFORMER_SUBSAMPLING[self.rate]
        if streaming:
            settings |= {"streaming": True, "att_context_size": STREAM[self.rate]}
        if counted:
            settings["attention"] = "plain"
        return settings | {"self_attention_model": self.positions}

    def build(self, device: str, **use: bool) -> SqueezeformerEncoder:
        """Return the encoder in evaluation, with random weights that are drawn on the device."""
        torch.manual_seed(0)
        with torch.device(device):
            return SqueezeformerEncoder(**self.settings(**use)).eval()


def networks(sizes: list[str]) -> Iterator[Network]:
    """Yield all encoders of the given sizes."""
    for size in sizes:
        for rate in RATES:
            for network in NETWORKS:
                for positions in POSITIONS:
                    yield Network(size, network, rate, positions)


def utterances(batch: int, frames: int, device: str) -> tuple[Tensor, Tensor]:
    """Return features (B, 80, T) and lengths (B,). The lengths go evenly from half of the frames to all frames."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(frames / 2, frames, batch).round().long() if batch > 1 else torch.tensor([frames])
    return torch.randn(batch, 80, frames, generator=generator).to(device), lengths.to(device)
