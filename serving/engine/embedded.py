"""The embedded engine: a checkpoint run in this process, on one thread of its own.

Tokenising, the forward pass and the cache belong to that thread, so the event loop stays free and
no lock is needed. Decisions are made in the order they were asked for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import ContractError
from routing.layout import in_reading_order
from routing.tasks import Route
from serving.engine.base import (
    WARM_UP,
    WARM_UP_ROUTES,
    EngineBusy,
    EngineError,
    EngineFacts,
    EngineMetrics,
)
from serving.engine.checkpoint import load_model
from serving.engine.contract import read_contract
from serving.engine.heap import trim
from serving.engine.prefixes import PrefixMemo
from serving.engine.scorer import Scorer

R = TypeVar("R")

TRIM_EVERY = 1000
"""Decisions between two looks for memory to give back, of a few milliseconds each."""


class EmbeddedEngine:
    """Decides with a checkpoint on this machine's CPU.

    `base` is the folder of the model that an adapter goes on; a merged checkpoint needs none.
    `threads` are the CPU threads of a forward pass, `cache_bytes` bounds the tensors kept between
    decisions, and more than `max_waiting` decisions in the queue raise EngineBusy. A folder that
    is no checkpoint raises UnsupportedCheckpoint here; weights are read by `start`.
    """

    name = "embedded"

    def __init__(
        self,
        checkpoint: Path,
        base: Path | None,
        *,
        threads: int = 2,
        cache_bytes: int = 512 * 2**20,
        max_waiting: int = 32,
    ) -> None:
        self._contract = read_contract(checkpoint)
        self._prefixes = PrefixMemo(self._contract.layout)
        manifest = self._contract.manifest
        self.version = manifest.version
        self._facts = EngineFacts.of(self.name, manifest)
        self._base = base
        self._threads = threads
        self._cache_bytes = cache_bytes
        self._max_waiting = max_waiting
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="pointsman-engine")
        self._closing = threading.Event()
        self._submitted: set[Future[Decision]] = set()
        self._scorer: Scorer | None = None
        self._queue_seconds = 0.0
        self._until_trim = TRIM_EVERY

    def facts(self) -> EngineFacts:
        return self._facts

    def check_routes(self, routes: Sequence[Route]) -> None:
        """Raise InvalidRequest if these routes cannot be laid out within the budget."""
        self._prefixes(in_reading_order(routes)[0])

    async def start(self) -> None:
        """Load the weights and decide once.

        Raises UnsupportedCheckpoint for a checkpoint that cannot be served, EngineError for
        anything else that keeps it from deciding.
        """
        self._refuse_if_closed()
        await self._outcome(self._executor.submit(self._load))

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the last user turn.

        Raises EngineBusy at once if too many wait, InvalidRequest for routes or a conversation
        that cannot be read, EngineError if the model fails. Cancelled while it waits it costs
        nothing; cancelled while it runs, what was read stays in the cache.
        """
        self._refuse_if_closed()
        waiting = sum(not (f.running() or f.done()) for f in tuple(self._submitted))
        if waiting >= self._max_waiting:
            raise EngineBusy(f"{waiting} decisions are waiting already")
        asked = time.perf_counter()
        future = self._executor.submit(self._decide, tuple(routes), conversation, asked)
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return await self._outcome(future)

    async def close(self) -> None:
        """Abandon what runs, end the thread and let go of the model; may be called twice."""
        self._closing.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        # Waits for one layer at most, on another thread: the loop goes on.
        await asyncio.to_thread(self._executor.shutdown, wait=True)
        self._scorer = None

    def trouble(self) -> str | None:
        """None: what fails here fails for one decision alone."""
        return None

    def metrics(self) -> EngineMetrics:
        """Counts since `start`."""
        scorer = self._scorer
        found = EngineMetrics() if scorer is None else scorer.metrics()
        running = sum(future.running() for future in tuple(self._submitted))
        return replace(
            found,
            queue_seconds=self._queue_seconds,
            batched=found.decisions,
            waiting=len(self._submitted) - running,
            under_way=running,
        )

    def _load(self) -> None:
        # OpenMP's thread count belongs to the thread that sets it.
        torch.set_num_threads(self._threads)
        model = load_model(self._contract, self._base)
        scorer = Scorer(
            self._contract,
            model,
            self._prefixes,
            cache_bytes=self._cache_bytes,
            check=self._refuse_if_closed,
        )
        scorer.decide(WARM_UP_ROUTES, WARM_UP)
        scorer.forget()
        trim()  # what loading left behind
        self._scorer = scorer

    def _decide(
        self, routes: Sequence[Route], conversation: Conversation, asked: float
    ) -> Decision:
        self._queue_seconds += time.perf_counter() - asked
        if self._scorer is None:
            raise EngineError("the engine has not been started")
        self._until_trim -= 1
        if self._until_trim < 0:
            self._until_trim = TRIM_EVERY
            trim()
        return self._scorer.decide(routes, conversation)

    async def _outcome(self, future: Future[R]) -> R:
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # `close` cancels what waits; to its caller that is a failure, not a cancellation.
            task = asyncio.current_task()
            if self._closing.is_set() and not (task and task.cancelling()):
                raise EngineError("the engine was closed") from None
            raise
        except (EngineError, ContractError):
            raise
        except Exception as error:
            raise EngineError(f"the model failed: {type(error).__name__}: {error}") from error

    def _refuse_if_closed(self) -> None:
        if self._closing.is_set():
            raise EngineError("the engine was closed")
