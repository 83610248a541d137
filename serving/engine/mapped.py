"""Memory of cached tensors, apart from the heap.

They come and go in all sizes and at any time, and among what else a process allocates would leave
holes that nothing fits. Here each lies in a mapping of its own, of one of few sizes; some that were
let go are kept for the next, because a new mapping costs a page fault every 4 KiB.
"""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

LEAST_MAPPED = 256 * 2**10
"""Bytes; what is smaller lies on the heap: a process may have some 65,000 mappings."""
SPARE = 16 * 2**20
"""Bytes of mappings kept for the next, at most."""
STEPS = 8
"""Sizes between a power of two and the next: at most an eighth of a mapping is not used."""


class Mappings:
    """Private mappings, used again. Thread-safe."""

    def __init__(self, spare: int = SPARE) -> None:
        self._most_spare = spare
        self._spare: list[mmap.mmap] = []
        self._returned: deque[mmap.mmap] = deque()
        self._lock = threading.Lock()

    @property
    def spare_bytes(self) -> int:
        """Of what is kept for the next."""
        return sum(map(len, (*self._spare, *self._returned)))

    def take(self, nbytes: int) -> memoryview:
        """Memory of at least `nbytes`, of any content; given back when nothing refers to it."""
        size = _size(nbytes)
        with self._lock:
            self._settle()
            found = next((n for n, each in enumerate(self._spare) if len(each) == size), None)
            block = None if found is None else self._spare.pop(found)
        if block is None:
            block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = memoryview(block)
        weakref.finalize(view, self._give, block).atexit = False
        return view

    def _give(self, block: mmap.mmap) -> None:
        self._returned.append(block)
        # The collector may come here from within `take`, which holds the lock: the next settles it.
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        while self._returned:
            self._spare.append(self._returned.popleft())
        spare = sum(map(len, self._spare))
        while spare > self._most_spare:
            spare -= len(self._spare.pop(0))


_mappings = Mappings()


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Any:
    """A contiguous tensor on CPU whose content is not set."""
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    if nbytes < LEAST_MAPPED:
        return torch.empty(tuple(shape), dtype=dtype)
    whole = torch.frombuffer(_mappings.take(nbytes), dtype=dtype)
    return whole[:count].view(tuple(shape))


def _size(nbytes: int) -> int:
    step = max(mmap.PAGESIZE, 1 << (nbytes.bit_length() - 1 - (STEPS.bit_length() - 1)))
    return -(-nbytes // step) * step
