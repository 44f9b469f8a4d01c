"""Exceptions as Triton error responses. Imported inside the server only."""

import triton_python_backend_utils as pb_utils

from gen3c_server.errors import JobError

_TRITON_CODES = {
    "INVALID_ARG": "INVALID_ARG",
    "UNAVAILABLE": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
    "DEADLINE": "CANCELLED",  # Triton has no code of its own for it
    "INTERNAL": "INTERNAL",
}


def error_response(error: BaseException) -> "pb_utils.InferenceResponse":
    """A response that carries the error with Triton's code and a message in the form of `JobError`."""
    job_error = JobError.of(error)
    code = getattr(pb_utils.TritonError, _TRITON_CODES[job_error.code])
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(job_error), code))
