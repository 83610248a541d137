"""Training processes forked from one that has torch, TRL and DeepSpeed imported already.

On two cores those imports take longer than a tiny twin's training. What `torchrun` hands its
processes (rank, world, where to meet) is set here; from there on it is the command itself.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from serving.local_process import free_port

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ["training.train", "training.calibrate", "deepspeed", "scripts.cli"]


def command(arguments: list[str], processes: int, log: Path, timeout: float) -> None:
    """Run a `pointsman` command as `processes` ranks; all must end well."""
    context = _server()
    port = free_port("127.0.0.1")
    ranks = [
        context.Process(target=_rank, args=(arguments, rank, processes, port, log))
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    try:
        for process in ranks:
            process.join(timeout)
            assert process.exitcode == 0, log.read_text()[-3000:]
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _server() -> Any:
    """The process that forks others, with what it needs in its environment alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        forkserver.ensure_running()
    return context


def _rank(arguments: list[str], rank: int, processes: int, port: int, log: Path) -> None:
    """One process of the command."""
    os.chdir(ROOT)
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(processes),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    from scripts.cli import main

    sys.argv = ["pointsman", *arguments]
    main()
