"""Calls over HTTP: back-off, Retry-After, and endpoints that know no JSON schema.

aiohttp, because one POST is all that is needed, Ray's HTTP stage and the server use it already, and
an SDK would hide the status, the headers and the retries that this module decides on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from data_synthesis.teacher.calls import Call, Reply, read_reply
from data_synthesis.teacher.errors import CallFailed, EndpointError
from data_synthesis.teacher.recipe import TeacherRecipe, key_from

LONGEST_WAIT_S = 600.0
"""Nothing waits longer for an endpoint; one that asks for more fails the call."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndpointSettings:
    """How to reach an endpoint. Holds the name of the key's variable, so it may travel."""

    url: str
    key_variable: str | None
    request_attempts: int
    backoff_s: float
    timeout_s: float

    @classmethod
    def of(cls, recipe: TeacherRecipe) -> EndpointSettings:
        return cls(
            recipe.endpoint,
            recipe.key_variable,
            recipe.request_attempts,
            recipe.backoff_s,
            recipe.timeout_s,
        )


@dataclass
class Endpoint:
    """Asks calls within one event loop."""

    settings: EndpointSettings
    session: aiohttp.ClientSession
    schemaless: set[str] = field(default_factory=set)
    """Models found to refuse a JSON schema."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Once set, no request is sent again; the one under way ends."""

    async def ask(self, call: Call) -> Reply:
        """The reply to a call.

        Raises CallFailed once every attempt failed, EndpointError for a refusal that asking again
        would not change, InvalidRecord if the key's variable is not set.
        """
        key = key_from(self.settings.key_variable)
        attempt = 0
        while True:
            with_schema = call.model not in self.schemaless
            failed = await self._once(call, key, with_schema)
            if isinstance(failed, Reply):
                return failed
            if with_schema and call.model in self.schemaless:
                continue
            attempt += 1
            reason, asked_wait = failed
            if attempt >= self.settings.request_attempts or self.stopping.is_set():
                raise CallFailed(f"{self.settings.url}: {reason}, at attempt {attempt}")
            wait = self._wait(attempt, asked_wait)
            if wait > LONGEST_WAIT_S:
                raise CallFailed(f"{self.settings.url}: {reason}, and asks to wait {wait:.0f} s")
            _logger.info("%s: %s; next attempt in %.1f s", self.settings.url, reason, wait)
            await self._sleep(wait)

    async def _once(
        self, call: Call, key: str | None, with_schema: bool
    ) -> Reply | tuple[str, float | None]:
        """One request: a reply, or why it failed and the seconds that the endpoint asks to wait."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with self.session.post(
                self.settings.url,
                json=call.body(json_schema=with_schema),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout_s),
                allow_redirects=False,  # a key belongs to the address in the recipe alone
            ) as response:
                status = response.status
                asked_wait = _retry_after(response.headers.get("Retry-After"))
                text = hidden((await response.read()).decode("utf-8", "replace"), key)
        except TimeoutError:
            return f"no answer within {self.settings.timeout_s:g} s", None
        except aiohttp.ClientError as error:
            return f"connection failed ({type(error).__name__})", None
        if status == 200:
            try:
                reply = read_reply(json.loads(text), call)
                return replace(reply, text=hidden(reply.text, key))
            except (ValueError, RecursionError):
                return "status 200 without a chat completion", None
        if status in (408, 429) or status >= 500:
            return f"status {status}", asked_wait
        if status in (400, 422) and with_schema and _about_schema(text):
            self.schemaless.add(call.model)
            return f"status {status}", None
        raise EndpointError(f"{self.settings.url} answered with status {status}: {_excerpt(text)}")

    def _wait(self, attempt: int, asked: float | None) -> float:
        """Seconds: doubling, with jitter, so that many calls do not come back at once."""
        ceiling = min(self.settings.backoff_s * 2.0 ** (attempt - 1), 60.0)
        own = random.uniform(0.5, 1.0) * ceiling
        return own if asked is None else asked + 0.1 * own

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return
        raise CallFailed(f"{self.settings.url}: given up, since the run is stopping")


def hidden(text: str, key: str | None) -> str:
    """The text without the key, should an endpoint echo it."""
    return text.replace(key, "[key]") if key else text


def _about_schema(text: str) -> bool:
    return any(name in text for name in ("response_format", "json_schema"))


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:300] or "no explanation"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
