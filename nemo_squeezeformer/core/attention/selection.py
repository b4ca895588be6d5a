"""The choice of the attention modules from the settings of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..frames.context import ContextSettings
from .kernel import KERNELS, PlainKernel
from .local_attention import LocalAttention
from .multi_head import MultiHeadAttention, RelPositionAttention, position_biases

MODELS = ("rel_pos", "rel_pos_local_attn", "abs_pos")
FORMS = ("auto", "plain", "blocks", "sdpa")


@dataclass(frozen=True)
class AttentionSettings:
    """The settings of an encoder that concern attention.

    Raises:
        ValueError: ``self_attention_model`` is unknown, or another setting does not fit ``self_attention_model``.
    """

    self_attention_model: str
    d_model: int
    n_heads: int
    dropout: float = 0.0
    untie_biases: bool = True
    use_bias: bool = True
    form: str = "auto"
    sdpa: tuple[str, ...] | None = None  # backends: () means all backends, None means use_pytorch_sdpa=False
    global_tokens: tuple[int, int, bool] = (0, 1, False)  # number, spacing, separate projections

    def __post_init__(self) -> None:
        if self.self_attention_model not in MODELS:
            raise ValueError(
                f"self_attention_model={self.self_attention_model!r}: expected one of {', '.join(map(repr, MODELS))}"
            )
        choose_kernel(self.form, self.sdpa)
        if self.local and (self.sdpa is not None or self.form != "auto"):
            given = f"attention={self.form!r}" if self.sdpa is None else "use_pytorch_sdpa=True"
            raise ValueError(f"{given}: self_attention_model='rel_pos_local_attn' has its own kernel; omit the setting")

    @property
    def local(self) -> bool:
        """True for local attention, which needs no mask of all queries and all keys."""
        return self.self_attention_model == "rel_pos_local_attn"

    def refuse_contexts(self, contexts: ContextSettings, sizes: Sequence[Sequence[int]]) -> None:
        """Raise ``ValueError`` if the attention does not support one of the context ``sizes``."""
        if not self.local:
            return
        if contexts.style != "regular":
            raise ValueError(
                f"att_context_style={contexts.style!r}: self_attention_model='rel_pos_local_attn' has windows, "
                "not chunks; use att_context_style='regular', or self_attention_model='rel_pos' for chunks"
            )
        for size in sizes:
            if min(size) < 0 or max(size) == 0:
                raise ValueError(
                    f"att_context_size={list(size)}: self_attention_model='rel_pos_local_attn' needs a window, for "
                    "example [128, 128]; use 'rel_pos' to attend to all frames"
                )

    def build(self, layers: int) -> Iterator[MultiHeadAttention]:
        """Yield an attention module for each layer.

        With ``untie_biases=False``, all modules share a pair of position biases.
        """
        biases = None
        if not self.untie_biases and self.self_attention_model != "abs_pos":
            biases = position_biases(self.d_model, self.n_heads)
        for _ in range(layers):
            yield self._one(biases)

    def _one(self, biases: tuple[nn.Parameter, nn.Parameter] | None) -> MultiHeadAttention:
        common = (self.d_model, self.n_heads, self.dropout, self.use_bias)
        if self.local:
            return LocalAttention(*common, biases, *self.global_tokens)
        kernel = choose_kernel(self.form, self.sdpa)
        if self.self_attention_model == "abs_pos":
            return MultiHeadAttention(*common, kernel)
        return RelPositionAttention(*common, kernel, biases)


def choose_kernel(attention: str, sdpa_backends: tuple[str, ...] | None) -> PlainKernel:
    """Return the kernel that the settings choose.

    Args:
        attention: ``attention`` of the encoder.
        sdpa_backends: The backends of ``use_pytorch_sdpa``, or None if ``use_pytorch_sdpa`` is False.

    Raises:
        ValueError: ``attention`` is unknown, or the two settings choose different kernels.
    """
    if sdpa_backends is not None:
        if attention not in ("auto", "sdpa"):
            raise ValueError(f"attention={attention!r} and use_pytorch_sdpa=True: leave out one of the two settings")
        return KERNELS["sdpa"](sdpa_backends)
    if attention not in FORMS:
        raise ValueError(f"attention={attention!r}: expected one of {', '.join(map(repr, FORMS))}")
    return KERNELS[attention](None)
