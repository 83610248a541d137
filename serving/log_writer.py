"""Writes the lines of a log: many together, urgent ones at once."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from typing import BinaryIO

WRITTEN_AFTER_S = 0.05
"""Lines of requests are written together, so late at most; a killed process may lose them."""


class LineWriter:
    """What structlog writes to: warnings and worse at once, with all that waits before them.

    A write lets other threads have the interpreter: one for each request would cost more than all
    that is done to make its line.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._some = threading.Event()
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()
        atexit.register(self.flush)

    def info(self, line: bytes) -> None:
        """Write soon."""
        self._lines.append(line)
        if not self._some.is_set():
            self._some.set()

    debug = info

    def warning(self, line: bytes) -> None:
        """Write now."""
        self._lines.append(line)
        self.flush()

    error = critical = warning

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self._file.write(b"\n".join(lines) + b"\n")
                self._file.flush()

    def _run(self) -> None:
        while True:
            self._some.wait()
            time.sleep(WRITTEN_AFTER_S)
            self._some.clear()
            self.flush()
