"""The forms of relative attention in the arithmetic of a GPU, on machines without a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel, position_scores
from nemo_squeezeformer.core.attention.scores import attention_weights
from nemo_squeezeformer.core.cpu.precision import low_precision, without_autocast
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels.sdpa import SDPA


class PlainOnGPU(PlainKernel):
    """The reference implementation with the dtypes that autocast chooses on CUDA: the softmax is in float32."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        content, k, v, position, p = low_precision(*operands[:5])
        scores = content @ k.transpose(-2, -1) + position_scores(position, p, k.size(2))
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = attention_weights((scores / math.sqrt(content.size(-1))).to(exact), frames.blocked)
        return dropout(weights).to(v.dtype) @ v


class FusedArithmetic(SDPA):
    """``attention: sdpa`` with the arithmetic of a fused kernel in place of PyTorch's function.

    Args:
        in_float32: If False, the operands stay in low precision in training. The package did this before.
    """

    def __init__(self, in_float32: bool = True):
        super().__init__()
        self.in_float32 = in_float32

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        call = super().__call__ if self.in_float32 else self.attended
        return call(operands, frames, dropout)

    def fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float = 0.0) -> Tensor:
        """Return the attended values (B, H, T, d). Autocast casts the operands, as for PyTorch's function."""
        q, k, v, bias = low_precision(q, k, v, bias)
        assert bias is not None
        return fused_attention(q, k, v, bias, 1.0 / math.sqrt(q.size(-1)))


class EfficientKernel(FusedArithmetic):
    """``attention: sdpa`` with PyTorch's memory-efficient kernel, also for tensors on the device ``meta``."""

    def fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float = 0.0) -> Tensor:
        """Return the attended values (B, H, T, d). PyTorch pads the bias to a multiple of 16 keys."""
        d, s = q.size(-1), k.size(-2)
        assert bias is not None
        q, k, v = (pad(x, (0, -d % 8)) for x in (q, k, v))
        bias = pad(bias, (0, -s % 16))[..., :s]
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(q, k, v, bias, True, rate, False, scale=1.0 / math.sqrt(d))[0][..., :d]


class _FusedAttention(torch.autograd.Function):
    """The arithmetic of a fused kernel (FlashAttention, arXiv 2205.14135): products of low precision, sums in float32.

    The backward pass uses that the sum of gradient times weight over all keys is the product of the output and its
    gradient. The output is rounded to the dtype of the queries.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
        scores = _product(q, k.transpose(-2, -1)) * scale + bias.float()
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        out = (_product(weights.to(v.dtype), v) / weights.sum(-1, keepdim=True)).to(q.dtype)
        ctx.save_for_backward(q, k, v, bias, out, scores.logsumexp(-1, keepdim=True))
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, logsumexp = ctx.saved_tensors
        weights = (_product(q, k.transpose(-2, -1)) * ctx.scale + bias.float() - logsumexp).exp()
        sums = (grad.float() * out.float()).sum(-1, keepdim=True)
        scores = (weights * (_product(grad, v.transpose(-2, -1)) - sums)).to(q.dtype)
        grad_q, grad_k = (ctx.scale * x for x in (_product(scores, k), _product(scores.transpose(-2, -1), q)))
        grad_v = _product(weights.to(v.dtype).transpose(-2, -1), grad)
        return grad_q.to(q.dtype), grad_k.to(q.dtype), grad_v.to(q.dtype), scores, None


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product in float32 of factors that are exact in a lower precision."""
    return x.float() @ y.float()


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Return the attended values (B, H, T, d) of q (B, H, T, d), k and v (B, H, S, d) and bias (B, H, T, S)."""
    apply: Callable[..., Tensor] = _FusedAttention.apply
    with without_autocast(q.device):
        return apply(q, k, v, bias, scale)
