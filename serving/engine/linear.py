"""A matrix product by weights laid out for the processor once, instead of at every product.

A pass over one user turn has some 70 rows: MKL then spends a third of its time on bringing the
weights into its own order. oneDNN takes weights that are in its order already.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

ROWS = 256
"""Rows of one product, at most: oneDNN keeps code for each number of rows, and much for large."""
STEP = 8
"""Products have a multiple of so many rows: few different numbers of rows, at little cost."""


class Linear:
    """`x @ weight.T + bias` in float32 on CPU, of `weight` [out, in] and `bias` [out] or None."""

    def __init__(self, weight: Any, bias: Any = None) -> None:
        self._bias = bias
        self._packed = _packed(weight)
        self._weight = weight if self._packed is None else None

    def __call__(self, rows: Any) -> Any:
        """[n, out] of `rows` [n, in]."""
        if self._packed is None:
            return F.linear(rows, self._weight, self._bias)
        count = len(rows)
        padded = F.pad(rows, (0, 0, 0, -count % STEP)) if count % STEP else rows
        if len(padded) <= ROWS:
            return self._product(padded)[:count]
        parts = -(-len(padded) // ROWS)
        size = -(-len(padded) // parts // STEP) * STEP
        return torch.cat([self._product(part) for part in padded.split(size)])[:count]

    def _product(self, rows: Any) -> Any:
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")


def _packed(weight: Any) -> Any | None:
    """Weights in oneDNN's order, or None where torch comes without it."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), STEP * 8)
    except (AttributeError, RuntimeError):  # operators without a promise to stay
        return None
