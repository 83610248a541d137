"""Processes on one core: started, weighed, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_S = 5.0


@contextmanager
def running(
    command: Sequence[str],
    cores: str,
    log: Path,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that only these cores may run, with what it starts; ended with its group.

    `cores` is a list by comma, as of taskset.
    """
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environ is None else {**os.environ, **environ},
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)


def wait_for_port(process: subprocess.Popen[bytes], port: int, limit_s: float) -> bool:
    """Whether something listens on the port before the process ends or time is up."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.1)
    return False


def rss_mb(pid: int) -> float:
    """Resident memory of a process and its children, in MB of 2^20 bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    pages = 0
    for each in _tree(pid):
        with suppress(OSError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * page / 2**20


def cpu_seconds(pid: int) -> float:
    """CPU time that a process and its children have used."""
    ticks = 0
    for each in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                found += _tree(int(child))
    return found
