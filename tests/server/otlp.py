"""A collector of traces: takes OTLP over HTTP and keeps the spans."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Span:
    """One span as it came; times in seconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    model: str  # whose process sent it
    service: str
    start: float
    end: float
    failed: bool
    attributes: dict[str, Any]

    def holds(self, other: "Span") -> bool:
        return self.start <= other.start and other.end <= self.end


@dataclass
class Collector:
    """What came, in the order of its coming."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def wait(self, done: Callable[[list[Span]], bool], timeout_s: float = 20) -> list[Span]:
        """All spans once `done` of them."""
        deadline = time.monotonic() + timeout_s
        while not done(found := list(self.spans)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found


@contextmanager
def collector(*, answers: threading.Event | None = None) -> Iterator[Collector]:
    """A collector on a free port; with `answers` it says nothing before that is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if answers is not None and not answers.wait(120):
                return
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            found.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Collector(f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for sender in request.resource_spans:
        resource = _values(sender.resource.attributes)
        for scope in sender.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    resource["gen3c.model"],
                    resource["service.name"],
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                    span.status.code == Status.STATUS_CODE_ERROR,
                    _values(span.attributes),
                )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
