"""What the ends of a stream mean."""

import pytest
from gen3c_client.status import error_of_message

URL = "host:8001"


@pytest.mark.parametrize(
    ("message", "code", "field", "sentence"),
    [
        ("INVALID_ARG: 7 frames; legal are 25", "INVALID_ARG", None, "7 frames; legal are 25"),
        ("INVALID_ARG(spec.num_frames): 7 frames", "INVALID_ARG", "spec.num_frames", "7 frames"),
        ("DEADLINE: over 5 s\n\nAt:\n  /srv/model.py(3): f\n", "DEADLINE", None, "over 5 s"),
        ("failed in 'x', message: CANCELLED: stopping", "CANCELLED", None, "stopping"),
        ("Request for unknown model: 'gen3c' is not found", "UNAVAILABLE", None, f"The server at {URL} does not serve"),
        ("[request id: 1] Exceeds maximum queue size", "UNAVAILABLE", None, "failed: [request id: 1] Exceeds"),
        ("Stub process 'gen3c_0_0' is not healthy.", "UNAVAILABLE", None, "is not healthy."),
        ("unexpected shape for input 'SPEC'", "INTERNAL", None, f"The server at {URL} failed: unexpected shape"),
    ],
)
def test_messages_of_a_stream(message: str, code: str, field: str | None, sentence: str) -> None:
    error = error_of_message(message, URL)
    assert (error.code, error.field) == (code, field)
    assert sentence in str(error)
    assert "/srv" not in str(error)
