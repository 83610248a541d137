"""Free memory of the C heap, given back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return found


_trim = _malloc_trim()


def trim() -> None:
    """Let go of whole pages that nothing lies in; malloc_trim(3), nothing without glibc.

    By itself glibc gives back the heap's end alone. A pass takes and frees large blocks between
    small ones that stay, so that free memory within the heap would grow for a long time.
    """
    if _trim is not None:
        _trim(0)
