"""A real inference through the whole graph: what the launcher waits for, and what a health check asks."""

import queue
from typing import Any

import numpy as np
from gen3c_client.contract import Done, Error, parse_event

TIMEOUT_S = 60.0


def check(url: str, timeout_s: float = TIMEOUT_S) -> Done:
    """Probe the server at gRPC `url`: every model of the graph runs once. Raises RuntimeError with the cause."""
    import tritonclient.grpc as triton

    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        inputs = []
        for name, value in (("MEDIA", b""), ("SPEC", b"{}")):
            tensor = triton.InferInput(name, [1], "BYTES")
            tensor.set_data_from_numpy(np.array([value], dtype=np.object_))
            inputs.append(tensor)
        client.async_stream_infer("gen3c", inputs, parameters={"probe": True})
        try:
            result, error = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise RuntimeError(f"The server at {url} did not answer a probe within {timeout_s:g} seconds.") from None
        finally:
            client.stop_stream(cancel_requests=True)
    if error is not None:
        raise RuntimeError(f"The probe of the server at {url} failed: {error.message()}")
    match parse_event(result.as_numpy("EVENT")[0]):
        case Done() as done:
            return done
        case Error(message=message):
            raise RuntimeError(f"The probe of the server at {url} failed: {message}")
        case event:
            raise RuntimeError(f"The server at {url} answered a probe with {event.event!r}.")
