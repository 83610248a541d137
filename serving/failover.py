"""Asks candidates in order, each once, until one answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from routing.values import value_type
from serving.accounts import Exchange
from serving.breaker import Breakers
from serving.catalogue import Target
from serving.errors import ApiError, bad_request
from serving.outgoing import Sendable
from serving.protocols.base import Protocol, Untranslatable
from serving.protocols.errors import error_body_for, reshape
from serving.retry_after import retry_after_s
from serving.tracing.notes import RequestTrace
from serving.upstream import Answer, ErrorAnswer, UpstreamFailure, Upstreams

PENDING = "pending"


@value_type
class Attempt:
    """A model that was asked or passed over, and what came of it: a status or a label."""

    model: str
    result: str
    milliseconds: float = 0.0
    """From asking to the answer's beginning, or to the failure."""
    asked: bool = True
    """False for one that was passed over: its breaker is open, or it cannot serve the request."""


@dataclass(slots=True)
class Trail:
    """The attempts of one request so far; readable while it is under way."""

    attempts: list[Attempt] = field(default_factory=list)
    trace: RequestTrace | None = None
    """Where traces are wanted."""

    @property
    def model(self) -> str | None:
        """The model asked last: the one that answered, if any did."""
        return next((a.model for a in reversed(self.attempts) if a.asked), None)

    @property
    def pending(self) -> bool:
        """Whether a model is being asked, or was when the request was given up."""
        return any(a.result == PENDING for a in self.attempts)


@dataclass(slots=True)
class _Tries:
    """What the candidates so far leave to say if none answers."""

    last: ErrorAnswer | None = None
    label: str | None = None
    retry_after: list[float] = field(default_factory=list)
    untranslatable: Untranslatable | None = None


class Failover:
    """The one loop that tries again; upstream clients never do."""

    def __init__(self, upstreams: Upstreams, breakers: Breakers) -> None:
        self.upstreams = upstreams
        self.breakers = breakers

    async def ask(
        self,
        candidates: Sequence[Target],
        outgoing: Sendable,
        exchange: Exchange,
        *,
        trail: Trail,
        deadline: float,
    ) -> Answer:
        """The first answer that has begun, before `deadline` on the event loop's clock.

        Models whose breaker is open come last, those that asked to be left alone not at all.
        Raises AllFailed if there is none.
        """
        tries = _Tries()
        for target in self._in_turn(candidates, trail, tries):
            answer = await self._try(target, outgoing, exchange, trail, tries, deadline)
            if answer is not None:
                return answer
            if asyncio.get_running_loop().time() >= deadline:
                break
        raise AllFailed(outgoing.protocol, tries)

    def _in_turn(self, candidates: Sequence[Target], trail: Trail, tries: _Tries) -> list[Target]:
        ready: list[Target] = []
        last_resort: list[Target] = []
        for target in candidates:
            state = self.breakers.state(target.name)
            if state == "cooling":
                tries.retry_after.append(self.breakers.wait_s(target.name))
                trail.attempts.append(Attempt(target.name, "cooling", asked=False))
            elif state == "open":
                last_resort.append(target)
            else:
                ready.append(target)
        if ready:
            for target in last_resort:
                trail.attempts.append(Attempt(target.name, "open", asked=False))
            # Still the last to be asked, should the others fail.
        return [*ready, *last_resort]

    async def _try(
        self,
        target: Target,
        outgoing: Sendable,
        exchange: Exchange,
        trail: Trail,
        tries: _Tries,
        deadline: float,
    ) -> Answer | None:
        try:
            call = outgoing.call(target)
        except Untranslatable as error:
            tries.untranslatable = error
            trail.attempts.append(Attempt(target.name, "untranslatable", asked=False))
            return None
        started = time.perf_counter()
        number = len(trail.attempts)
        if trail.trace is not None:
            call = trail.trace.ask(call, number, target)
        trail.attempts.append(Attempt(target.name, PENDING))
        self.breakers.asked(target.name)
        try:
            answer = await self.upstreams.ask(target, call, outgoing.fields, deadline=deadline)
        except UpstreamFailure as failure:
            label = failure.label
            wait = retry_after_s(failure.retry_after)
            tries.last = failure.answer or tries.last
            if wait is not None:
                tries.retry_after.append(wait)
            if failure.ours:
                self.breakers.succeeded(target.name)
            else:
                self.breakers.failed(target.name, retry_after_s=wait)
        except BaseException:
            self.breakers.abandoned(target.name)
            raise
        else:
            seconds = time.perf_counter() - started
            trail.attempts[number] = Attempt(target.name, str(answer.status), seconds * 1000)
            self.breakers.succeeded(target.name)
            if answer.status == 200:
                exchange.begun(target, answer, first_byte_s=seconds)
            else:
                answer.headers["content-type"] = "application/json"
                answer.first = reshape(outgoing.protocol, answer.status, answer.first)
            return answer
        seconds = time.perf_counter() - started
        tries.label = label
        trail.attempts[number] = Attempt(target.name, label, seconds * 1000)
        exchange.failed(target, label, seconds)
        return None


class AllFailed(Exception):
    """No candidate answered."""

    def __init__(self, protocol: Protocol, tries: _Tries) -> None:
        super().__init__("no candidate answered")
        self._protocol = protocol
        self._tries = tries

    def answer(self) -> Answer:
        """What the client gets: the last upstream's error or ours, and when to come again."""
        tries = self._tries
        headers: dict[str, str] = {}
        if tries.last is not None:
            headers |= tries.last.headers
            status = tries.last.status
            body = reshape(self._protocol, status, tries.last.body)
        else:
            error = self._own()
            status, body = error.status, orjson.dumps(error_body_for(self._protocol, error))
        headers["content-type"] = "application/json"
        if tries.retry_after and status in (429, 503):
            headers["retry-after"] = str(math.ceil(min(tries.retry_after)))
        return Answer(status, headers, body)

    def _own(self) -> ApiError:
        tries = self._tries
        if tries.label is None and tries.untranslatable is not None:
            return bad_request(tries.untranslatable.message, tries.untranslatable.field)
        if tries.label is None and tries.retry_after:
            return ApiError(
                429,
                "Every model asked to be left alone for a while: see Retry-After.",
                "rate_limit_error",
                code="models_cooling",
            )
        if tries.label == "timeout":
            return ApiError(504, "No model answered in time.", "upstream_error", code="timeout")
        return ApiError(
            502, "No model could be reached or would answer.", "upstream_error", code="failed"
        )
