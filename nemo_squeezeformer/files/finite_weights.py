"""A check of the weights and statistics of a model: every value must be a finite number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

REMEDY = "use an earlier checkpoint, or train the model again"


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that contain NaN or an infinite value.

    The check reads each tensor once, without a copy. It waits for a GPU once.
    """
    import torch

    checked = {name: value.detach() for name, value in tensors.items() if _has_floats(value)}
    if not checked:
        return []
    # The smallest and the largest value are NaN if any value is NaN. A float8 tensor has no such operation.
    limits = [
        torch.stack(torch.aminmax(value.float() if value.element_size() == 1 else value)) for value in checked.values()
    ]
    finite = torch.stack([limit.isfinite().all().to(limits[0].device) for limit in limits]).tolist()
    return [name for name, is_finite in zip(checked, finite) if not is_finite]


def complaint(names: list[str], total: int) -> str:
    """Return a sentence about the tensors ``names``, which are not finite, of ``total`` tensors."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} of {total} tensors contain NaN or infinite values ({shown}); {REMEDY}"


def _has_floats(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and not tensor.is_meta
