"""Generations, one at a time, on a thread of their own; the event loop only passes text on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.local_upstream.protocol import ChatRequest, RequestError

RETRY_AFTER_S = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt has its final length."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer."""

    reason: Literal["stop", "length"]
    completion_tokens: int


Event = Started | str | Finished | RequestError


class Generation:
    """One answer on its way; iterate it for its events, cancel it when nobody listens."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop soon; without effect on one that has ended."""
        self._cancelled.set()

    def emit(self, event: Event) -> None:
        """Hand an event over from the generating thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop has closed: the server is going down
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[Started | str | Finished]:
        """`Started`, pieces of text, `Finished`; raises RequestError where it failed."""
        while True:
            event = await self._events.get()
            if isinstance(event, RequestError):
                raise event
            yield event
            if isinstance(event, Finished):
                return


class Generator:
    """Runs generations in the order they came; at most `max_waiting` wait behind the running one.

    `on_failure` is called, on the thread, if the model cannot be loaded. Counts (`running`,
    `waiting`, `finished`, `cancelled`) are for the health page.
    """

    def __init__(
        self,
        base: Path,
        *,
        threads: int,
        max_waiting: int = 8,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._base = base
        self._on_failure = on_failure
        self._threads = threads
        self._max_waiting = max_waiting
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="pointsman-upstream")
        self._active: set[Generation] = set()
        self.failure: str | None = None
        self.ready = False
        self.running = self.finished = self.cancelled = 0

    @property
    def waiting(self) -> int:
        return max(len(self._active) - self.running, 0)

    def load(self) -> None:
        """Begin loading; `ready` or `failure` tells how it went."""
        self._executor.submit(self._load)

    def submit(self, request: ChatRequest) -> Generation:
        """Queue a request; raises RequestError while loading (503) and if too many wait (429)."""
        if self.failure is not None:
            raise RequestError(503, f"the model could not be loaded: {self.failure}")
        if not self.ready:
            raise RequestError(503, "the model is being loaded", retry_after=RETRY_AFTER_S)
        if sum(not generation.cancelled for generation in tuple(self._active)) > self._max_waiting:
            raise RequestError(
                429,
                "one generation at a time, and too many are waiting: try again later",
                code="rate_limit_exceeded",
                retry_after=RETRY_AFTER_S,
            )
        generation = Generation(request)
        self._active.add(generation)
        self._executor.submit(self._run, generation)
        return generation

    def close(self) -> None:
        """Cancel everything and end the thread."""
        for generation in tuple(self._active):
            generation.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        try:
            # Imported here so that the port answers while torch is on its way.
            from serving.local_upstream.model import LanguageModel
            from serving.local_upstream.prompt import ChatPrompt

            self._prompt = ChatPrompt(self._base)
            self._model = LanguageModel(self._base, self._threads)
            self.ready = True
        except Exception as error:
            logger.exception("cannot load %s", self._base)
            self.failure = f"{type(error).__name__}: {error}"
            self._on_failure()

    def _run(self, generation: Generation) -> None:
        self.running = 1
        try:
            outcome = None if generation.cancelled else self._generate(generation)
        except Exception as error:
            logger.exception("generation failed")
            outcome = RequestError(500, f"generation failed: {type(error).__name__}")
        self._active.discard(generation)
        self.running = 0
        if outcome is None:
            self.cancelled += 1
            return
        self.finished += 1
        generation.emit(outcome)

    def _generate(self, generation: Generation) -> Finished | RequestError | None:
        """Emit the text; the end of the answer, or None where nobody waits for it any more."""
        from serving.local_upstream.text import TextStream

        request = generation.request
        prompt = self._prompt.tokens(request.conversation)
        generation.emit(Started(len(prompt)))
        text = TextStream(self._prompt.tokenizer, request.stop)
        ends = self._prompt.control_tokens
        reason: Literal["stop", "length"] = "length"
        count = 0
        for token in self._model.generate(prompt, request.sampling, lambda: generation.cancelled):
            if token in ends:
                reason = "stop"
                break
            count += 1
            piece = text.push(token)
            if piece:
                generation.emit(piece)
            if text.stopped:
                reason = "stop"
                break
            if count == request.max_tokens:
                break
        if generation.cancelled:
            return None
        held = text.finish()
        if held:
            generation.emit(held)
        return Finished(reason, count)
