import pytest
import torch
from gen3c_client.contract import JobSpec
from pydantic import ValidationError

from gen3c.errors import InvalidInputError
from gen3c_server.errors import JobError


def spec_error(text: str) -> JobError:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate_json(text)
    return JobError.of(caught.value)


@pytest.mark.parametrize(
    ("text", "field", "fragment"),
    [
        ('{"steps": 0}', "spec.steps", "greater than or equal to 1 (got 0)"),
        ('{"path": {"kind": "upwards"}}', "spec.path.kind", "'left', 'right'"),
        ('{"stepz": 3}', "spec.stepz", "Extra inputs"),
        ('{"guidance": NaN}', "spec.guidance", "finite"),
        ('{"cameras": {"poses": [{"w2c": [[1,0,0,0]]}]}}', "spec.cameras.poses.0.w2c", "at least 4"),
        ("not json", "spec", "Invalid JSON"),
    ],
)
def test_a_bad_spec_names_field_value_and_what_is_legal(text: str, field: str, fragment: str) -> None:
    error = spec_error(text)
    assert error.code == "INVALID_ARG"
    assert error.field == field
    assert fragment in error.message


@pytest.mark.parametrize("error", [JobError("INVALID_ARG", "w: x.", "MEDIA[3]"), JobError("DEADLINE", "too slow")])
def test_errors_cross_a_model_border_whole(error: JobError) -> None:
    assert JobError.from_wire(f"in ensemble: {error}") == error


def test_foreign_messages_stay_inside() -> None:
    error = JobError.from_wire("Traceback: /opt/models/x.py line 3")
    assert error.code == "INTERNAL"
    assert "/opt" not in error.message


def test_library_errors_keep_their_field() -> None:
    error = JobError.of(InvalidInputError("too few views.", "MEDIA"))
    assert (error.code, error.field) == ("INVALID_ARG", "MEDIA")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")])
def test_memory_that_ran_out_is_no_bug_but_too_large_a_job(error: Exception) -> None:
    assert JobError.of(error) == JobError(
        "UNAVAILABLE", "The server ran out of memory on this job; try fewer views or frames."
    )
