"""The launcher's own HTTP server: liveness, start, readiness and figures, also while Triton is down."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST

from gen3c_server.launcher.ports import dialled, listen
from gen3c_server.launcher.status import Status

TEXT = "text/plain; charset=utf-8"
PAGES = ("/live", "/started", "/ready", "/metrics")
READ_TIMEOUT_S = 10.0  # of a request; a peer that sends none must not keep a thread


class HealthServer:
    """Answers GET while entered: /live, /started, /ready with 200 or 503 and a sentence; /metrics."""

    def __init__(self, host: str, port: int | None, status: Status) -> None:
        """Binds `host:port`, None for a free port. Raises PreflightError if it cannot be had."""
        with listen(host, port, "health") as listener:
            self._server = _Server(listener.getsockname(), _handler(status), bind_and_activate=False)
            self._server.socket.close()
            self._server.socket = listener.dup()
        self._server.server_activate()
        self.url = dialled(host, int(self._server.socket.getsockname()[1]))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow peer does not hold up the end


Answer = tuple[int, str, bytes]  # status, media type, body


def _answers(status: Status) -> dict[str, Callable[[], Answer]]:
    def sentence(code: int, text: str) -> Answer:
        return code, TEXT, f"{text}\n".encode()

    def live() -> Answer:
        at_work = status.is_live
        return sentence(200, "The launcher is at work.") if at_work else sentence(503, "The launcher hangs.")

    def started() -> Answer:
        return sentence(200, "The server has started.") if status.has_started else ready()

    def ready() -> Answer:
        why_not = status.why_not_ready
        return sentence(200, "The server is ready.") if why_not is None else sentence(503, why_not)

    pages = (
        live,
        started,
        ready,
        lambda: (200, CONTENT_TYPE_LATEST, status.exposition()),
    )
    return dict(zip(PAGES, pages, strict=True))


def _handler(status: Status) -> type[BaseHTTPRequestHandler]:
    answers = _answers(status)

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_TIMEOUT_S

        def do_GET(self) -> None:
            legal = f"There is no such page; legal: {', '.join(PAGES)}.\n".encode()
            answer = answers.get(self.path.partition("?")[0], lambda: (404, TEXT, legal))
            code, kind, body = answer()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: probes come every few seconds."""

    return Handler
