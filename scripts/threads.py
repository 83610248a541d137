"""How the threads of numerical libraries behave in our processes."""

from __future__ import annotations

import os


def settle_threads() -> None:
    """Set what the libraries read when they are loaded: to be called before torch and numpy are.

    What the environment says already stands.
    """
    # OpenMP threads that never spin cost a decision a third more time; threads that spin for long
    # ruin every other process on the machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # numpy multiplies one row by the pointer's matrix: threads of its own, woken while torch's
    # still spin, make 3 ms or more of 0.7.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
