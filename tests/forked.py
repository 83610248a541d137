"""Processes forked from one that has torch, TRL and DeepSpeed, or vLLM, imported already.

On two cores those imports take longer than a tiny twin's training, and longer than all that the
tests have vLLM compute. What `torchrun` hands its processes (rank, world, where to meet) is set
here; from there on it is the command itself.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from serving.local_process import free_port

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ["training.train", "training.calibrate", "deepspeed", "scripts.cli"]
VLLM = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models"]
_loaded: list[str] = []
"""Modules of the running server."""


def command(arguments: list[str], processes: int, log: Path, timeout: float) -> None:
    """Run a `pointsman` command as `processes` ranks; all must end well."""
    context = _server(TRAINING, DS_ACCELERATOR="cpu")
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


@contextmanager
def vllm_children() -> Iterator[None]:
    """vLLM's engine cores are forked, where it would start them anew."""
    from vllm.v1.engine import utils

    _server(VLLM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "get_mp_context", _Context)
        yield


class _Process(ForkServerProcess):
    """With the environment of the process that starts it."""

    def start(self) -> None:
        self._args = (dict(os.environ), self._target, self._args, self._kwargs)
        self._target, self._kwargs = _with_environ, {}
        super().start()


class _Context(ForkServerContext):
    Process = _Process


def _with_environ(
    environ: Mapping[str, str],
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    os.environ.update(environ)
    target(*arguments, **named)


def _server(modules: list[str], **environ: str) -> ForkServerContext:
    """The process that forks others, with what it needs in its environment alone.

    There is one at a time: one with other modules is ended.
    """
    context = multiprocessing.get_context("forkserver")
    if _loaded != modules:
        forkserver._forkserver._stop()
        context.set_forkserver_preload(modules)
        _loaded[:] = modules
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        for name, value in environ.items():
            patch.setenv(name, value)
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
