"""Requests put together, and their rows given back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.signatures import DIT, ONE_VALUE_A_CALL, SIGNATURES
from gen3c.geometry.vggt.signature import VGGT
from gen3c.program import Signature, TensorSpec
from gen3c_server.batching import Answer, Inputs, answer_all, has_batch_axis

PAIR = Signature(
    "pair",
    (TensorSpec("X", ("batch", "n")), TensorSpec("RATE", ("batch", 1))),
    (TensorSpec("OUT", ("batch", "n")), TensorSpec("ROWS", ("batch",), torch.int64, torch.int64)),
)


@dataclass
class Recorder:
    """X times RATE, which must be one; a negative X brings down the whole call."""

    calls: list[Inputs] = field(default_factory=list)

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        self.calls.append(inputs)
        x = inputs["X"]
        if (x < 0).any():
            raise ArithmeticError("a negative number")
        return {"OUT": x * inputs["RATE"][0], "ROWS": torch.full((len(x),), len(x))}

    def rows(self) -> list[int]:
        return [len(call["X"]) for call in self.calls]


def request(*values: float, rate: float = 2.0, n: int = 3) -> dict[str, Tensor]:
    """A row of n for each value."""
    x = torch.tensor(values, dtype=torch.float32)[:, None].expand(-1, n)
    return {"X": x.clone(), "RATE": torch.full((len(values), 1), rate)}


def outputs(answers: list[Answer]) -> list[list[float] | str]:
    """The first column of each answer, or the name of its error."""
    return [type(a).__name__ if isinstance(a, Exception) else a["OUT"][:, 0].tolist() for a in answers]


def test_equal_requests_are_one_call_and_rows_come_back_to_their_owners() -> None:
    program = Recorder()
    answers = answer_all(program, PAIR, [request(1), request(2, 3), request(4)])
    assert outputs(answers) == [[2.0], [4.0, 6.0], [8.0]]
    assert program.rows() == [4]
    assert [a["ROWS"].tolist() for a in answers if isinstance(a, dict)] == [[4], [4, 4], [4]]


def test_one_request_is_handed_on_as_it_is() -> None:
    program, only = Recorder(), request(1)
    answer_all(program, PAIR, [only], ["RATE"])
    assert program.calls[0]["X"] is only["X"]


def test_other_sizes_types_and_values_are_other_calls_and_the_order_stays() -> None:
    program = Recorder()
    half = {name: tensor.half() for name, tensor in request(5).items()}
    requests = [request(1), request(2, rate=3.0), request(3, n=4), request(4), half, request(6, rate=3.0)]
    answers = answer_all(program, PAIR, requests, ["RATE"])
    assert outputs(answers) == [[2.0], [6.0], [6.0], [8.0], [10.0], [18.0]]
    assert program.rows() == [2, 2, 1, 1]  # in the order of their first
    assert isinstance(answers[4], dict)
    assert answers[4]["OUT"].dtype == torch.float16


def test_rates_may_differ_where_the_program_takes_one_for_each_row() -> None:
    program = Recorder()
    answer_all(program, PAIR, [request(1), request(2, rate=3.0)])
    assert program.rows() == [2]


def test_nothing_is_put_together_without_a_batch_axis() -> None:
    calls: list[int] = []

    def program(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        calls.append(len(inputs["IMAGES"]))
        return {"POSE": inputs["IMAGES"]}

    answer_all(program, VGGT, [{"IMAGES": torch.zeros(1, 14, 14, 3, dtype=torch.uint8)}] * 3)
    assert calls == [1, 1, 1]


def test_a_request_that_does_not_fit_the_signature_costs_the_others_nothing() -> None:
    program = Recorder()
    misfit, incomplete = request(2) | {"X": torch.zeros(1, 3, 3)}, {"X": torch.zeros(1, 3)}
    answers = answer_all(program, PAIR, [request(1), misfit, KeyError("unreadable"), incomplete, request(4)])
    assert outputs(answers) == [[2.0], "InvalidInputError", "KeyError", "InvalidInputError", [8.0]]
    assert program.rows() == [2]


def test_a_request_that_brings_down_the_call_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    program = Recorder()
    answers = answer_all(program, PAIR, [request(1), request(-2), request(3)])
    assert outputs(answers) == [[2.0], "ArithmeticError", [6.0]]
    assert program.rows() == [3, 1, 1, 1]
    assert "a call for 3 requests failed (ArithmeticError); each is made alone" in caplog.text


def test_rows_of_one_request_that_must_be_equal_are_looked_at() -> None:
    program = Recorder()
    mixed = request(1, 2) | {"RATE": torch.tensor([[24.0], [30.0]])}
    answers = answer_all(program, PAIR, [mixed, request(3)], ["RATE"])
    assert outputs(answers) == ["InvalidInputError", [6.0]]
    with pytest.raises(
        InvalidInputError, match=r"RATE is \[\[24\.0\], \[30\.0\]\]; all rows of one call must be equal"
    ):
        raise answers[0]  # type: ignore[misc]


def test_a_value_that_equals_nothing_is_alone() -> None:
    program = Recorder()
    answer_all(program, PAIR, [request(1, rate=float("nan")), request(2, rate=float("nan"))], ["RATE"])
    assert program.rows() == [1, 1]


def test_a_program_that_loses_rows_is_not_trusted_with_several() -> None:
    def first_row(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"OUT": inputs["X"][:1]}

    assert outputs(answer_all(first_row, PAIR, [request(1), request(2)])) == [[1.0], [2.0]]


def test_no_requests_have_no_answers() -> None:
    assert answer_all(Recorder(), PAIR, []) == []


def test_what_can_be_batched() -> None:
    assert [name for name, signature in SIGNATURES.items() if has_batch_axis(signature)] == [
        "dit",
        "video_encoder",
        "video_decoder",
    ]
    assert not has_batch_axis(VGGT)
    for name, inputs in ONE_VALUE_A_CALL.items():
        assert set(inputs) <= {spec.name for spec in SIGNATURES[name].inputs}
    assert ONE_VALUE_A_CALL[DIT.name] == ("FPS",)
