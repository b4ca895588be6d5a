"""The cache of the relative position encodings, and of the projections of these encodings in each layer.

The encodings for fewer frames are the middle rows of the encodings for more frames, at every frame rate. Therefore an
encoder needs only a single table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attention.positions import relative_encodings
from ..cpu.linear import FastLinear
from ..dispatch import in_graph, plain_module

# The minimum and maximum number of frames of the table. The table grows by factors of 2. Encodings for more frames are
# not cached.
LEAST, MOST = 64, 1024


class EncodingTable:
    """A cached ``relative_encodings``: a table with one row for each position from N - 1 to 1 - N."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def __call__(self, first: int, last: int, x: Tensor) -> Tensor:
        """Return the encodings (first - last + 1, D) of the positions ``first`` to ``last``, in descending order."""
        if in_graph() or max(first, -last) >= MOST:
            return relative_encodings(first, last, x)
        frames = max(first, -last) + 1
        rows = self.rows
        if rows is None or rows.size(0) < 2 * frames - 1 or (rows.device, rows.dtype) != (x.device, x.dtype):
            n = LEAST
            while n < frames:
                n *= 2
            with torch.inference_mode(False):  # autograd cannot use inference tensors
                rows = self.rows = relative_encodings(n - 1, 1 - n, x)
        zero = rows.size(0) // 2
        return rows[zero - first : zero - last + 1]

    def has_rows(self, x: Tensor) -> bool:
        """Return True if ``x`` is a view of the table."""
        return self.rows is not None and x.untyped_storage().data_ptr() == self.rows.untyped_storage().data_ptr()

    def __getstate__(self) -> dict[str, Any]:
        return {"rows": None}


@plain_module
class KeptLinear(FastLinear):
    """A linear layer that caches the outputs for the rows of ``table``."""

    def __init__(self, weight: Tensor, bias: Tensor | None, table: EncodingTable):
        super().__init__(weight, bias)
        self.table = table
        self.kept: tuple[Tensor, Tensor] | None = None  # rows of the table, outputs for the rows

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (N, in_features) -> (N, out_features)."""
        if in_graph() or torch.is_autocast_enabled(x.device.type) or not self.table.has_rows(x):
            return super().forward(x)
        if self.kept is None or self.kept[0] is not self.table.rows:
            assert self.table.rows is not None
            with torch.inference_mode(False), torch.no_grad():
                self.kept = self.table.rows, super().forward(self.table.rows)
        first = x.storage_offset() // x.size(1)
        return self.kept[1][first : first + x.size(0)]

    def _apply(self, *args: Any) -> Any:
        self.kept = None
        return super()._apply(*args)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"kept": None}
