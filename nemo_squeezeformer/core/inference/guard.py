"""What an optimised encoder refuses: to train, and to be a checkpoint or take one."""

from __future__ import annotations

from typing import Any

from torch import nn

REMEDY = "it is for inference alone: its weights are folded. Restore the model again for an encoder that"


def guard(encoder: Any) -> None:
    """Has ``encoder`` raise where it would be trained, saved or loaded into."""
    encoder.register_forward_pre_hook(refuse_training)
    encoder.register_state_dict_pre_hook(refuse_saving)
    encoder.register_load_state_dict_pre_hook(refuse_loading)


def is_optimized(encoder: nn.Module) -> bool:
    """Whether ``optimize_for_inference`` has been called on ``encoder``."""
    return refuse_training in encoder._forward_pre_hooks.values()


def refuse(encoder: nn.Module, what: str) -> None:
    """Raises RuntimeError if ``encoder`` is optimised: it has no ``what`` any more."""
    if is_optimized(encoder):
        raise RuntimeError(f"{what} of an encoder after optimize_for_inference(): {REMEDY} has not been optimised")


def refuse_training(encoder: nn.Module, inputs: Any) -> None:
    if encoder.training:
        raise RuntimeError(
            f"forward in training mode of an encoder after optimize_for_inference(): {REMEDY} trains, or call eval()"
        )


def refuse_saving(encoder: nn.Module, prefix: str, keep_vars: bool) -> None:
    if not keep_vars:  # tracing and exporting ask for the variables themselves; checkpoints never do
        raise RuntimeError(f"state_dict() of an encoder after optimize_for_inference(): {REMEDY} can be saved")


def refuse_loading(encoder: nn.Module, *args: Any) -> None:
    raise RuntimeError(f"load_state_dict() into an encoder after optimize_for_inference(): {REMEDY} takes weights")
