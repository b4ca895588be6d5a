"""Small encoders with random weights for tests with many settings, and random features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nemo_squeezeformer import core

SMALL: dict[str, Any] = {
    "feat_in": 20,
    "n_layers": 4,
    "d_model": 16,
    "conv_kernel_size": 7,
    "dropout": 0.0,
    "dropout_emb": 0.0,
}


def enliven(model: nn.Module, seed: int = 0) -> None:
    """Change the weights that start at one or zero. A missing scale, norm, bias or branch then changes the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 or "pos_bias" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(0.2 * noise.to(parameter.dtype))
        elif name.endswith(("linear_q.weight", "linear_k.weight", "linear_pos.weight")):
            parameter.data.mul_(3.0)  # otherwise attention would be nearly uniform
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def small_encoder(seed: int = 0, **settings: Any) -> core.SqueezeformerEncoder:
    """Return a core encoder in eval mode with four layers of width 16. Its default has no U-Net."""
    torch.manual_seed(seed)
    encoder = core.SqueezeformerEncoder(**(SMALL | {"time_reduce_idx": None} | settings)).eval()
    enliven(encoder, seed)
    return encoder


def features(batch: int, frames: int, channels: int = 20, seed: int = 0) -> Tensor:
    """Return random features `(B, F, T)` of unit variance."""
    return torch.randn(batch, channels, frames, generator=torch.Generator().manual_seed(seed))


def valid(x: Tensor, lengths: Tensor) -> Tensor:
    """Return the frames that are not padding: `(B, D, T) -> (sum of lengths, D)`."""
    return torch.cat([row[:, :length].T for row, length in zip(x, lengths.tolist())])


@contextmanager
def on_record(**access: Any) -> Iterator[None]:
    """Enable NeMo's recording of intermediate tensors, and disable it at the end."""
    from nemo.core.classes.mixins import AccessMixin
    from nemo.core.classes.mixins.access_mixins import set_access_cfg
    from omegaconf import OmegaConf

    set_access_cfg(OmegaConf.create(access))
    AccessMixin.set_access_enabled(True)
    yield
    AccessMixin.set_access_enabled(False)
    set_access_cfg(OmegaConf.create({"detach": False, "convert_to_cpu": False}))
