"""Spans made of a request's notes at its end, and their way to the collector.

The SDK sends them from a thread of its own, in batches, and drops what a collector does not take:
nothing of that reaches a request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from serving.config_tracing import TracingConfig
from serving.tracing import names
from serving.tracing.notes import RequestTrace, begin

if TYPE_CHECKING:
    from serving.api.record import RequestRecord

CLOSE_S = 5.0
"""At the end, the collector has so long to take what is left."""
POLL_S = 0.02
Values = Mapping[str, str | int | float | bool | None]

log = structlog.get_logger("pointsman")


class _Ids(IdGenerator):
    """Gives the ids that were noted: upstreams have been told them already."""

    def __init__(self) -> None:
        self.trace = self.span = 1

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class _ToLog(logging.Handler):
    """What the SDK complains about, without its words: they may hold a collector's answer."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("tracing_failed", where=record.name.rsplit(".", 1)[-1])


class Tracing:
    """Begins a trace for each request and sends its spans at the end."""

    def __init__(self, config: TracingConfig) -> None:
        self._config = config
        self._ids = _Ids()
        attributes = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: names.SERVICE}
        self._provider = TracerProvider(
            resource=Resource.create(attributes),
            sampler=ALWAYS_ON,  # what is not sampled has no spans
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        endpoint = f"{config.endpoint}/v1/traces" if config.endpoint else None
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer(names.SERVICE)
        complaints = logging.getLogger("opentelemetry")
        complaints.handlers, complaints.propagate = [_ToLog()], False

    def begin(self, trace_id: str, traceparent: str | None) -> RequestTrace:
        """The trace of a request that has come."""
        return begin(trace_id, traceparent, self._config.sample, self._config.forward)

    def ended(self, record: RequestRecord, path: str, seconds: float) -> None:
        """Make the spans of a request that asked for a model or a decision."""
        trace = record.trail.trace
        if trace is None or not trace.sampled:
            return
        if record.outcome is None and not record.trail.attempts:
            return
        end_ns = trace.began_ns + int(seconds * 1e9)
        self._request(record, trace, path, end_ns)
        self._decision(record, trace)
        self._attempts(record, trace, path, end_ns)

    async def close(self) -> None:
        """Send what is left, within a limit."""
        # A thread that nobody waits for: a collector that hangs must not hold the process.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        for _ in range(round(CLOSE_S / POLL_S)):
            if not closing.is_alive():
                break
            await asyncio.sleep(POLL_S)

    def _request(self, record: RequestRecord, trace: RequestTrace, path: str, end_ns: int) -> None:
        values: Values = {
            names.METHOD: "POST",
            names.ROUTE: path,
            names.STATUS: record.status,
            names.ROUTER: record.router,
            names.MODEL: record.trail.model,
            names.STREAM: record.stream,
            names.BROKEN: record.broken,
        }
        error = str(record.status) if record.status >= 500 else record.broken
        self._span(
            trace, f"POST {path}", SpanKind.SERVER, trace.span, trace.parent,
            trace.began_ns, end_ns, values, error,
        )  # fmt: skip

    def _decision(self, record: RequestRecord, trace: RequestTrace) -> None:
        outcome = record.outcome
        if outcome is None:
            return
        decision, facts = outcome.decision, outcome.facts
        values: Values = {
            names.ROUTER: record.router,
            names.TASK: outcome.route,
            names.CONFIDENCE: decision.confidence if decision else None,
            names.REASON: outcome.reason,
            names.REMEMBERED: outcome.remembered,
            names.ENGINE: facts.engine if facts else None,
            names.CHECKPOINT: facts.version if facts else None,
        }
        began = trace.decided_ns - int(outcome.milliseconds * 1e6)
        error = outcome.reason if decision is None else None
        self._span(
            trace, names.DECIDE, SpanKind.INTERNAL, _next(trace.span), trace.span,
            began, trace.decided_ns, values, error,
        )  # fmt: skip

    def _attempts(self, record: RequestRecord, trace: RequestTrace, path: str, end_ns: int) -> None:
        settled = record.exchange.settled
        what = names.operation(path)
        for number, note in trace.asked.items():
            attempt = record.trail.attempts[number]
            values: dict[str, str | int | float | bool | None] = {
                names.OPERATION: what,
                names.PROVIDER: note.provider,
                names.REQUEST_MODEL: note.model,
                names.MODEL: attempt.model,
            }
            if attempt.result.isdigit():
                values[names.STATUS] = int(attempt.result)
            took_ns = int(attempt.milliseconds * 1e6)
            error = None if attempt.result == "200" else attempt.result
            if attempt.result == "pending":
                took_ns = end_ns - note.at_ns
            elif error is None and settled is not None:
                took_ns += int(settled.seconds * 1e9)
                error = settled.broken
                values[names.COST] = settled.cost
                if settled.usage is not None:
                    values[names.INPUT_TOKENS] = settled.usage.input_tokens
                    values[names.CACHED_TOKENS] = settled.usage.cached_tokens
                    values[names.OUTPUT_TOKENS] = settled.usage.output_tokens
            self._span(
                trace, f"{what} {note.model}", SpanKind.CLIENT, note.span, trace.span,
                note.at_ns, note.at_ns + took_ns, values, error,
            )  # fmt: skip

    def _span(
        self,
        trace: RequestTrace,
        name: str,
        kind: SpanKind,
        span: int,
        parent: int | None,
        began_ns: int,
        ended_ns: int,
        values: Values,
        error: str | None,
    ) -> None:
        self._ids.trace, self._ids.span = trace.trace, span
        context = None
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED)
            above = SpanContext(trace.trace, parent, is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(above))
        known = {key: value for key, value in values.items() if value is not None}
        made = self._tracer.start_span(
            name, context=context, kind=kind, attributes=known, start_time=began_ns
        )
        if error is not None:
            made.set_attribute(names.ERROR, error)
            made.set_status(Status(StatusCode.ERROR))
        made.end(ended_ns)


def _next(span: int) -> int:
    """An id for a span that nobody was told."""
    return span % (2**64 - 1) + 1
