"""Memory that holds nothing goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOLES = """
import ctypes
import psutil
from serving.engine import heap

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
large, small = [], []
for _ in range(1000):
    large.append(libc.malloc(64 * 1024))
    ctypes.memset(large[-1], 1, 64 * 1024)
    small.append(libc.malloc(64))  # which keeps what is below it from being the heap's end
for block in large:
    libc.free(block)
held = lambda: psutil.Process().memory_info().rss
before = held()
heap.trim()
print((before - held()) // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such call")
def test_pages_between_what_stays_are_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, check=False
    )
    assert int(done.stdout or 0) > 40, done.stderr
