"""The operations that an optimized encoder refuses: training, and saving and loading checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

REMEDY = "the weights are folded, so the encoder supports only inference. Restore the model again for an encoder that"


class Guarded(Protocol):
    """A module with the methods that register hooks. These methods have no types in torch."""

    def register_forward_pre_hook(self, hook: Callable[..., None], /) -> object:
        """Call ``hook`` before each call of ``forward``."""

    def register_state_dict_pre_hook(self, hook: Callable[..., None], /) -> object:
        """Call ``hook`` before each call of ``state_dict``."""

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None], /) -> object:
        """Call ``hook`` before each call of ``load_state_dict``."""


def guard(encoder: Guarded) -> None:
    """Make ``encoder`` raise RuntimeError in training mode, in ``state_dict`` and in ``load_state_dict``."""
    encoder.register_forward_pre_hook(refuse_training)
    encoder.register_state_dict_pre_hook(refuse_saving)
    encoder.register_load_state_dict_pre_hook(refuse_loading)


def is_optimized(encoder: nn.Module) -> bool:
    """Return True if ``optimize_for_inference`` was called on ``encoder``."""
    return refuse_training in encoder._forward_pre_hooks.values()


def refuse(encoder: nn.Module, what: str) -> None:
    """Raise RuntimeError if ``encoder`` is optimized, because an optimized encoder does not support ``what``."""
    if is_optimized(encoder):
        raise RuntimeError(f"{what} of an encoder after optimize_for_inference(): {REMEDY} is not optimized")


def refuse_training(encoder: nn.Module, inputs: Any) -> None:
    if encoder.training:
        raise RuntimeError(
            f"forward in training mode of an encoder after optimize_for_inference(): {REMEDY} can train, or call eval()"
        )


def refuse_saving(encoder: nn.Module, prefix: str, keep_vars: bool) -> None:
    if not keep_vars:  # tracing and exporting pass keep_vars=True; saving a checkpoint does not
        raise RuntimeError(f"state_dict() of an encoder after optimize_for_inference(): {REMEDY} can be saved")


def refuse_loading(encoder: nn.Module, *args: Any) -> None:
    raise RuntimeError(f"load_state_dict() into an encoder after optimize_for_inference(): {REMEDY} can load weights")
