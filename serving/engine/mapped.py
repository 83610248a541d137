"""Copies of tensors in memory that goes back to the system when they are dropped."""

from __future__ import annotations

import math
import mmap
from typing import Any

import torch

LEAST_MAPPED = 256 * 2**10
"""Bytes; what is smaller lies on the heap: a process may have some 65,000 mappings."""


def owned(piece: Any) -> Any:
    """A contiguous copy of a tensor on CPU: a view would keep the whole alive.

    A large one is a mapping of its own. Those of a cache come and go in all sizes and at any time,
    and on the heap would leave holes that nothing fits.
    """
    if piece.nbytes < LEAST_MAPPED:
        return piece.clone(memory_format=torch.contiguous_format)
    memory = mmap.mmap(-1, piece.nbytes)
    flat = torch.frombuffer(memory, dtype=piece.dtype, count=math.prod(piece.shape))
    return flat.view(piece.shape).copy_(piece)
