"""Traces reach an OpenTelemetry collector; without one, and with a broken one, nothing changes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from recorded import trace_of
from serving_fakes import Behaviour, FakeEngine, FakeUpstream, config_for, refused_url, serving

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Keep what was exported."""
        assert request.path == "/v1/traces"
        export = trace_service.ExportTraceServiceRequest.FromString(await request.read())
        for resource in export.resource_spans:
            self.resources.append(values(resource.resource))
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response()

    def named(self, name: str) -> Any:
        """The one span of a name."""
        [found] = [span for span in self.spans if span.name == name]
        return found


def values(span: Any) -> dict[str, Any]:
    """Attributes by name."""
    return {
        each.key: getattr(each.value, str(each.value.WhichOneof("value")))
        for each in span.attributes
    }


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    fake = Collector()
    app = web.Application()
    app.router.add_post("/{path:.*}", fake.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


def tracing(upstream: FakeUpstream, url: str, **update: Any) -> Any:
    """A configuration that traces."""
    return config_for(upstream, tracing={"enabled": True, "endpoint": url, **update})


async def test_a_request_its_decision_and_its_attempts_are_spans(
    upstream: FakeUpstream, collector: Collector
):
    upstream.models["code-1"] = Behaviour("error", 429)
    async with serving(tracing(upstream, collector.url), FakeEngine(), upstream) as server:
        answer = await server.chat("coding please", stream=True, headers={"traceparent": PARENT})
    assert trace_of(answer) == TRACE
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert len(collector.spans) == 4
    request = collector.named("POST /v1/chat/completions")
    assert request.parent_span_id.hex() == SPAN
    decision, first, second = map(collector.named, ("decide", "chat code-1", "chat code-2"))
    for span in (decision, first, second):
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert len({span.span_id for span in collector.spans}) == 4
    assert values(request)["http.response.status_code"] == 200
    assert values(request)["pointsman.router"] == "work"
    assert values(decision)["pointsman.route"] == "coding"
    assert 0 < values(decision)["pointsman.confidence"] < 1
    assert values(first)["error.type"] == "429"
    assert values(second)["gen_ai.provider.name"] == "p"
    assert values(second)["gen_ai.request.model"] == "code-2"
    assert values(second)["gen_ai.usage.input_tokens"] == 11
    assert values(second)["gen_ai.usage.output_tokens"] == 7
    assert collector.resources[0]["service.name"] == "pointsman"
    # Upstreams were told the very spans.
    told = [headers["traceparent"] for headers in upstream.headers]
    assert told == [f"00-{TRACE}-{span.span_id.hex()}-01" for span in (first, second)]


async def test_no_words_of_a_client_are_in_a_span(upstream: FakeUpstream, collector: Collector):
    async with serving(tracing(upstream, collector.url), FakeEngine(), upstream) as server:
        await server.chat("coding please, my password is hunter2")
    assert collector.spans
    assert "hunter2" not in repr(collector.spans)


@pytest.mark.parametrize(
    ("sample", "flags", "traced"),
    [(1.0, "00", False), (0.0, "01", True), (0.0, None, False), (1.0, None, True)],
)
async def test_the_client_says_whether_a_request_is_traced_else_the_share(
    upstream: FakeUpstream, collector: Collector, sample: float, flags: str | None, traced: bool
):
    headers = {} if flags is None else {"traceparent": f"{PARENT[:-2]}{flags}"}
    config = tracing(upstream, collector.url, sample=sample)
    async with serving(config, FakeEngine(), upstream) as server:
        await server.chat("coding please", headers=headers)
    assert bool(collector.spans) == traced
    assert upstream.headers[0]["traceparent"].endswith("-01" if traced else "-00")


async def test_upstreams_need_not_be_told(upstream: FakeUpstream, collector: Collector):
    config = tracing(upstream, collector.url, forward=False)
    async with serving(config, FakeEngine(), upstream) as server:
        await server.chat("coding please", headers={"traceparent": PARENT})
    assert "traceparent" not in upstream.headers[0]
    assert len(collector.spans) == 3


async def test_a_collector_that_is_down_hurts_no_request(upstream: FakeUpstream):
    url = refused_url().removesuffix("/v1")
    async with serving(tracing(upstream, url), FakeEngine(), upstream) as server:
        answers = [await server.chat("coding please") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5


async def test_nothing_is_forwarded_unless_asked_for(upstream: FakeUpstream):
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        await server.chat("coding please", headers={"traceparent": PARENT})
    assert "traceparent" not in upstream.headers[0]


def test_nothing_is_imported_unless_asked_for():
    code = "import sys, serving.run; print('opentelemetry' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


async def test_what_ends_after_its_answer_is_told_of_before_parts_close(upstream: FakeUpstream):
    engine = FakeEngine()
    closed: list[bool] = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.2)

    async with serving(config_for(upstream), engine, upstream) as server:
        recorder = server.app.recorder
        recorder.listeners.append(lambda *_: closed.append(engine.closed))
        scope = {"type": "http", "method": "POST", "path": "/late", "headers": []}
        task = asyncio.create_task(recorder(scope, None, None, late))
        await asyncio.sleep(0)
    assert closed == [False]
    await task
