"""Relative-position attention over a window, in linear time and memory (Longformer, Beltagy et al. 2020).

The queries go in blocks, each against the window of keys that its frames reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .attention import RelPositionAttention
from .context import Context
from .frames import Frames, overlapping
from .streaming import LayerState


class LocalAttention(RelPositionAttention):
    """What ``RelPositionAttention`` computes under the band mask of ``frames.context``, and global tokens.

    A global token is a frame that sees all frames and is seen by all, by content alone. As in NeMo, others see one that
    lies in their window twice, once for its content and once with its position, and take its value from the same
    projection. Unlike NeMo's, windows may be wider on one side, and padding and other utterances have no influence.

    Args:
        global_tokens: how many frames are global tokens.
        global_tokens_spacing: how far apart they are, at the frame rate before the temporal U-Net.
        global_attn_separate: they have projections of their own.
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
    ):
        super().__init__(d_model, n_heads, dropout, use_bias, biases=biases)
        if global_tokens < 0 or global_tokens_spacing < 1:
            raise ValueError(
                f"global_tokens={global_tokens}, global_tokens_spacing={global_tokens_spacing}: "
                "expected 0 or more tokens, 1 or more frames apart"
            )
        self.tokens = [i * global_tokens_spacing for i in range(global_tokens)]
        self.global_attn_separate = global_attn_separate
        if global_attn_separate:
            self.global_q = nn.Linear(d_model, d_model, bias=use_bias)
            self.global_k = nn.Linear(d_model, d_model, bias=use_bias)
            self.global_v = nn.Linear(d_model, d_model, bias=use_bias)

    def forward(
        self, x: Tensor, frames: Frames, positions: Tensor | None = None, state: LayerState | None = None
    ) -> Tensor:
        """x: (B, T, D), positions: (left + right + 1, D) -> (B, T, D)"""
        assert positions is not None and state is None
        windows = Windows.of(frames.context, x.size(1))
        q, k, v = (self.heads(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v))
        blocked = windows.blocked(frames.padding)  # (B, 1, N, Q, W)
        scores = self.window_scores(q, k, positions, windows).masked_fill(blocked, -10000.0)  # (B, H, N, Q, W)
        if not self.tokens:
            weights = scores.softmax(dim=-1).masked_fill(blocked, 0.0)
            attended = windows.joined(self.dropout(weights) @ windows.keys(v))
        else:
            attended = self.attend_with_tokens(x, (q, k, v), scores, blocked, windows, frames)
        attended = attended.masked_fill(frames.padding[:, None, :, None], 0.0)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def window_scores(self, q: Tensor, k: Tensor, positions: Tensor, windows: Windows) -> Tensor:
        """q, k: (B, H, T, D / H) -> (B, H, N, Q, W)"""
        p = self.heads(self.linear_pos(positions)[None])[:, :, None]  # (1, H, 1, left + right + 1, D / H)
        q = windows.queries(q)
        content = (q + self.pos_bias_u[:, None, None]) @ windows.keys(k).transpose(-2, -1)
        position = (q + self.pos_bias_v[:, None, None]) @ p.transpose(-2, -1)
        return (content + windows.along_the_band(position)) / math.sqrt(q.size(-1))

    def attend_with_tokens(
        self,
        x: Tensor,
        local: tuple[Tensor, Tensor, Tensor],
        scores: Tensor,
        blocked: Tensor,
        windows: Windows,
        frames: Frames,
    ) -> Tensor:
        """x: (B, T, D), scores of the windows: (B, H, N, Q, W) -> (B, H, T, D / H)"""
        t = x.size(1)
        tokens = torch.tensor(sorted({token // frames.step for token in self.tokens}), device=x.device)  # (G,)
        absent = (tokens >= frames.lengths[:, None])[:, None, None, None]  # (B, 1, 1, 1, G)
        at = tokens.clamp(max=t - 1)
        if self.global_attn_separate:
            q, k, v = (self.heads(linear(x)) for linear in (self.global_q, self.global_k, self.global_v))
        else:
            q, k, v = local
        q = q / math.sqrt(q.size(-1))

        to_tokens = windows.queries(q @ k[:, :, at].transpose(-2, -1))  # (B, H, N, Q, G)
        blocked = torch.cat([absent.expand(-1, -1, *blocked.shape[2:4], -1), blocked], dim=-1)
        weights = torch.cat([to_tokens, scores], dim=-1).masked_fill(blocked, -10000.0).softmax(dim=-1)
        weights = self.dropout(weights.masked_fill(blocked, 0.0))
        g = tokens.size(0)
        seen = weights[..., :g] @ local[2][:, :, None, at] + weights[..., g:] @ windows.keys(local[2])

        padding = frames.padding[:, None, None]  # (B, 1, 1, T)
        weights = (q[:, :, at] @ k.transpose(-2, -1)).masked_fill(padding, -10000.0).softmax(dim=-1)
        of_tokens = self.dropout(weights.masked_fill(padding, 0.0)) @ v  # (B, H, G, D / H)
        is_token = torch.arange(t, device=x.device)[:, None] == tokens  # (T, G)
        return torch.where(is_token.any(dim=1)[:, None], is_token.to(x.dtype) @ of_tokens, windows.joined(seen))


@dataclass(frozen=True)
class Windows:
    """T frames as N blocks of Q queries, the last filled up, each with the W = left + Q + right keys in their reach."""

    t: int
    left: int
    right: int
    block: int

    @classmethod
    def of(cls, context: Context, t: int, least: int = 32) -> Windows:
        """Blocks as long as the window is wide, so that half of the scores are of use, but of ``least`` or more."""
        return cls(t, context.left, context.right, max(context.left + context.right, least))

    @property
    def filling(self) -> int:
        return (self.t + self.block - 1) // self.block * self.block - self.t

    def queries(self, x: Tensor) -> Tensor:
        """(B, H, T, ...) -> (B, H, N, Q, ...)"""
        x = pad(x, (0, 0, 0, self.filling))
        return x.view(*x.shape[:2], -1, self.block, x.size(-1))

    def keys(self, x: Tensor) -> Tensor:
        """(B, H, T, d) -> (B, H, N, W, d)"""
        x = pad(x, (0, 0, self.left, self.right + self.filling))
        return overlapping(x, 2, self.left + self.block + self.right, self.block)

    def joined(self, x: Tensor) -> Tensor:
        """(B, H, N, Q, d) -> (B, H, T, d)"""
        return x.flatten(2, 3)[:, :, : self.t]

    def blocked(self, padding: Tensor) -> Tensor:
        """(B, T) True at padding -> (B, 1, N, Q, W) True where the key is padding or out of reach."""
        width = self.left + self.block + self.right
        beyond = overlapping(pad(padding, (self.left, self.right + self.filling), value=True), 1, width, self.block)
        ahead = torch.arange(width, device=padding.device) - torch.arange(self.block, device=padding.device)[:, None]
        return (beyond[:, :, None] | (ahead < 0) | (ahead > self.left + self.right))[:, None]

    def along_the_band(self, x: Tensor) -> Tensor:
        """(..., Q, left + right + 1) -> (..., Q, W): column m of row i becomes column i + m."""
        q, n = self.block, x.size(-1)
        return pad(x, (0, q)).flatten(-2)[..., :-q].view(*x.shape[:-2], q, n + q - 1)
