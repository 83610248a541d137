"""The same stages on Ray Data, for more than one machine.

All units go forward in rounds: what they want to know is one dataset, a `ray.data.llm` processor
answers it, and each reply is written into the ledger as it arrives. Prompts, schemas, judging, caps
and output are those of a run over HTTP, and either can go on where the other stopped.

Workers need this package installed and, over HTTP, the key's variable in their environment: the key
itself never enters a dataset or a processor's configuration.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from data_synthesis.teacher.budget import Budget
from data_synthesis.teacher.calls import Call, Reply
from data_synthesis.teacher.client import Endpoint, EndpointSettings
from data_synthesis.teacher.drive import Reporter, advance
from data_synthesis.teacher.errors import CallFailed, EndpointError, TeacherError
from data_synthesis.teacher.ledger import Ledger
from data_synthesis.teacher.recipe import TeacherRecipe
from data_synthesis.teacher.stages import Steps, Unit, Written
from routing.errors import ContractError

Row = dict[str, Any]


class RayDriver:
    """Drives units on a Ray cluster, as the recipe's `ray` part says."""

    def __init__(self, recipe: TeacherRecipe) -> None:
        """Raises TeacherError if Ray is not installed."""
        try:
            self._data = importlib.import_module("ray.data")
            self._llm = importlib.import_module("ray.data.llm")
            self._ray = importlib.import_module("ray")
        except ImportError as error:
            raise TeacherError(f"running on Ray needs the extra `ray`: {error}") from None
        self._recipe = recipe

    def __call__(self, units: Sequence[Unit], ledger: Ledger, progress: Reporter) -> None:
        if not self._ray.is_initialized():
            # By default Ray reports its use to its makers.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            self._ray.init(address=self._recipe.ray.address, log_to_driver=False)
        budget = Budget(self._recipe, ledger)
        waiting: dict[str, tuple[Steps[Written], Call]] = {}
        for unit in units:
            self._take(unit.steps(), None, ledger, waiting, progress)
        while waiting:
            # Calls beyond the cap wait for what this round really costs.
            model = next(iter(waiting.values()))[1].model
            calls: list[Call] = []
            for _, call in waiting.values():
                if call.model == model and (not calls or budget.fits(call)):
                    budget.hold(call)
                    calls.append(call)
            failures: list[TeacherError] = []
            for call, reply in self._answers(model, calls):
                steps, _ = waiting.pop(call.key)
                if isinstance(reply, Reply):
                    ledger.append(call, reply)
                    progress.tell(ledger)
                    self._take(steps, reply, ledger, waiting, progress)
                else:
                    failures.append(reply)
                    progress.tell(ledger, finished=1)
                budget.drop(call)
            self._check(failures, len(calls))

    @staticmethod
    def _take(
        steps: Steps[Written],
        reply: Reply | None,
        ledger: Ledger,
        waiting: dict[str, tuple[Steps[Written], Call]],
        progress: Reporter,
    ) -> None:
        result = advance(steps, reply, ledger)
        if isinstance(result, Call):
            waiting[result.key] = steps, result
        else:
            progress.tell(ledger, finished=1)

    @staticmethod
    def _check(failures: Sequence[TeacherError], calls: int) -> None:
        for failure in failures:
            if not isinstance(failure, CallFailed):
                raise failure
        if failures and len(failures) == calls:
            raise EndpointError(str(failures[-1]))

    def _answers(
        self, model: str, calls: Sequence[Call]
    ) -> Iterator[tuple[Call, Reply | TeacherError]]:
        """Each call with its reply or failure, in the order in which they arrive."""
        asked = {call.key: call for call in calls}
        rows = [{"key": call.key, "call": json.dumps(asdict(call))} for call in calls]
        blocks = -(-len(rows) // self._recipe.concurrency)
        dataset = self._data.from_items(rows, override_num_blocks=blocks)
        processor = (
            self._over_http() if self._recipe.ray.engine == "http" else self._over_vllm(model)
        )
        for row in processor(dataset).iter_rows():
            yield asked[row["key"]], _outcome(row, self._recipe)

    def _over_http(self) -> Callable[[Any], Any]:
        config = self._llm.HttpRequestProcessorConfig(
            url=self._recipe.endpoint,
            batch_size=self._recipe.concurrency,
            concurrency=self._recipe.ray.workers,
            session_factory=SessionFactory(EndpointSettings.of(self._recipe)),
        )
        built: Callable[[Any], Any] = self._llm.build_processor(
            config, preprocess=http_row, postprocess=http_result
        )
        return built

    def _over_vllm(self, model: str) -> Callable[[Any], Any]:
        built: Callable[[Any], Any] = self._llm.build_processor(
            self.vllm_config(model), preprocess=vllm_row, postprocess=vllm_result
        )
        return built

    def vllm_config(self, model: str) -> Any:
        """The processor's configuration for one of the models."""
        part = self._recipe.ray
        return self._llm.vLLMEngineProcessorConfig(
            model_source=part.sources.get(model, model),
            engine_kwargs=dict(part.engine_kwargs),
            accelerator_type=part.accelerator_type,
            concurrency=part.workers,
            batch_size=self._recipe.concurrency,
            should_continue_on_error=True,
        )


def http_row(row: Row) -> Row:
    """What the HTTP stage sends: a call as text, since Arrow would merge the calls' schemas."""
    return {"payload": row["call"]}


def http_result(row: Row) -> Row:
    """What is kept of an answered row."""
    return {"key": row["key"], "result": row["http_response"]["result"]}


def vllm_row(row: Row) -> Row:
    """Messages and sampling of a call, as the vLLM stage takes them."""
    call = _call(row["call"])
    return {
        "messages": [{"role": role, "content": text} for role, text in call.messages],
        "sampling_params": {
            "temperature": call.temperature,
            "max_tokens": call.max_tokens,
            "structured_outputs": {"json": call.schema},
        },
    }


def vllm_result(row: Row) -> Row:
    """A generated answer as a result; the stage tells no finish reason, but counts tokens."""
    cut_off = row["num_generated_tokens"] >= _call(row["call"]).max_tokens
    reply = Reply(
        row["generated_text"],
        "length" if cut_off else "stop",
        int(row["num_input_tokens"]),
        int(row["num_generated_tokens"]),
    )
    return {"key": row["key"], "result": json.dumps({"reply": asdict(reply)})}


def _outcome(row: Row, recipe: TeacherRecipe) -> Reply | TeacherError:
    failed = row.get("__inference_error__")
    if failed:
        return CallFailed(
            f"{recipe.name}: the engine failed: {' '.join(str(failed).split())[:300]}"
        )
    result = json.loads(row["result"])
    if "reply" in result:
        return Reply(**result["reply"])
    kind = EndpointError if result["final"] else CallFailed
    return kind(result["error"])


def _call(text: str) -> Call:
    facts = json.loads(text)
    messages = tuple((role, content) for role, content in facts.pop("messages"))
    return Call(messages=messages, **facts)


@dataclass
class SessionFactory:
    """Makes the sessions of the HTTP stage, one a batch.

    The stage by itself sends a batch's requests one after the other, does not honour Retry-After,
    and ends the whole job where one request fails for good. These sessions ask through `Endpoint`,
    all at once, and turn a failure into a result.
    """

    settings: EndpointSettings
    schemaless: set[str] = field(default_factory=set)
    """Lives as long as the worker."""

    def __call__(self) -> AskingSession:
        return AskingSession(self)


class AskingSession:
    """The part of aiohttp's ClientSession that the HTTP stage uses."""

    def __init__(self, factory: SessionFactory) -> None:
        self._factory = factory
        self._tasks: list[asyncio.Task[AskedResponse]] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._endpoint = Endpoint(
            self._factory.settings, self._session, schemaless=self._factory.schemaless
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._session.close()

    def post(self, url: str, *, headers: object, data: str) -> asyncio.Task[AskedResponse]:
        """Begin to ask the call in `data`, a JSON text within a JSON text."""
        task = asyncio.ensure_future(self._ask(_call(json.loads(data))))
        self._tasks.append(task)
        return task

    async def _ask(self, call: Call) -> AskedResponse:
        try:
            reply = await self._endpoint.ask(call)
        except (TeacherError, ContractError) as error:
            final = not isinstance(error, CallFailed)
            return AskedResponse(json.dumps({"error": str(error), "final": final}))
        return AskedResponse(json.dumps({"reply": asdict(reply)}))


@dataclass(frozen=True)
class AskedResponse:
    """A response that the HTTP stage takes as answered."""

    result: str
    status: int = 200

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ignored: object) -> None:
        return None

    async def json(self) -> dict[str, str]:
        return {"result": self.result}
