"""A decoupled response sender as a stream of events. Imported inside the server only."""

import threading

import triton_python_backend_utils as pb_utils
from gen3c_client.contract import Error, Event

from gen3c_server.errors import JobError
from gen3c_server.tensors import from_value
from gen3c_server.wire_errors import error_response


class ResponseStream:
    """The `gen3c_server.job_queue.EventStream` of one request. Safe to use from several threads."""

    def __init__(self, sender: "pb_utils.InferenceResponseSender") -> None:
        self._sender = sender
        self._lock = threading.Lock()
        self._finished = False

    def send(self, event: Event, blob: bytes | None = None) -> None:
        tensors = [
            from_value("EVENT", [event.model_dump_json(exclude_none=True).encode()]),
            from_value("BLOB", [blob or b""]),
        ]
        with self._lock:
            if not self._finished:
                self._sender.send(pb_utils.InferenceResponse(tensors))

    def finish(self, error: JobError | None) -> None:
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        with self._lock:
            if self._finished:
                return
            self._finished = True
            if error is None:
                self._sender.send(flags=final)
            else:
                self._sender.send(error_response(error), flags=final)

    def fail(self, error: JobError) -> None:
        """The error as an event, and the end of the stream."""
        self.send(Error(code=error.code, message=error.message, field=error.field))
        self.finish(error)

    def is_cancelled(self) -> bool:
        with self._lock:
            return not self._finished and bool(self._sender.is_cancelled())
