"""A real inference through the whole graph: what the launcher waits for, and what a health check asks."""

import contextlib
import queue
from typing import Any

import numpy as np
from gen3c_client.connection import Access
from gen3c_client.contract import Done, Error, parse_event

from gen3c_server.unanswered import UnansweredError

TIMEOUT_S = 60.0


def check(url: str, timeout_s: float = TIMEOUT_S, access: Access | None = None) -> Done:
    """Probe the server at gRPC `url`: every model of the graph runs once.

    Raises RuntimeError with the cause; UnansweredError, one too, if the models were busy for too long.
    """
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    received: list[tuple[Any, Any]] = []
    access = access or Access()
    options = access.channel_options()
    with triton.InferenceServerClient(url, creds=access.channel_credentials(), channel_args=options) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=access.headers())
        inputs = []
        for name, value in (("MEDIA", b""), ("SPEC", b"{}")):
            tensor = triton.InferInput(name, [1], "BYTES")
            tensor.set_data_from_numpy(np.array([value], dtype=np.object_))
            inputs.append(tensor)
        # A stream that broke before that, for want of a server, says why among the answers.
        with contextlib.suppress(InferenceServerException):
            client.async_stream_infer("gen3c", inputs, parameters={"probe": True}, enable_empty_final_response=True)
        try:
            # To the very end: a stream that is cancelled with an answer on its way keeps Triton 24.10 from exiting.
            while not received or not _is_final(*received[-1]):
                received.append(answers.get(timeout=timeout_s))
        except queue.Empty:
            client.stop_stream(cancel_requests=True)
            raise UnansweredError(f"The server at {url} did not answer a probe within {timeout_s:g} seconds.") from None
    result, error = received[0]
    if error is not None:
        raise RuntimeError(f"The probe of the server at {url} failed: {error.message()}")
    match parse_event(result.as_numpy("EVENT")[0]):
        case Done() as done:
            return done
        case Error(code=code, message=message):
            kind = UnansweredError if code == "UNAVAILABLE" else RuntimeError
            raise kind(f"The probe of the server at {url} failed: {message}")
        case event:
            raise RuntimeError(f"The server at {url} answered a probe with {event.event!r}.")


def _is_final(result: Any, error: Any) -> bool:
    return error is not None or result.get_response().parameters["triton_final_response"].bool_param
