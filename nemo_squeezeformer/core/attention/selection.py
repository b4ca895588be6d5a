"""The choice of the attention modules from the settings of an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..frames.context import ContextSettings
from .kernel import KERNELS, PlainKernel
from .local_attention import LocalAttention
from .multi_head import MultiHeadAttention, RelPositionAttention, position_biases
from .positions import AbsolutePositions, LocalPositions, RelativePositions, RotaryPositions
from .rotary import RotaryAttention
from .rotation import rotary_width

MODELS = ("rel_pos", "rel_pos_local_attn", "abs_pos", "rope")
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
    rope_base: float = 10000.0
    rotary_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.self_attention_model not in MODELS:
            raise ValueError(
                f"self_attention_model={self.self_attention_model!r}: expected one of {', '.join(map(repr, MODELS))}"
            )
        choose_kernel(self.form, self.sdpa, self.self_attention_model)
        if self.self_attention_model == "rope":
            rotary_width(self.d_model, self.n_heads, self.rotary_fraction)

    @property
    def local(self) -> bool:
        """True for local attention, which needs no mask of all queries and all keys."""
        return self.self_attention_model == "rel_pos_local_attn"

    def build_positions(self, dropout: float) -> tuple[nn.Module, nn.Module]:
        """Return two position modules.

        The first module is for the layers outside the temporal U-Net. The second module is for the layers inside the
        temporal U-Net. Only the first module has ``dropout``. Absolute and rotary positions have no dropout.
        """
        if self.self_attention_model == "abs_pos":
            return AbsolutePositions(), AbsolutePositions()
        if self.self_attention_model == "rope":
            head = self.d_model // self.n_heads
            width = rotary_width(self.d_model, self.n_heads, self.rotary_fraction)
            return RotaryPositions(head, width, self.rope_base), RotaryPositions(head, width, self.rope_base)
        kind = LocalPositions if self.local else RelativePositions
        return kind(dropout), kind()

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
        if not self.untie_biases and self.self_attention_model.startswith("rel_pos"):
            biases = position_biases(self.d_model, self.n_heads)
        for _ in range(layers):
            yield self._one(biases)

    def _one(self, biases: tuple[nn.Parameter, nn.Parameter] | None) -> MultiHeadAttention:
        common = (self.d_model, self.n_heads, self.dropout, self.use_bias)
        if self.local:
            return LocalAttention(*common, biases, *self.global_tokens)
        kernel = choose_kernel(self.form, self.sdpa, self.self_attention_model)
        if self.self_attention_model == "abs_pos":
            return MultiHeadAttention(*common, kernel)
        if self.self_attention_model == "rope":
            return RotaryAttention(*common, kernel, self.rotary_fraction)
        return RelPositionAttention(*common, kernel, biases)


def choose_kernel(attention: str, sdpa_backends: tuple[str, ...] | None, model: str = "rel_pos") -> PlainKernel:
    """Return the kernel that the settings choose.

    Args:
        attention: ``attention`` of the encoder.
        sdpa_backends: The backends of ``use_pytorch_sdpa``, or None if ``use_pytorch_sdpa`` is False.
        model: ``self_attention_model`` of the encoder. Attention without position scores has kernels of its own, whose
            names end with ``_without_scores``.

    Raises:
        ValueError: ``attention`` is unknown, or the two settings choose different kernels.
    """
    if sdpa_backends is not None:
        if attention not in ("auto", "sdpa"):
            raise ValueError(f"attention={attention!r} and use_pytorch_sdpa=True: leave out one of the two settings")
        attention = "sdpa"
    if attention not in FORMS:
        raise ValueError(f"attention={attention!r}: expected one of {', '.join(map(repr, FORMS))}")
    own = f"{attention}_without_scores"
    return KERNELS[attention if model.startswith("rel_pos") or own not in KERNELS else own](sdpa_backends)
