"""What a run achieves: tokens and decisions a second, model FLOPs utilisation, memory, overhead."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from training.readout import Batch

MIB = 2**20


class Meter(TrainerCallback):
    """Counts what passes through the trainer since its first step.

    `flops_per_token` is what one token costs in forward and backward, for MFU against `peak_flops`
    a process (both optional: no peak, no MFU). Figures are of this process times `processes`.
    """

    def __init__(
        self,
        processes: int,
        flops_per_token: float | None = None,
        peak_flops: float | None = None,
    ) -> None:
        self._processes = processes
        self._flops_per_token = flops_per_token
        self._peak = peak_flops
        self.tokens = self.decisions = 0
        self._begun: float | None = None
        self.working = 0.0
        """Seconds within forward and backward."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # What comes before the first step, loading and standardising, is done once.
        self._begun = self._begun or time.perf_counter()

    @contextmanager
    def forward(self, batch: Batch) -> Iterator[None]:
        """Around a forward pass: counts its real tokens, not the padding."""
        mask = batch.get("attention_mask")
        self.tokens += int(batch["input_ids"].numel() if mask is None else mask.sum())
        self.decisions += len(batch["decision_rows"])
        yield

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around forward and backward of one pass."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.working += time.perf_counter() - start

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun if self._begun is not None else 0.0

    def figures(self) -> dict[str, float]:
        """Rates since the first step, over all processes; memory of this one, in MiB."""
        elapsed = max(self.seconds, 1e-9)
        figures = {
            "decisions": float(self.decisions * self._processes),
            "trained_tokens": float(self.tokens * self._processes),
            "tokens_per_second": round(self.tokens * self._processes / elapsed, 1),
            "decisions_per_second": round(self.decisions * self._processes / elapsed, 3),
            "overhead_share": round(max(0.0, 1 - self.working / elapsed), 4),
            "memory_mib": round(_memory_mib()),
        }
        if self._flops_per_token and self._peak:
            used = self.tokens * self._flops_per_token / elapsed / self._peak
            figures["mfu"] = round(used, 4)
        return figures


class StopAfter(TrainerCallback):
    """Ends training after so many seconds of it, and keeps what the meter said then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.steps = 0
        self.figures: dict[str, float] = {}
        self.meter: Meter | None = None
        """Set by `train`."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.meter is not None
        if self.meter.seconds >= self._seconds:
            self.steps, self.figures = state.global_step, self.meter.figures()
            control.should_training_stop = True


def _memory_mib() -> float:
    """Peak memory: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / MIB
    # getrusage(2): kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
