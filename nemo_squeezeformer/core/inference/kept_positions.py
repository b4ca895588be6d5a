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

    def rows_of(self, x: Tensor) -> Tensor | None:
        """Return the rows of the table if ``x`` is a view of these rows, or None."""
        rows = self.rows
        if rows is None or x.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr():
            return None
        return rows

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
        # Another thread may replace the table or ``kept`` at any time, so each of them is read only once.
        rows = None if in_graph() or torch.is_autocast_enabled(x.device.type) else self.table.rows_of(x)
        if rows is None:
            return super().forward(x)
        kept = self.kept
        if kept is None or kept[0] is not rows:
            with torch.inference_mode(False), torch.no_grad():
                kept = self.kept = rows, super().forward(rows)
        first = x.storage_offset() // x.size(1)
        return kept[1][first : first + x.size(0)]

    def _apply(self, *args: Any) -> Any:
        self.kept = None
        return super()._apply(*args)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"kept": None}
