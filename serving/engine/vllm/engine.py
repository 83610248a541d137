"""The engine over a vLLM reader: layout, route states and scores are the checkpoint's own."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.conversation import Conversation
from routing.decision import Decision, decide
from routing.encoder import TEXTS_A_TURN, line_texts, turn_texts
from routing.layout import Prompt, RoutePrefix, in_reading_order
from routing.manifest import PointerReadOut
from routing.tasks import Route
from serving.engine.base import (
    WARM_UP,
    WARM_UP_ROUTES,
    EngineBusy,
    EngineError,
    EngineFacts,
    EngineMetrics,
)
from serving.engine.checkpoint import pointer_head
from serving.engine.contract import Contract
from serving.engine.prefixes import PrefixMemo
from serving.engine.readout import PointerStrategy
from serving.engine.vllm.embeddings import Embed, Embeddings
from serving.engine.vllm.reader import StateReader, reader_metrics

Array = NDArray[Any]

_Vectors = Coroutine[Any, Any, Array | None]

ROUTERS = 512
"""Routers whose projected lines are kept: a few kilobytes each."""


class VllmEngine:
    """Decides by one forward pass in vLLM, many at a time.

    `load_embedder` loads what embeds texts, for a checkpoint with an encoder. More than
    `max_waiting` decisions under way raise EngineBusy.
    """

    name = "vllm"

    def __init__(
        self,
        contract: Contract,
        reader: StateReader,
        *,
        load_embedder: Callable[[], Embed] | None = None,
        max_waiting: int = 256,
    ) -> None:
        self._contract = contract
        manifest = contract.manifest
        self.version = manifest.version
        self._facts = EngineFacts.of(self.name, manifest)
        self._prefixes = PrefixMemo(contract.layout)
        self._reader = reader
        self._embeddings = None if load_embedder is None else Embeddings(load_embedder)
        self._max_waiting = max_waiting
        self._under_way = self._decisions = self._batched = 0
        self._routers: OrderedDict[bytes, asyncio.Task[Array]] = OrderedDict()
        read_out = contract.manifest.read_out
        self._pointer: PointerStrategy | None = None
        if isinstance(read_out, PointerReadOut):
            self._pointer = PointerStrategy(pointer_head(contract), read_out.lines)

    def facts(self) -> EngineFacts:
        return self._facts

    def check_routes(self, routes: Sequence[Route]) -> None:
        """Raise InvalidRequest if these routes cannot be laid out within the budget."""
        self._prefixes(in_reading_order(routes)[0])

    async def start(self) -> None:
        """Load what there is to load and decide once; raises EngineError, UnsupportedCheckpoint."""
        if self._embeddings is not None:
            await self._embeddings.start()
        await self._reader.start()
        await self.decide(WARM_UP_ROUTES, WARM_UP)
        self._decisions = self._batched = 0

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the last user turn.

        Raises EngineBusy at once if too many are under way, InvalidRequest for routes or a
        conversation that cannot be read, EngineError if vLLM fails.
        """
        if self._under_way >= self._max_waiting:
            raise EngineBusy(f"{self._under_way} decisions are under way already")
        self._under_way += 1
        self._batched += self._under_way
        try:
            read, places = in_reading_order(routes)
            prefix = self._prefixes(read)
            prompt = self._contract.layout.decision_prompt(prefix, conversation)
            scores = await self._scores(prompt, read, conversation)
        finally:
            self._under_way -= 1
        self._decisions += 1
        names = [route.name for route in routes]
        return decide(names, scores[places], self._contract.manifest.calibration)

    async def close(self) -> None:
        """Let go of vLLM; may be called twice."""
        for task in self._routers.values():
            task.cancel()
        self._routers.clear()
        if self._embeddings is not None:
            self._embeddings.close()
        await self._reader.close()

    def trouble(self) -> str | None:
        """Why no decision can be made now; None where all is well."""
        return self._reader.trouble()

    def metrics(self) -> EngineMetrics:
        """Counts since `start`."""
        return reader_metrics(self._reader, self._decisions, self._batched, self._under_way)

    async def _scores(
        self, prompt: Prompt, routes: Sequence[Route], conversation: Conversation
    ) -> Array:
        prefix = prompt.prefix
        affinity = _digest(prefix)
        if self._pointer is None:
            assert prefix.identifiers is not None
            return await self._reader.next_token(prompt.tokens, prefix.identifiers, affinity)
        turn_vectors = await self._in_turn(self._turn_vectors(prompt, conversation))
        keys, state, vectors = await asyncio.gather(
            self._router(prefix, routes, affinity),
            self._reader.last_state(prompt.tokens, affinity),
            turn_vectors,
        )
        scores: Array = self._pointer.scores(state[None], vectors, keys)[0]
        return scores

    async def _router(self, prefix: RoutePrefix, routes: Sequence[Route], affinity: bytes) -> Array:
        """A router's keys; computed once, by whoever asks first, whether or not that one waits."""
        task = self._routers.get(affinity)
        if task is not None and not _failed(task):
            self._routers.move_to_end(affinity)
            try:
                return await asyncio.shield(task)
            except EngineError:
                pass  # what another decision began and lost need not be lost for this one
        task = asyncio.ensure_future(self._prepare(prefix, routes, affinity))
        self._routers[affinity] = task
        while len(self._routers) > ROUTERS:
            self._routers.popitem(last=False)
        return await asyncio.shield(task)

    async def _prepare(
        self, prefix: RoutePrefix, routes: Sequence[Route], affinity: bytes
    ) -> Array:
        assert self._pointer is not None
        wanted = self._pointer.positions(prefix)
        line_vectors = await self._in_turn(self._vectors(line_texts(routes)))
        states, vectors = await asyncio.gather(
            self._reader.states_at(prefix.tokens, wanted, affinity), line_vectors
        )
        whole = np.zeros((len(prefix.tokens), states.shape[-1]), dtype=np.float32)
        whole[wanted] = states
        return self._pointer.prepare(prefix, whole, vectors)

    async def _turn_vectors(self, prompt: Prompt, conversation: Conversation) -> Array | None:
        last = prompt.turns[-1].message
        texts = turn_texts(conversation, {turn.message for turn in prompt.turns})[last]
        vectors = await self._vectors(texts)
        return None if vectors is None else vectors.reshape(1, TEXTS_A_TURN, -1)

    async def _in_turn(self, vectors: _Vectors) -> _Vectors:
        """What vectors are to be waited for by, beside vLLM, or before it on the same cores: there
        its threads and the encoder's would cost each other more than waiting does."""
        return _ready(await vectors) if self._reader.shares_cores else vectors

    async def _vectors(self, texts: Sequence[str]) -> Array | None:
        return None if self._embeddings is None else await self._embeddings(texts)


async def _ready(vectors: Array | None) -> Array | None:
    return vectors


def _failed(task: asyncio.Task[Array]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _digest(prefix: RoutePrefix) -> bytes:
    digest = hashlib.blake2b(np.asarray(prefix.tokens, dtype=np.int64).tobytes(), digest_size=16)
    digest.update(np.asarray(prefix.line_ends, dtype=np.int64).tobytes())
    return digest.digest()
