"""vLLM in this process's care: its engine core is a child process, watched and started anew.

https://docs.vllm.ai: `AsyncLLM` batches continuously, reuses cached prefixes by blocks, and frees a
request whose caller stops waiting.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from serving.engine.base import EngineError
from serving.engine.vllm.reader import TokenCounts, Tokens

Array = NDArray[Any]

WATCH_S = 0.5
FIRST_BACK_OFF_S, LAST_BACK_OFF_S = 1.0, 60.0
CPU_CACHE_BYTES = 2 * 2**30
"""Of keys and values without a GPU, unless `VLLM_CPU_KVCACHE_SPACE` (GiB) or the options say."""
_PARALLEL = {"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"}

log = structlog.get_logger("pointsman")


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM runs a model."""

    max_model_len: int | None
    """None for the model's own."""
    read_out: str
    """"pointer" reads states, "identifier" next tokens, "generated" answers."""
    dtype: str = "auto"
    hang_s: float = 60.0
    """A call that takes longer than this means that vLLM hangs: it is started anew."""
    options: dict[str, Any] | None = None
    """Further arguments of vLLM's `AsyncEngineArgs`."""


Start = Callable[[Path, VllmSettings], Any]
"""Loads a model and returns vLLM's engine client; blocks for as long as that takes."""


def start_vllm(folder: Path, settings: VllmSettings) -> Any:
    """An AsyncLLM of an exported model."""
    # No downloads, no usage reports; the child process must not inherit a forked event loop.
    for name, value in (
        ("HF_HUB_OFFLINE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("VLLM_WORKER_MULTIPROC_METHOD", "spawn"),
        ("VLLM_LOGGING_LEVEL", "WARNING"),
    ):
        os.environ.setdefault(name, value)
    from vllm import AsyncEngineArgs
    from vllm.config import PoolerConfig
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    special: dict[str, Any] = {}
    if settings.read_out == "pointer":
        pooler = PoolerConfig(seq_pooling_type="LAST", tok_pooling_type="ALL", use_activation=False)
        special = {"runner": "pooling", "convert": "embed", "pooler_config": pooler}
    if settings.read_out == "generated":
        # A model that writes white space for ever never ends its answer.
        compact = {"backend": "xgrammar", "disable_any_whitespace": True}
        special = {"structured_outputs_config": compact}
    dtype = settings.dtype
    if current_platform.is_cpu():
        # "auto" makes float16 of float32 weights, which CPUs are slow at.
        dtype = "float32" if dtype == "auto" else dtype
        special |= _on_cpu(settings.options or {})
    arguments = AsyncEngineArgs(
        model=str(folder),
        max_model_len=settings.max_model_len,
        dtype=dtype,
        enable_prefix_caching=True,
        trust_remote_code=False,
        **{**special, **(settings.options or {})},
    )
    return AsyncLLM.from_engine_args(arguments)


def _on_cpu(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments that suit a CPU and short new turns; `options` are the owner's, which go before."""
    # Compiling takes longer than it saves. Only whole blocks of tokens are cached: of the default's
    # 128, up to 127 old tokens would be computed again with each new turn. 32 is the least.
    found: dict[str, Any] = {"enforce_eager": True, "block_size": 32}
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        found["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    if not _PARALLEL & options.keys():
        # By default the model is in a process of its own, bound to all cores but one, and both
        # processes poll for each other: while one waits, and for a second after each decision.
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        found["distributed_executor_backend"] = UniProcExecutor
    return found


class InProcessReader:
    """Reads states of an exported model in `folder` through AsyncLLM.

    When vLLM dies, or a call hangs, calls fail at once, and it is loaded again, after a wait that
    doubles from one second to a minute with each failure in a row.
    """

    def __init__(
        self, folder: Callable[[], Path], settings: VllmSettings, start: Start = start_vllm
    ) -> None:
        self.counts = TokenCounts()
        self.restarts = 0
        self._folder = folder
        self._settings = settings
        self._start = start
        self._llm: Any = None
        self._tokenizer: Any = None
        self._trouble: str | None = "vLLM is loading"
        self._numbers = itertools.count()
        self.under_way = 0
        self._silent_since: float | None = None
        """When the first call began of those since vLLM last answered one."""
        self._watch: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        if self._llm is None:
            self._llm = await self._load()
            self._trouble = None
        if self._watch is None:
            self._watch = asyncio.create_task(self._supervise())

    @property
    def shares_cores(self) -> bool:
        platforms = sys.modules.get("vllm.platforms")
        return platforms is not None and bool(platforms.current_platform.is_cpu())

    async def last_state(self, tokens: Tokens, affinity: bytes) -> Array:
        states = await self._pool(tokens, "embed")
        return states.reshape(-1)

    async def states_at(self, tokens: Tokens, positions: Sequence[int], affinity: bytes) -> Array:
        states = await self._pool(tokens, "token_embed")
        return states[list(positions)]

    async def next_token(self, tokens: Tokens, candidates: Tokens, affinity: bytes) -> Array:
        from vllm import SamplingParams

        parameters = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            allowed_token_ids=list(candidates),
            logprob_token_ids=list(candidates),
            detokenize=False,
        )
        async with self._call() as (llm, name):
            output = await _last(llm.generate(_prompt(tokens), parameters, name))
        self._count(output)
        chances = output.outputs[0].logprobs[0]
        return np.array([chances[token].logprob for token in candidates])

    async def generate(
        self, text: str, schema: dict[str, Any], max_tokens: int
    ) -> tuple[str, float]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        parameters = SamplingParams(
            max_tokens=max_tokens,
            temperature=0.0,
            logprobs=0,
            structured_outputs=StructuredOutputsParams(json=schema),
        )
        tokens = await asyncio.to_thread(self._chat_tokens, text)
        async with self._call() as (llm, name):
            output = await _last(llm.generate(_prompt(tokens), parameters, name))
        self._count(output)
        found = output.outputs[0]
        chance = sum(
            step[token].logprob for step, token in zip(found.logprobs, found.token_ids, strict=True)
        )
        return found.text, math.exp(min(0.0, chance))

    def _chat_tokens(self, text: str) -> list[int]:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            folder = self._folder()
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        tokens: list[int] = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        return tokens

    def trouble(self) -> str | None:
        return self._trouble

    async def close(self) -> None:
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        self._trouble = "the engine was closed"
        handler = getattr(self._llm, "output_handler", None)
        if handler is not None and not self.under_way:
            handler.cancel()  # else vLLM logs the end of its child as a failure
        await self._shut_down()

    async def _pool(self, tokens: Tokens, task: str) -> Array:
        from vllm import PoolingParams

        parameters = PoolingParams(task=task, use_activation=False)
        async with self._call() as (llm, name):
            output = await _last(llm.encode(_prompt(tokens), parameters, name))
        self._count(output)
        states: Array = output.outputs.data.float().cpu().numpy()
        return states

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[tuple[Any, str]]:
        """The engine client and a name for one call; what fails inside becomes EngineError."""
        if self._llm is None or self._trouble is not None:
            raise EngineError(self._trouble or "the engine is not started")
        llm, name = self._llm, f"decision-{next(self._numbers)}"
        self.under_way += 1
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        try:
            yield llm, name
            self._silent_since = None
        except (EngineError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise EngineError(f"vLLM failed: {type(error).__name__}") from error
        finally:
            self.under_way -= 1

    def _count(self, output: Any) -> None:
        self.counts.prompt += len(output.prompt_token_ids or ())
        self.counts.cached += getattr(output, "num_cached_tokens", 0) or 0

    async def _supervise(self) -> None:
        back_off = FIRST_BACK_OFF_S
        while True:
            await asyncio.sleep(WATCH_S)
            fault = await self._fault()
            if fault is None:
                back_off = FIRST_BACK_OFF_S
                continue
            self._trouble = f"{fault}; it is being started again"
            log.error("vllm_failed", fault=fault)
            await self._shut_down()
            while True:
                await asyncio.sleep(back_off)
                back_off = min(2 * back_off, LAST_BACK_OFF_S)
                try:
                    self._llm = await self._load()
                    break
                except Exception as error:
                    self._trouble = f"vLLM did not start: {type(error).__name__}"
                    log.error("vllm_failed_to_start", error=type(error).__name__, wait_s=back_off)
            self.restarts += 1
            self._trouble = self._silent_since = None
            log.info("vllm_restarted", restarts=self.restarts)

    async def _fault(self) -> str | None:
        try:
            await self._llm.check_health()
        except Exception as error:
            return f"vLLM died ({type(error).__name__})"
        # Callers give up long before this: silence is what tells, and a call of its own decides.
        half = self._settings.hang_s / 2
        if self._silent_since is not None and time.monotonic() - self._silent_since > half:
            try:
                await asyncio.wait_for(self._probe(), half)
            except Exception:
                return f"vLLM has not answered for {self._settings.hang_s:g} s"
        return None

    async def _probe(self) -> None:
        if self._settings.read_out == "pointer":
            await self.last_state([0], b"")
        else:
            await self.next_token([0], [0, 1], b"")

    async def _load(self) -> Any:
        folder = await asyncio.to_thread(self._folder)
        llm = await asyncio.to_thread(self._start, folder, self._settings)
        if self._closed:
            await asyncio.to_thread(llm.shutdown)
            raise EngineError("the engine was closed")
        return llm

    async def _shut_down(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            with suppress(Exception):
                await asyncio.to_thread(llm.shutdown)


def _prompt(tokens: Tokens) -> dict[str, list[int]]:
    return {"prompt_token_ids": list(tokens)}


async def _last(outputs: Any) -> Any:
    """The final output of a call; its earlier ones are parts of it."""
    found = None
    async for output in outputs:
        found = output
    if found is None:
        raise EngineError("vLLM answered with nothing")
    return found
