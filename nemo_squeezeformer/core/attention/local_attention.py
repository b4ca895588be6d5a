"""Attention with relative positions over a window of frames, with global tokens (Longformer).

Time and memory grow linearly with the number of frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..frames.masks import Frames
from .kernel import KERNELS, Operands, PlainKernel, Tokens
from .multi_head import RelPositionAttention


class LocalAttention(RelPositionAttention):
    """Attention in which each frame sees the window of ``frames.context`` and the global tokens.

    Without global tokens, the result equals the result of ``RelPositionAttention`` with a band mask.

    A global token is a frame that sees all frames and that all frames see. The scores of a global token depend on the
    content only. As in NeMo, a frame whose window contains a global token sees the token twice: once by content, and
    once by content and position. The value of the token comes from the same projection both times.

    Unlike in NeMo, the left and the right side of a window can have different widths. Unlike in NeMo, padding and the
    other utterances of the batch have no influence.

    Args:
        d_model: Width D of the input and the output.
        n_heads: Number of heads H.
        dropout: Dropout rate of the attention weights.
        use_bias: If True, the projections have biases.
        biases: The pair of position biases (u, v) that all layers share. None gives this layer a pair of its own.
        global_tokens: Number of global tokens.
        global_tokens_spacing: Distance between two global tokens in encoder frames, also inside the temporal U-Net.
        global_attn_separate: If True, global tokens have their own projections.
        kernel: Attention kernel. None means the kernel ``windows``.
    """

    model = "rel_pos_local_attn"

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.0,
        use_bias: bool = True,
        biases: tuple[nn.Parameter, nn.Parameter] | None = None,
        global_tokens: int = 0,
        global_tokens_spacing: int = 1,
        global_attn_separate: bool = False,
        kernel: PlainKernel | None = None,
    ):
        super().__init__(d_model, n_heads, dropout, use_bias, kernel or KERNELS["windows"](None), biases)
        if global_tokens < 0 or global_tokens_spacing < 1:
            raise ValueError(
                f"global_tokens={global_tokens}, global_tokens_spacing={global_tokens_spacing}: "
                "expected at least 0 tokens and a spacing of at least 1 frame"
            )
        self.tokens = [i * global_tokens_spacing for i in range(global_tokens)]
        self.global_attn_separate = global_attn_separate
        if global_attn_separate:
            self.global_q = nn.Linear(d_model, d_model, bias=use_bias)
            self.global_k = nn.Linear(d_model, d_model, bias=use_bias)
            self.global_v = nn.Linear(d_model, d_model, bias=use_bias)

    def attended(self, x: Tensor, context: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Return the attended values: x (B, T, D), context (B, T, D) -> (B, H, T, D / H).

        The queries come from ``x``, and the keys come from ``context``. The shape of ``positions`` is
        (left + right + 1, D).
        """
        q, k, v = self.projected(x, context)
        if not self.tokens:
            return self.attend(q, k, v, frames, positions)

        tokens = self.frames_of_tokens(frames.step, x.device)  # (G,)
        at = tokens.clamp(max=x.size(1) - 1)
        own = (self.global_q, self.global_k, self.global_v) if self.global_attn_separate else ()
        global_q, global_k, global_v = (self.heads(linear(x)) for linear in own) if own else (q, k, v)
        global_q = global_q / math.sqrt(q.size(-1))

        absent = (tokens >= frames.lengths[:, None])[:, None, None]  # (B, 1, 1, G)
        scores = (global_q @ global_k[:, :, at].transpose(-2, -1)).masked_fill(absent, -10000.0)  # (B, H, T, G)
        assert positions is not None
        p = self.heads(self.linear_pos(positions)[None])  # (1, H, left + right + 1, D / H)
        content, position = q + self.pos_bias_u[:, None], q + self.pos_bias_v[:, None]
        seen = self.kernel(Operands(content, k, v, position, p, Tokens(scores, v[:, :, at])), frames, self.dropout)

        padding = frames.padding[:, None, None]  # (B, 1, 1, T)
        scores = (global_q[:, :, at] @ global_k.transpose(-2, -1)).masked_fill(padding, -10000.0)
        of_tokens = self.dropout(scores.softmax(dim=-1)) @ global_v  # (B, H, G, D / H)
        is_token = (torch.arange(x.size(1), device=x.device)[:, None] == tokens) & ~absent[:, 0]  # (B, T, G)
        replaced = is_token.any(dim=-1)[:, None, :, None]  # (B, 1, T, 1)
        return torch.where(replaced, is_token[:, None].to(of_tokens.dtype) @ of_tokens, seen)

    def frames_of_tokens(self, step: int, device: torch.device) -> Tensor:
        """Return the frames of the global tokens (G,), at a rate with ``step`` encoder frames for each frame.

        Two tokens in the same frame count once.
        """
        spacing = self.tokens[1] - self.tokens[0] if len(self.tokens) > 1 else 1
        # The device computes the frames. A GPU would wait for a list of the host, and a CUDA graph could not record it.
        return torch.arange(0, self.tokens[-1] + 1, max(spacing, step), device=device) // step
