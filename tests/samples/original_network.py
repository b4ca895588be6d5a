"""The authors' network in plain torch, for comparison with this project's encoder.

It computes in the same way as the authors' TensorFlow program: the steps, their order, the tables, the masks, and the
values after the end of an utterance. It shares no code with the encoder under test. It is written for comparison with
the authors' source and not for speed.
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
MAX_LEN = 5000  # length of the authors' table of position encodings


class OriginalNetwork:
    """The network with the given arrays.

    Args:
        arrays: Weights with the names of the authors' file.
        time_reduce_idx: The first layer inside the temporal U-Net, or None without a U-Net.
        time_recovery_idx: The first layer after the recovery.
    """

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
        """Return encodings `(B, T', D)`, logits `(B, T', V)` and lengths `(B,)` for features `(B, T, 80)`.

        Outputs after the lengths have no meaning.
        """
        features = features.to(self.dtype)
        longest = int(self.mask_lengths(lengths).max())
        x = self.encoder(pad(features, (0, 0, 0, max(4 * longest + 8 - features.size(1), 0))), lengths)
        kernel, bias = self.array(f"{self.model}_logits/kernel"), self.array(f"{self.model}_logits/bias")
        return x, x @ kernel[0] + bias, (lengths + 3) // 4

    @staticmethod
    def mask_lengths(lengths: Tensor) -> Tensor:
        """Return the number of frames that the masks of the authors' program keep.

        The formula is for convolutions with padding on both sides. The authors' convolutions do not have this padding.
        """
        padding, kernel, stride = 1, 3, 2
        for _ in range(2):
            lengths = torch.ceil((lengths.double() + 2 * padding - (kernel - 1) - 1) / stride + 1)
        return lengths.long()

    def encoder(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Encode features: `(B, T, 80) -> (B, T // 2 // 2, D)`."""
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
        """Subsample features: `(B, T, 80) -> (B, T // 2 // 2, 20 C)`.

        Each convolution gets one zero after the last frame and after the last frequency, and no zero before the first.
        """
        x = pad(x[:, None], (0, 1, 0, 1))
        x = relu(self.conv(x, f"{scope}_1", stride=2))
        x = pad(x, (0, 1, 0, 1))
        x = relu(self.conv(self.depthwise(x, f"{scope}_2_dw", stride=2), f"{scope}_2_pw"))
        x = x.permute(0, 2, 3, 1)  # TensorFlow has the channels last
        assert x.size(2) == FREQUENCIES // 4
        return x.reshape(x.size(0), x.size(1), -1)

    def block(self, x: Tensor, positions: Tensor, mask: Tensor, seen: Tensor, scope: str) -> Tensor:
        """Compute the block ``M, s, C, s`` of the authors.

        Attention and feed-forward are followed by convolution and feed-forward. Each module has a norm.
        """
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
        """Compute attention: `(B, T, D) -> (B, T, D)`.

        Args:
            positions: `(2 T - 1, D)`.
            mask: `(B, T, T)`, True where a query may attend to a key.
        """
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
        """Compute the convolution module: `(B, T, D) -> (B, T, D)`. ``seen`` `(B, T)` is True for valid frames."""
        x = silu(self.conv(x.transpose(1, 2)[..., None], f"{scope}_pw_conv_1"))  # (B, 2 D, T, 1)
        x = x * seen[:, None, :, None].to(x.dtype)
        # The padding "same" of Keras for an odd kernel.
        side = self.array(f"{scope}_dw_conv/depthwise_kernel").size(0) // 2
        x = self.depthwise(pad(x, (0, 0, side, side)), f"{scope}_dw_conv")
        mean, variance = self.array(f"{scope}_bn/moving_mean"), self.array(f"{scope}_bn/moving_variance")
        x = (x.transpose(1, 3) - mean) / torch.sqrt(variance + 1e-3)
        x = silu(x * self.array(f"{scope}_bn/gamma") + self.array(f"{scope}_bn/beta")).transpose(1, 3)
        return self.conv(x, f"{scope}_pw_conv_2")[..., 0].transpose(1, 2)

    def time_reduction(self, x: Tensor, mask: Tensor, seen: Tensor, scope: str) -> tuple[Tensor, Tensor, Tensor]:
        """Reduce the frame rate: `(B, T, D) -> (B, ceil(T / 2), D)`. Return the reduced masks too.

        The padding has zeros after the last frame, and no zeros before the first frame.
        """
        x = (x * seen[..., None].to(x.dtype)).transpose(1, 2)[..., None]
        x = self.depthwise(pad(x, (0, 0, 0, 3)), f"{scope}_dw_conv", stride=2)
        x = self.conv(x, f"{scope}_pw_conv_2")[..., 0].transpose(1, 2)
        mask, seen = mask[:, ::2, ::2], seen[:, ::2]
        return pad(x, (0, 0, 0, seen.size(1) - x.size(1))), mask, seen

    def positions(self, x: Tensor) -> Tensor:
        """Return the encodings `(2 T - 1, D)` of the positions T - 1 to 1 - T, from a table in float32."""
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
        if x.size(3) == 1:  # a convolution over time: conv2d in float64 is slow in PyTorch
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
        """Return the only array whose name is ``name`` or ends with ``/name``. The first parts of a name are scopes."""
        (key,) = [key for key in self.arrays if key == name or key.endswith(f"/{name}")]
        return self.arrays[key]

    def unnamed(self, scope: str) -> list[str]:
        """Return the layers that Keras named ``dense``, in the order of their numbers.

        In attention they are queries, keys and values, in this order.
        """
        found = re.compile(rf"(?:.*/)?({re.escape(scope)}/dense(?:_(\d+))?)/kernel")
        matches = [match for match in map(found.fullmatch, self.arrays) if match]
        return [match[1] for match in sorted(matches, key=lambda match: int(match[2] or 0))]

    def recovery(self) -> str:
        (name,) = self.unnamed(f"{self.model}/{self.model}_encoder")
        return name


def relative_shift(x: Tensor) -> Tensor:
    """Shift the rows of `(B, H, T, 2 T - 1)`. Distance 0 of row t is then in column t."""
    b, h, t, n = x.shape
    return pad(x, (1, 0)).reshape(b, h, n + 1, t)[:, :, 1:].reshape(b, h, t, n)
