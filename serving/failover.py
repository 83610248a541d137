"""Asks candidates in order, each once, until one answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from serving.catalogue import Target
from serving.errors import ApiError
from serving.latency import Latencies
from serving.upstream import Answer, ErrorAnswer, UpstreamFailure, Upstreams


@dataclass(frozen=True, slots=True)
class Attempt:
    """A model that was asked, and what came of it: a status or a failure's label."""

    model: str
    result: str


@dataclass(slots=True)
class Trail:
    """The attempts of one request so far; readable while it is under way."""

    attempts: list[Attempt] = field(default_factory=list)

    @property
    def model(self) -> str | None:
        """The model asked last: the one that answered, if any did."""
        return self.attempts[-1].model if self.attempts else None


class Failover:
    """The one loop that tries again; upstream clients never do."""

    def __init__(self, upstreams: Upstreams, latencies: Latencies) -> None:
        self._upstreams = upstreams
        self._latencies = latencies

    async def ask(
        self,
        candidates: Sequence[Target],
        body_for: Callable[[str], bytes],
        *,
        streamed: bool,
        trail: Trail,
        deadline: float,
    ) -> Answer:
        """The first answer that has begun, before `deadline` on the event loop's clock.

        Raises AllFailed if there is none.
        """
        last: ErrorAnswer | None = None
        label = "timeout"
        for target in candidates:
            started = time.perf_counter()
            trail.attempts.append(Attempt(target.name, "pending"))
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await self._upstreams.ask(target, body_for(target.model))
            except UpstreamFailure as failure:
                label, last = failure.label, failure.answer or last
            except TimeoutError:
                label = "timeout"
            else:
                trail.attempts[-1] = Attempt(target.name, str(answer.status))
                if answer.status == 200:
                    seconds = time.perf_counter() - started
                    self._latencies.observe(target.name, streamed=streamed, seconds=seconds)
                else:
                    answer.first = openai_shaped(answer.status, answer.headers, answer.first)
                return answer
            trail.attempts[-1] = Attempt(target.name, label)
            if asyncio.get_running_loop().time() >= deadline:
                break
        raise AllFailed(last, timed_out=label == "timeout")


class AllFailed(Exception):
    """No candidate answered."""

    def __init__(self, last: ErrorAnswer | None, *, timed_out: bool) -> None:
        super().__init__("no candidate answered")
        self.last = last
        self.timed_out = timed_out

    def answer(self) -> Answer:
        """What the client gets: the last upstream's error, or one of ours."""
        if self.last is not None:
            headers = dict(self.last.headers)
            body = openai_shaped(self.last.status, headers, self.last.body)
            return Answer(self.last.status, headers, body)
        if self.timed_out:
            error = ApiError(504, "No model answered in time.", "upstream_error", code="timeout")
        else:
            error = ApiError(
                502, "No model could be reached or would answer.", "upstream_error", code="failed"
            )
        headers = {"content-type": "application/json"}
        return Answer(error.status, headers, orjson.dumps(error.body()))


def openai_shaped(status: int, headers: dict[str, str], body: bytes) -> bytes:
    """An upstream's error body if it is in OpenAI's shape, else one that is; fits `headers` to it.

    A provider's web page or list of errors would break clients that read `error.message`.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    headers["content-type"] = "application/json"
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return body
    message = error if isinstance(error, str) else f"The model's provider answered {status}."
    headers.pop("content-encoding", None)
    shaped = ApiError(status, message, "upstream_error", code=str(status))
    return orjson.dumps(shaped.body())
