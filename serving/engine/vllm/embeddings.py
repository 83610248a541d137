"""The encoder's vectors for decisions that wait for them together, in as few passes as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from serving.engine.base import EngineError

Array = NDArray[Any]
Embed = Callable[[Sequence[str]], Array]
_Asked = tuple[Sequence[str], "asyncio.Future[Array]"]


class Embeddings:
    """Vectors of texts, by a thread of its own; what is asked while it computes goes together next.

    A pass over one short text costs twice its share of a pass over many, and several times that
    where the model computes on the same cores. `load` gives what embeds, when this starts.
    """

    def __init__(self, load: Callable[[], Embed]) -> None:
        self._load = load
        self._embed: Embed | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pointsman-encoder")
        self._waiting: list[_Asked] = []
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the encoder, once; raises what `load` raises."""
        if self._embed is None:
            loop = asyncio.get_running_loop()
            self._embed = await loop.run_in_executor(self._thread, self._load)

    async def __call__(self, texts: Sequence[str]) -> Array:
        """Vectors [len(texts), hidden]; raises EngineError when there can be none."""
        future: asyncio.Future[Array] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer())
        return await future

    def close(self) -> None:
        """Let go of the thread; who waits meets EngineError. May be called twice."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._embed = None

    async def _answer(self) -> None:
        while self._waiting:
            asked = [each for each in self._waiting if not each[1].done()]
            self._waiting.clear()
            failure = await self._together(asked)
            if failure is None:
                continue
            for each in asked:  # what fails for one text must not fail for all
                alone = failure if len(asked) == 1 else await self._together([each])
                if alone is not None and not each[1].done():
                    each[1].set_exception(alone)

    async def _together(self, asked: Sequence[_Asked]) -> EngineError | None:
        """Answer these by one call; returns why it failed, where it did."""
        texts = [text for each, _ in asked for text in each]
        try:
            if self._embed is None:
                return EngineError("the encoder is not loaded")
            loop = asyncio.get_running_loop()
            vectors = await loop.run_in_executor(self._thread, self._embed, texts)
        except asyncio.CancelledError:
            # `close` cancels what waits for the thread: a failure, unless this task was cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return EngineError("the engine was closed")
        except Exception as error:
            return EngineError(f"the encoder failed: {type(error).__name__}: {error}")
        start = 0
        for each, future in asked:
            if not future.done():  # who stopped waiting has cancelled it
                future.set_result(vectors[start : start + len(each)])
            start += len(each)
        return None
