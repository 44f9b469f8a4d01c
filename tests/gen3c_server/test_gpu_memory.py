"""Who gives memory back, and when."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from gen3c_server import gpu_memory
from gen3c_server.gpu_memory import answering_on_cpu, releasing


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    devices: list[torch.device] = []
    monkeypatch.setattr(gpu_memory, "release", devices.append)
    return devices


def test_memory_is_given_back_after_a_call_and_most_of_all_after_one_that_failed(released: list[torch.device]) -> None:
    def program(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not inputs:
            raise torch.OutOfMemoryError("no memory")
        return dict(inputs)

    device = torch.device("cuda:1")
    call = releasing(program, device)
    x = torch.ones(1)
    assert call({"X": x})["X"] is x
    assert released == [device]
    with pytest.raises(torch.OutOfMemoryError):
        call({})
    assert released == [device, device]


def test_answers_leave_the_gpu_before_its_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class OnGpu(Tensor):
        def cpu(self, *_: object, **__: object) -> Tensor:
            happened.append("moved")
            return torch.ones(1)

    monkeypatch.setattr(gpu_memory, "release", lambda device: happened.append("released"))
    program = answering_on_cpu(lambda inputs: {"X": inputs["X"].as_subclass(OnGpu)})
    answer = releasing(program, torch.device("cuda"))({"X": torch.zeros(1)})
    assert torch.equal(answer["X"], torch.ones(1))
    assert happened == ["moved", "released"]
