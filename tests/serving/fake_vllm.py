"""A server with vLLM's wire format, over a transformers model: right answers, or scripted faults.

Checked against vLLM 0.32's protocol; `test_vllm.py` runs the same engine against the real one.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from transformers import AutoModelForCausalLM


class FakeVllm:
    """`fault` is None, "500", "400", "hang", "nonsense" or "short"; `dead` drops every call."""

    def __init__(self, folder: Path, context: int = 4096) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.context = context
        self.fault: str | None = None
        self.dead = False
        self.calls = 0
        self.prompts: list[list[int]] = []
        self.headers: list[str | None] = []
        self.url = ""
        self.answer = ""
        self.question = ""
        self.schema: Any = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/pooling", self._pooling)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        self._drop_if_dead(request)
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        self._drop_if_dead(request)
        return web.json_response({"data": [{"id": "routing", "max_model_len": self.context}]})

    async def _pooling(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        if (fault := await self._fault()) is not None:
            return fault
        rows = [self._last_state(tokens) for tokens in body["input"]]
        if self.fault == "short":
            rows = rows[:-1]
        assert body["encoding_format"] == "base64"
        data = [
            {"index": i, "object": "pooling", "data": base64.b64encode(row.tobytes()).decode()}
            for i, row in enumerate(rows)
        ]
        prompt = sum(map(len, body["input"]))
        return web.json_response({"data": data[::-1], "usage": {"prompt_tokens": prompt}})

    async def _completions(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        if (fault := await self._fault()) is not None:
            return fault
        assert body["max_tokens"] == 1
        assert body["logprobs"] == len(body["logprob_token_ids"])
        with torch.inference_mode():
            output = self._model(torch.tensor([body["prompt"]]), logits_to_keep=1)
            logits = output.logits[0, -1]
        chances = logits.log_softmax(-1)
        found = {f"token_id:{token}": float(chances[token]) for token in body["logprob_token_ids"]}
        return web.json_response(
            {
                "choices": [{"text": "A", "logprobs": {"top_logprobs": [found]}}],
                "usage": {
                    "prompt_tokens": len(body["prompt"]),
                    "prompt_tokens_details": {"cached_tokens": 16},
                },
            }
        )

    async def _chat(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        if (fault := await self._fault()) is not None:
            return fault
        self.schema = body["response_format"]["json_schema"]["schema"]
        self.question = body["messages"][0]["content"]
        tokens = [{"token": "x", "logprob": -0.1}, {"token": "y", "logprob": -0.2}]
        message = {"role": "assistant", "content": self.answer}
        return web.json_response(
            {"choices": [{"message": message, "logprobs": {"content": tokens}}], "usage": {}}
        )

    async def _body(self, request: web.Request) -> Any:
        self._drop_if_dead(request)
        self.calls += 1
        self.headers.append(request.headers.get("authorization"))
        body = await request.json()
        assert body["model"] == "routing"
        if "messages" not in body:
            self.prompts += body["input"] if "input" in body else [body["prompt"]]
        return body

    async def _fault(self) -> web.Response | None:
        if self.fault == "hang":
            await asyncio.sleep(60)
        if self.fault in ("500", "400"):
            return web.json_response({"error": {"message": "no"}}, status=int(self.fault))
        if self.fault == "nonsense":
            return web.json_response({"data": "yes"})
        return None

    def _drop_if_dead(self, request: web.Request) -> None:
        if self.dead:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError

    def _last_state(self, tokens: list[int]) -> Any:
        with torch.inference_mode():
            states = self._model.base_model(torch.tensor([tokens])).last_hidden_state
        return states[0, -1].numpy()
