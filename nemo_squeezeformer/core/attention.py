"""Multi-head self-attention, with relative positions (Transformer-XL, section 3.3) or without."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .absorbed_attention import absorbed_attention, absorbs
from .attention_scores import attention_weights, relative_shift
from .frames import Frames
from .streaming import LayerState, with_left_context


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over the frames within reach.

    ``attend`` is the seam for other exact forms: everything before it is projection, everything after it is too.

    ``kernel``: ``SDPA`` computes the same with PyTorch's fused kernels.
    """

    model = "abs_pos"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel: PlainKernel | None = None,
    ):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
        self.n_heads, self.kernel = n_heads, kernel or PlainKernel()
        self.linear_q = nn.Linear(d_model, d_model, bias=use_bias)
        self.linear_k = nn.Linear(d_model, d_model, bias=use_bias)
        self.linear_v = nn.Linear(d_model, d_model, bias=use_bias)
        self.linear_out = nn.Linear(d_model, d_model, bias=use_bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, frames: Frames, positions: Tensor | None = None, state: LayerState | None = None
    ) -> Tensor:
        """x: (B, T, D), positions: (S + T - 1, D) or None -> (B, T, D)"""
        assert frames.blocked is not None
        context = x
        if state is not None:
            context, state.attention = with_left_context(x, state.attention, dim=1, advance=frames.advance)

        attended = self.attended(x, context, frames.blocked[:, None], positions)  # (B, H, T, D / H)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def attended(self, x: Tensor, context: Tensor, blocked: Tensor, positions: Tensor | None) -> Tensor:
        """x: (B, T, D), context: (B, S, D), blocked: (B, 1, T, S) -> (B, H, T, D / H)"""
        q = self.heads(self.linear_q(x))
        k = self.heads(self.linear_k(context))
        v = self.heads(self.linear_v(context))
        return self.attend(q, k, v, blocked, positions)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k, v: (B, H, S, D / H), blocked: (B, 1, T, S) -> (B, H, T, D / H)"""
        return self.kernel(q, k, v, None, blocked, self.dropout)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)"""
        b, t, d = x.size()
        return x.view(b, t, self.n_heads, d // self.n_heads).transpose(1, 2)


class RelPositionAttention(MultiHeadAttention):
    """Attention whose scores depend on the content of a key and on how far away it is.

    ``biases``: the pair (u, v) of one encoder for all its layers (``untie_biases=False``), or None for an own pair.
    """

    model = "rel_pos"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel: PlainKernel | None = None,
        biases: tuple[nn.Parameter, nn.Parameter] | None = None,
    ):
        super().__init__(d_model, n_heads, dropout, use_bias, kernel)
        self.linear_pos = nn.Linear(d_model, d_model, bias=False)
        self.pos_bias_u, self.pos_bias_v = biases or position_biases(d_model, n_heads)

    def attended(self, x: Tensor, context: Tensor, blocked: Tensor, positions: Tensor | None) -> Tensor:
        """x: (B, T, D), context: (B, S, D), blocked: (B, 1, T, S) -> (B, H, T, D / H)"""
        if x is not context and absorbs(self, x, context):
            assert positions is not None
            return absorbed_attention(self, x, context, blocked, positions)
        return super().attended(x, context, blocked, positions)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor, positions: Tensor | None) -> Tensor:
        """q: (B, H, T, D / H), k, v: (B, H, S, D / H), positions: (S + T - 1, D) -> (B, H, T, D / H)"""
        assert positions is not None
        p = self.heads(self.linear_pos(positions)[None])  # (1, H, S + T - 1, D / H)
        position = relative_shift((q + self.pos_bias_v[:, None]) @ p.transpose(-2, -1))
        q = q + self.pos_bias_u[:, None]
        return self.kernel(q, k, v, position[..., : k.size(2)], blocked, self.dropout)


class PlainKernel:
    """Attention written out. Kernels are no modules: the weights are the attention's, and so is its dropout."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, blocked: Tensor, dropout: nn.Dropout
    ) -> Tensor:
        """q: (..., T, d), k, v: (..., S, d), position scores or None and blocked: (..., T, S) -> (..., T, d)"""
        scores = q @ k.transpose(-2, -1)
        if position is not None:
            scores = scores + position
        return dropout(attention_weights(scores / math.sqrt(q.size(-1)), blocked)) @ v


class SDPA(PlainKernel):
    """PyTorch's ``scaled_dot_product_attention``, with the position scores as its additive mask.

    Args:
        backends: names of ``torch.nn.attention.SDPBackend`` that it may choose from; none for all.

    Raises:
        ValueError: for a name that there is none of, or FLASH_ATTENTION alone, which takes no mask.
    """

    def __init__(self, backends: Sequence[str] | None = None):
        names = list(SDPBackend.__members__)
        for name in backends or ():
            if name not in names:
                raise ValueError(f"use_pytorch_sdpa_backends={list(backends or ())}: {name!r} is none of {names}")
        if backends and set(backends) == {"FLASH_ATTENTION"}:
            raise ValueError(
                f"use_pytorch_sdpa_backends={list(backends)}: it takes no mask, which padding and positions need; "
                "add EFFICIENT_ATTENTION or MATH"
            )
        self.backends = [SDPBackend.__members__[name] for name in backends or ()]

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, position: Tensor | None, blocked: Tensor, dropout: nn.Dropout
    ) -> Tensor:
        """q: (..., T, d), k, v: (..., S, d), position scores or None and blocked: (..., T, S) -> (..., T, d)"""
        scores = torch.zeros_like(blocked, dtype=q.dtype) if position is None else position / math.sqrt(q.size(-1))
        bias = scores.masked_fill(blocked, -10000.0)
        rate = dropout.p if dropout.training else 0.0
        if self.backends:
            with sdpa_kernel(self.backends):
                attended = scaled_dot_product_attention(q, k, v, bias, rate)
        else:
            attended = scaled_dot_product_attention(q, k, v, bias, rate)
        return attended.masked_fill(blocked.all(dim=-1, keepdim=True), 0.0)


def position_biases(d_model: int, n_heads: int) -> tuple[nn.Parameter, nn.Parameter]:
    """The learned u and v of Transformer-XL, both (H, D / H), which stand in for the query's own position."""
    if d_model % n_heads:
        raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}")
    zeros = torch.zeros(n_heads, d_model // n_heads)
    return nn.Parameter(zeros), nn.Parameter(zeros.clone())
