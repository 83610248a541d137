"""One or many `vllm serve` endpoints over HTTP, as one reader.

    vllm serve EXPORT --runner pooling --convert embed \
        --pooler-config '{"seq_pooling_type": "LAST", "use_activation": false}'    # pointer
    vllm serve EXPORT --max-logprobs 65                                            # identifier
    vllm serve ADOPTED --structured-outputs-config \
        '{"backend": "xgrammar", "disable_any_whitespace": true}'                  # generated

Prompts of one router go to one endpoint, found by rendezvous hashing, as long as it is healthy and
not much busier than the others: the router's prefix is then in one cache, not in a share of each. A
call that fails is made at another endpoint, each at most once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from serving.engine.base import EngineError
from serving.engine.vllm.reader import TokenCounts, Tokens

Array = NDArray[Any]

SLACK = 4
"""Calls by which a router's own endpoint may be busier than the idlest one."""
CHECK_S = 2.0
"""Between two health checks of an endpoint."""
CONNECT_S = 2.0


class Endpoint:
    """One server: whether it answered last time, and how many calls it has under way."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.healthy = True
        self.under_way = 0

    def weight(self, affinity: bytes) -> bytes:
        """Rendezvous weight of a router here: the highest wins."""
        return hashlib.blake2b(affinity + self.url.encode(), digest_size=8).digest()


class EndpointReader:
    """Reads states at endpoints that serve the same export.

    `timeout_s` bounds one call; `model` is the name they serve it by, asked of them if left out.
    `least_context` is what the checkpoint's budget needs, if it has one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        least_context: int | None,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        check_s: float = CHECK_S,
    ) -> None:
        if not urls:
            raise ValueError("at least one endpoint is needed")
        self.counts = TokenCounts()
        self.restarts = 0
        self.shares_cores = False
        self.endpoints = [Endpoint(url) for url in urls]
        self._least_context = least_context
        self._model = model
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        self._check_s = check_s
        self._session: aiohttp.ClientSession | None = None
        self._checks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Find the model at the first endpoint that answers; raises EngineError where none does."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, connector=aiohttp.TCPConnector(limit=0)
            )
            self._checks = [asyncio.create_task(self._watch(each)) for each in self.endpoints]
        failures: list[str] = []
        for endpoint in self.endpoints:
            try:
                async with self._session.get(
                    f"{endpoint.url}/v1/models", headers=self._headers
                ) as response:
                    found = orjson.loads(await response.read())["data"]
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
                endpoint.healthy = False
                failures.append(f"{endpoint.url}: {type(error).__name__}")
                continue
            self._take_model(endpoint, found)
            return
        raise EngineError(f"no endpoint answers: {'; '.join(failures)}")

    async def last_state(self, tokens: Tokens, affinity: bytes) -> Array:
        states: Array = (await self._pool([tokens], affinity))[0]
        return states

    async def states_at(self, tokens: Tokens, positions: Sequence[int], affinity: bytes) -> Array:
        # An endpoint gives last states only: each position is the end of a prompt. Once a router.
        return await self._pool([tokens[: position + 1] for position in positions], affinity)

    async def next_token(self, tokens: Tokens, candidates: Tokens, affinity: bytes) -> Array:
        body = {
            "model": self._model,
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": len(candidates),
            "logprob_token_ids": list(candidates),
            "allowed_token_ids": list(candidates),
            "return_tokens_as_token_ids": True,
        }
        answer = await self._call("/v1/completions", body, affinity)
        try:
            chances = answer["choices"][0]["logprobs"]["top_logprobs"][0]
            return np.array([chances[f"token_id:{token}"] for token in candidates])
        except (KeyError, IndexError, TypeError) as error:
            raise EngineError(f"the endpoint's answer lacks {error!r}") from None

    async def generate(
        self, text: str, schema: dict[str, Any], max_tokens: int
    ) -> tuple[str, float]:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": True,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "route", "schema": schema, "strict": True},
            },
        }
        answer = await self._call("/v1/chat/completions", body, text.encode()[:1024])
        try:
            choice = answer["choices"][0]
            chances = [token["logprob"] for token in choice["logprobs"]["content"]]
            return choice["message"]["content"], math.exp(min(0.0, sum(chances)))
        except (KeyError, IndexError, TypeError) as error:
            raise EngineError(f"the endpoint's answer lacks {error!r}") from None

    def trouble(self) -> str | None:
        if any(endpoint.healthy for endpoint in self.endpoints):
            return None
        return f"none of {len(self.endpoints)} vLLM endpoints answers"

    async def close(self) -> None:
        for task in self._checks:
            task.cancel()
        for task in self._checks:
            with suppress(asyncio.CancelledError):
                await task
        self._checks = []
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _pool(self, prompts: Sequence[Tokens], affinity: bytes) -> Array:
        body = {
            "model": self._model,
            "input": [list(tokens) for tokens in prompts],
            "encoding_format": "base64",
        }
        answer = await self._call("/pooling", body, affinity)
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            states = [np.frombuffer(base64.b64decode(row["data"]), "<f4") for row in rows]
            if len(states) != len(prompts):
                raise ValueError(f"{len(states)} states for {len(prompts)} prompts")
            return np.stack(states)
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the endpoint's answer is none of pooling: {error!r}") from None

    async def _call(self, path: str, body: dict[str, Any], affinity: bytes) -> Any:
        """The JSON answer of the first endpoint that gives one."""
        if self._session is None:
            raise EngineError("the engine is not started, or closed")
        data = orjson.dumps(body)
        tried: list[Endpoint] = []
        failure = ""
        while (endpoint := self._choose(affinity, tried)) is not None:
            tried.append(endpoint)
            endpoint.under_way += 1
            try:
                async with self._session.post(
                    f"{endpoint.url}{path}", data=data, headers=self._headers
                ) as response:
                    content = await response.read()
                    if response.status == 200:
                        answer = orjson.loads(content)
                        self._count(answer)
                        return answer
                    failure = f"HTTP {response.status}"
                    if response.status < 500 and response.status not in (408, 429):
                        break  # the call itself is at fault: another endpoint would say the same
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                failure = type(error).__name__
                endpoint.healthy = False
            finally:
                endpoint.under_way -= 1
        raise EngineError(f"{len(tried)} of {len(self.endpoints)} endpoints failed, last {failure}")

    def _choose(self, affinity: bytes, tried: Sequence[Endpoint]) -> Endpoint | None:
        left = [endpoint for endpoint in self.endpoints if endpoint not in tried]
        # With none healthy, one that was not may have come back since it was last looked at.
        able = [endpoint for endpoint in left if endpoint.healthy] or left
        if not able:
            return None
        idlest = min(endpoint.under_way for endpoint in able)
        near = [endpoint for endpoint in able if endpoint.under_way <= idlest + SLACK]
        return max(near, key=lambda endpoint: endpoint.weight(affinity))

    def _count(self, answer: Any) -> None:
        usage = answer.get("usage") or {}
        self.counts.prompt += usage.get("prompt_tokens") or 0
        self.counts.cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    def _take_model(self, endpoint: Endpoint, found: list[dict[str, Any]]) -> None:
        names = [str(each.get("id")) for each in found]
        if self._model is None:
            if len(names) != 1:
                raise EngineError(f"{endpoint.url} serves {names}: say which in engine.model")
            self._model = names[0]
        if self._model not in names:
            raise EngineError(f"{endpoint.url} does not serve {self._model!r} but {names}")
        context = found[names.index(self._model)].get("max_model_len")
        least = self._least_context
        if isinstance(context, int) and least is not None and context < least:
            raise EngineError(
                f"{endpoint.url} reads {context} tokens, the checkpoint needs {least}: "
                "start it with a larger --max-model-len"
            )

    async def _watch(self, endpoint: Endpoint) -> None:
        assert self._session is not None
        limit = aiohttp.ClientTimeout(total=CONNECT_S)
        while True:
            await asyncio.sleep(self._check_s)
            try:
                async with self._session.get(f"{endpoint.url}/health", timeout=limit) as response:
                    endpoint.healthy = response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                endpoint.healthy = False
