"""A plan is called as TensorRT documents it, by a stand-in whose plans double numbers; none has run here."""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_tensorrt import FakeTensorRT

from gen3c.errors import InvalidInputError
from gen3c.program import Signature, TensorSpec
from gen3c_export.make import runner_of
from gen3c_export.tensorrt_runner import tensorrt_runner

CPU = torch.device("cpu")
SIGNATURE = Signature(
    "double",
    (TensorSpec("X", ("n", 3), gpu_dtype=torch.float32), TensorSpec("UNUSED", ("n",))),
    (TensorSpec("Y", ("n", 3), gpu_dtype=torch.float32),),
)
STREAM = 7


class Context:
    """IExecutionContext of a plan for 2 to 4 rows."""

    def __init__(self, fake: "RunningTensorRT") -> None:
        self.fake = fake
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        if not 2 <= shape[0] <= 4:
            self.fake.log.log(self.fake.ILogger.ERROR, "outside of  the profile")
        return 2 <= shape[0] <= 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["X"] if name == "Y" else self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        assert self.addresses.keys() == {"X", "UNUSED", "Y"}
        rows, columns = self.shapes["X"]
        x, y = ((ctypes.c_float * (rows * columns)).from_address(self.addresses[name]) for name in ("X", "Y"))
        for i, value in enumerate(x):
            y[i] = 2 * value
        return not self.fake.fails


class RunningTensorRT(FakeTensorRT):
    """With what runs a plan."""

    DataType = SimpleNamespace(FLOAT="FLOAT", BF16="BF16")

    def __init__(self, types: dict[str, str] | None = None, *, fails: bool = False) -> None:
        super().__init__(fails=fails)
        self.types = types or {"X": "FLOAT", "UNUSED": "BF16", "Y": "FLOAT"}

    def Runtime(self, log: Any) -> Any:  # noqa: N802 (TensorRT's)
        self.log = log
        return SimpleNamespace(deserialize_cuda_engine=self.deserialize)

    def deserialize(self, plan: Any) -> Any:
        if bytes(memoryview(plan)) != b"plan":
            self.log.log(self.ILogger.ERROR, "of another version")
            return None
        names = list(self.types)
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=lambda i: names[i],
            get_tensor_dtype=lambda name: self.types[name],
            create_execution_context=lambda: Context(self),
        )


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=STREAM))
    (tmp_path / "model_sm90.plan").write_bytes(b"plan")
    return tmp_path / "model_sm90.plan"


@pytest.mark.parametrize("rows", [2, 4])
def test_it_gives_what_the_plan_computes(rows: int, plan: Path) -> None:
    run = tensorrt_runner(plan, CPU, SIGNATURE, RunningTensorRT())
    x = torch.arange(rows * 3.0).view(3, rows).T  # not contiguous
    (y,) = run([x, torch.zeros(rows)])
    assert y.equal(2 * x)


def test_refusals_are_told(plan: Path) -> None:
    run = tensorrt_runner(plan, CPU, SIGNATURE, RunningTensorRT())
    with pytest.raises(InvalidInputError, match=r"not made for X \[5, 3\], UNUSED \[5\]: outside of the profile"):
        run([torch.zeros(5, 3), torch.zeros(5)])
    run = tensorrt_runner(plan, CPU, SIGNATURE, RunningTensorRT(fails=True))
    with pytest.raises(InvalidInputError, match=r"model_sm90\.plan failed: it does not tell why"):
        run([torch.zeros(2, 3), torch.zeros(2)])
    types = {"X": "FLOAT", "Y": "FLOAT"}
    with pytest.raises(InvalidInputError, match="has X FLOAT, Y FLOAT; legal for double: X FLOAT, UNUSED BF16"):
        tensorrt_runner(plan, CPU, SIGNATURE, RunningTensorRT(types))
    plan.write_bytes(b"other")
    with pytest.raises(InvalidInputError, match=r"TensorRT refuses model_sm90\.plan: of another version"):
        tensorrt_runner(plan, CPU, SIGNATURE, RunningTensorRT())


def test_who_compares_artifacts_runs_plans_by_it(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen3c_export.tensorrt_runner.load_tensorrt", RunningTensorRT)
    run = runner_of("tensorrt", plan, CPU, SIGNATURE)
    assert run([torch.ones(2, 3), torch.ones(2)])[0].equal(torch.full((2, 3), 2.0))


def test_a_real_tensorrt_refuses_what_is_no_plan(plan: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")
    plan.write_bytes(b"no plan" * 100)
    with pytest.raises(InvalidInputError, match=r"TensorRT refuses model_sm90\.plan: .*Serialization"):
        tensorrt_runner(plan, CPU, SIGNATURE, trt)
