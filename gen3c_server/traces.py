"""Traces of jobs for a collector that speaks OTLP over HTTP: how spans leave a process, and how a trace passes a call.

Knows nothing of Triton or of jobs (gen3c_server.job_trace). Nothing of OpenTelemetry is imported without an endpoint.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from gen3c_client.contract import TRACE_PARAMETER, TraceParent

from gen3c.errors import InvalidInputError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

SERVICE = "gen3c"
# A collector that is slow or gone costs memory for so many spans and one attempt of so many seconds at a time, which a
# thread of its own makes; spans beyond are dropped.
MOST_PENDING = 4096
EXPORT_TIMEOUT_S = 5.0
EXPORT_EVERY_S = 2.0
LAST_SPANS_S = 1.0  # of a process that ends


class Caller(Protocol):
    """Whoever calls other models for a job."""

    def call(self, model: str) -> AbstractContextManager[dict[str, str]]:
        """Entered while `model` is called; gives the parameters that the request carries."""
        ...


_caller: ContextVar[Caller | None] = ContextVar("gen3c_caller", default=None)


@contextmanager
def calls_of(caller: Caller) -> Iterator[None]:
    """Calls of other models by this thread are those of `caller`."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


@contextmanager
def calling(model: str) -> Iterator[dict[str, str]]:
    """Entered while another model is called; gives the parameters that the request carries, none without a trace."""
    caller = _caller.get()
    if caller is None:
        yield {}
        return
    with caller.call(model) as parameters:
        yield parameters


def check_endpoint(url: str) -> None:
    """Raises InvalidInputError unless spans can be sent to `url`, as far as that can be told without trying."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.strip("/"):
        raise InvalidInputError(
            f"--otlp-endpoint is {url!r}; legal: a full URL of OTLP over HTTP, such as "
            "http://collector:4318/v1/traces.",
            "otlp_endpoint",
        )
    if not _is_installed():
        raise InvalidInputError(
            '--otlp-endpoint needs OpenTelemetry, which is not installed: `pip install "gen3c-triton[traces]"`.',
            "otlp_endpoint",
        )


def _is_installed() -> bool:
    try:
        return all(find_spec(name) for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False


class Traces:
    """The spans of one process. Without an endpoint there are none."""

    def __init__(self, endpoint: str | None, model: str) -> None:
        """`model` is the one that this process runs. Raises InvalidInputError as `check_endpoint`."""
        self.tracer: Tracer | None = None
        if not endpoint:
            return
        check_endpoint(endpoint)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        attributes = {SERVICE_VERSION: metadata.version("gen3c-triton"), "gen3c.model": model}
        if not os.environ.get(OTEL_SERVICE_NAME):
            attributes[SERVICE_NAME] = SERVICE
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S),
            max_queue_size=MOST_PENDING,
            schedule_delay_millis=EXPORT_EVERY_S * 1000,
        )
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self.tracer = provider.get_tracer("gen3c_server", attributes[SERVICE_VERSION])

    def close(self, timeout_s: float = LAST_SPANS_S) -> None:
        """Send what has ended, for `timeout_s` at most."""
        if self.tracer is None:
            return
        # Its own limit is the exporter's for each batch.
        thread = threading.Thread(target=self._processor.shutdown, name="last spans", daemon=True)
        thread.start()
        thread.join(timeout_s)

    @contextmanager
    def answering(self, model: str, parameters: str) -> Iterator[None]:
        """Entered while this process answers a request with `parameters` (JSON): a span, if a trace is carried."""
        parent = TraceParent.parse(json.loads(parameters or "{}").get(TRACE_PARAMETER))
        if self.tracer is None or parent is None:
            yield
            return
        from opentelemetry.trace import SpanKind

        span = self.tracer.start_span(model, remote_context(parent), SpanKind.SERVER)
        try:
            with calls_of(SpanCaller(self.tracer, span)):
                yield
        finally:
            span.end()


class SpanCaller:
    """Calls of other models in one span."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    def call(self, model: str) -> AbstractContextManager[dict[str, str]]:
        return call_span(self._tracer, self._span, model)


@contextmanager
def call_span(tracer: Tracer, parent: Span, model: str) -> Iterator[dict[str, str]]:
    """A span in `parent` for a call of `model`; gives the parameters that carry it on."""
    from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

    span = tracer.start_span(model, set_span_in_context(parent), SpanKind.CLIENT, {"gen3c.model": model})
    try:
        yield {TRACE_PARAMETER: str(trace_parent(span))}
    except Exception as error:
        # Not its message, which may quote what the caller sent.
        span.set_attribute("error.type", getattr(error, "code", type(error).__name__))
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.end()


def trace_parent(span: Span) -> TraceParent:
    """What a child of `span` in another process is told."""
    context = span.get_span_context()
    return TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def remote_context(parent: TraceParent | None) -> Context:
    """The context of a span whose parent is elsewhere; None: it begins a trace."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    span = SpanContext(int(parent.trace_id, 16), int(parent.parent_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(span), Context())
