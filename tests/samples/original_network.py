"""The authors' network as their TensorFlow program computes it, in plain torch and far padding, to compare ours with.

It shares no line with the encoder that it judges, and is written to be held against their source, not to be fast: the
steps, their order, the tables, the masks and what is computed past the end are theirs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, pad, relu, silu, softmax

FREQUENCIES = 80
MAX_LEN = 5000  # of their table of position encodings


class OriginalNetwork:
    """The network of arrays named as in the authors' file; ``time_reduce_idx`` None where it has no temporal U-Net."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        time_reduce_idx: int | None,
        time_recovery_idx: int | None,
        dtype: torch.dtype = torch.float32,
    ):
        self.reduce, self.recover, self.dtype = time_reduce_idx, time_recovery_idx, dtype
        self.arrays = {key.removesuffix(":0"): torch.tensor(array).to(dtype) for key, array in arrays.items()}
        self.model = next(key for key in self.arrays if key.endswith("_logits/kernel")).split("/")[0]
        self.n_layers = sum(key.endswith("_mhsa/pos_kernel") for key in self.arrays)

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, 80), (B,) -> encoder (B, T', D), logits (B, T', V) and lengths (B,); past these it means nothing."""
        features = features.to(self.dtype)
        longest = int(self.mask_lengths(lengths).max())
        x = self.encoder(pad(features, (0, 0, 0, max(4 * longest + 8 - features.size(1), 0))), lengths)
        kernel, bias = self.array(f"{self.model}_logits/kernel"), self.array(f"{self.model}_logits/bias")
        return x, x @ kernel[0] + bias, (lengths + 3) // 4

    @staticmethod
    def mask_lengths(lengths: Tensor) -> Tensor:
        """Frames that masks let in: the formula of a convolution that is padded on both sides, which theirs is not."""
        padding, kernel, stride = 1, 3, 2
        for _ in range(2):
            lengths = torch.ceil((lengths.double() + 2 * padding - (kernel - 1) - 1) / stride + 1)
        return lengths.long()

    def encoder(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, 80) -> (B, T // 2 // 2, D)"""
        scope = f"{self.model}_encoder"
        x = self.dense(self.subsampling(features, f"{scope}_subsampling"), f"{scope}_linear")
        seen = torch.arange(x.size(1)) < self.mask_lengths(lengths)[:, None]  # (B, T)
        mask = seen[:, :, None] & seen[:, None, :]
        x = self.layer_norm(x * math.sqrt(x.size(2)), f"{scope}_preln")
        positions, kept = self.positions(x), None
        for i in range(self.n_layers):
            if i == self.reduce:
                kept = (x, mask, seen, positions)
                x, mask, seen = self.time_reduction(x, mask, seen, f"{scope}_timereduce")
                positions = self.positions(x)
            if i == self.recover and kept is not None:
                reduced = x
                x, mask, seen, positions = kept
                x = self.dense(reduced.repeat_interleave(2, dim=1)[:, : x.size(1)], self.recovery()) + x
            x = self.block(x, positions, mask, seen, f"{scope}_block_{i}")
        return x

    def subsampling(self, x: Tensor, scope: str) -> Tensor:
        """(B, T, 80) -> (B, T // 2 // 2, 20 C); a zero after the last frame and the last frequency, none before."""
        x = pad(x[:, None], (0, 1, 0, 1))
        x = relu(self.conv(x, f"{scope}_1", stride=2))
        x = pad(x, (0, 1, 0, 1))
        x = relu(self.conv(self.depthwise(x, f"{scope}_2_dw", stride=2), f"{scope}_2_pw"))
        x = x.permute(0, 2, 3, 1)  # theirs are channels last
        assert x.size(2) == FREQUENCIES // 4
        return x.reshape(x.size(0), x.size(1), -1)

    def block(self, x: Tensor, positions: Tensor, mask: Tensor, seen: Tensor, scope: str) -> Tensor:
        """Their ``M, s, C, s``: attention and feed-forward, then convolution and feed-forward, each with its norms."""
        first, third = f"{scope}_layer1", f"{scope}_layer3"
        x = x + self.attention(self.scaled(x, f"{first}_mhsa"), positions, mask, f"{first}_mhsa_mhsa")
        x = self.layer_norm(x, f"{first}_ln_mid")
        x = x + self.feed_forward(self.scaled(x, f"{first}_ff"), f"{first}_ff")
        x = self.layer_norm(x, f"{first}_ln")
        x = x + self.convolution(self.scaled(x, f"{third}_conv"), seen, f"{third}_conv")
        x = self.layer_norm(x, f"{third}_ln_mid")
        x = x + self.feed_forward(self.scaled(x, f"{third}_ff"), f"{third}_ff")
        return self.layer_norm(x, f"{third}_ln")

    def attention(self, x: Tensor, positions: Tensor, mask: Tensor, scope: str) -> Tensor:
        """(B, T, D), positions (2 T - 1, D), mask (B, T, T) True where seen -> (B, T, D)"""
        u, v = self.array(f"{scope}/pos_bias_u"), self.array(f"{scope}/pos_bias_v")  # (H, d)
        q, k, values = (self.dense(x, key).reshape(*x.shape[:2], *u.shape) for key in self.unnamed(scope))
        p = torch.einsum("mi,hio->mho", positions, self.array(f"{scope}/pos_kernel"))
        content = torch.einsum("bnho,bmho->bhnm", q + u, k)
        distance = relative_shift(torch.einsum("bnho,mho->bhnm", q + v, p))
        scores = (content + distance[..., : content.size(3)]) / math.sqrt(u.size(1))
        scores = scores - 1e10 * (~mask[:, None]).to(scores.dtype)
        attended = torch.einsum("bhnm,bmhi->bnhi", softmax(scores, dim=-1), values)
        projected = torch.einsum("bnhi,hio->bno", attended, self.array(f"{scope}/projection_kernel"))
        return projected + self.array(f"{scope}/projection_bias")

    def feed_forward(self, x: Tensor, scope: str) -> Tensor:
        return self.dense(silu(self.dense(x, f"{scope}_dense_1")), f"{scope}_dense_2")

    def convolution(self, x: Tensor, seen: Tensor, scope: str) -> Tensor:
        """(B, T, D), seen (B, T) -> (B, T, D)"""
        x = silu(self.conv(x.transpose(1, 2)[..., None], f"{scope}_pw_conv_1"))  # (B, 2 D, T, 1)
        x = x * seen[:, None, :, None].to(x.dtype)
        side = self.array(f"{scope}_dw_conv/depthwise_kernel").size(0) // 2  # Keras' "same" of an odd kernel
        x = self.depthwise(pad(x, (0, 0, side, side)), f"{scope}_dw_conv")
        mean, variance = self.array(f"{scope}_bn/moving_mean"), self.array(f"{scope}_bn/moving_variance")
        x = (x.transpose(1, 3) - mean) / torch.sqrt(variance + 1e-3)
        x = silu(x * self.array(f"{scope}_bn/gamma") + self.array(f"{scope}_bn/beta")).transpose(1, 3)
        return self.conv(x, f"{scope}_pw_conv_2")[..., 0].transpose(1, 2)

    def time_reduction(self, x: Tensor, mask: Tensor, seen: Tensor, scope: str) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, ceil(T / 2), D) and the masks there; zeros after the last frame, none before."""
        x = (x * seen[..., None].to(x.dtype)).transpose(1, 2)[..., None]
        x = self.depthwise(pad(x, (0, 0, 0, 3)), f"{scope}_dw_conv", stride=2)
        x = self.conv(x, f"{scope}_pw_conv_2")[..., 0].transpose(1, 2)
        mask, seen = mask[:, ::2, ::2], seen[:, ::2]
        return pad(x, (0, 0, 0, seen.size(1) - x.size(1))), mask, seen

    def positions(self, x: Tensor) -> Tensor:
        """(2 T - 1, D): those of T - 1 ... 1 - T, cut out of a table of float32."""
        t, d = x.shape[1:]
        position = np.arange(MAX_LEN - 1, -MAX_LEN, -1, dtype=np.float32)[:, None]
        angle = position * np.exp(np.arange(0, d, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / d))
        table = np.zeros((len(position), d), np.float32)
        table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)
        middle = len(table) // 2
        return torch.from_numpy(table[middle - t + 1 : middle + t]).to(self.dtype)

    def conv(self, x: Tensor, scope: str, stride: int = 1) -> Tensor:
        kernel = self.array(f"{scope}/kernel").permute(3, 2, 0, 1)
        return conv2d(x, kernel, self.array(f"{scope}/bias"), stride=stride)

    def depthwise(self, x: Tensor, scope: str, stride: int = 1) -> Tensor:
        kernel, bias = self.array(f"{scope}/depthwise_kernel").permute(2, 3, 0, 1), self.array(f"{scope}/bias")
        if x.size(3) == 1:  # over time alone: float64 in 2-d takes PyTorch long
            return conv1d(x[..., 0], kernel[..., 0], bias, stride=stride, groups=x.size(1))[..., None]
        return conv2d(x, kernel, bias, stride=stride, groups=x.size(1))

    def dense(self, x: Tensor, scope: str) -> Tensor:
        return x @ self.array(f"{scope}/kernel") + self.array(f"{scope}/bias")

    def scaled(self, x: Tensor, scope: str) -> Tensor:
        return x * self.array(f"{scope}_scale") + self.array(f"{scope}_bias")

    def layer_norm(self, x: Tensor, scope: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-3)
        return x * self.array(f"{scope}/gamma") + self.array(f"{scope}/beta")

    def array(self, name: str) -> Tensor:
        """The one array whose name ends so; layers' names say where in the network they are."""
        (key,) = [key for key in self.arrays if key == name or key.endswith(f"/{name}")]
        return self.arrays[key]

    def unnamed(self, scope: str) -> list[str]:
        """Layers that Keras named ``dense``, with a number counted up: queries, keys and values in this order."""
        found = re.compile(rf"(?:.*/)?({re.escape(scope)}/dense(?:_(\d+))?)/kernel")
        matches = [match for match in map(found.fullmatch, self.arrays) if match]
        return [match[1] for match in sorted(matches, key=lambda match: int(match[2] or 0))]

    def recovery(self) -> str:
        (name,) = self.unnamed(f"{self.model}/{self.model}_encoder")
        return name


def relative_shift(x: Tensor) -> Tensor:
    """(B, H, T, 2 T - 1): row t moves by as many places as brings distance 0 to column t."""
    b, h, t, n = x.shape
    return pad(x, (1, 0)).reshape(b, h, n + 1, t)[:, :, 1:].reshape(b, h, t, n)
