"""The serving graph agrees with the code that calls it."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gen3c_client.transport import MODEL_NAME
from google.protobuf import text_format
from torch import Tensor
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from gen3c.conditioning import ConditionOptions, Contribution
from gen3c.fusion import Pool
from gen3c.generator.signatures import SIGNATURES
from gen3c.geometry.types import Frames, Geometry
from gen3c.geometry.vggt.signature import VGGT
from gen3c.program import TensorSpec
from gen3c_server import conditioner_wire, geometry_wire
from gen3c_server.repository import default_model_repository
from tests import walls
from tests.walls import SMALL

ROOT = Path(__file__).parents[2]
REPOSITORY = default_model_repository()
MODELS = sorted(path.name for path in REPOSITORY.iterdir())
SERVICES = {MODEL_NAME, "conditioner", "geometry"}
PROGRAMS = {**SIGNATURES, VGGT.name: VGGT}


def config(model: str) -> Any:
    text = (REPOSITORY / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def triton_type(value: Tensor | list[bytes]) -> str:
    if isinstance(value, list):
        return "TYPE_STRING"
    return f"TYPE_{np_to_triton_dtype(value.numpy().dtype)}"


def fits(value: Tensor | list[bytes], dims: list[int]) -> bool:
    shape = [len(value)] if isinstance(value, list) else list(value.shape)
    return len(shape) == len(dims) and all(dim in (-1, size) for dim, size in zip(dims, shape, strict=True))


def check(declared: Any, values: dict[str, Tensor | list[bytes]]) -> None:
    """Every value is declared with its type and a shape that it has."""
    tensors = {tensor.name: tensor for tensor in declared}
    for name, value in values.items():
        tensor = tensors[name]
        assert model_config_pb2.DataType.Name(tensor.data_type) == triton_type(value), name
        assert fits(value, list(tensor.dims)), f"{name}: {list(tensor.dims)}"


@pytest.mark.parametrize("model", MODELS)
def test_a_config_is_one_of_triton(model: str) -> None:
    parsed = config(model)
    assert parsed.backend == "python"
    assert parsed.name in ("", model)
    assert parsed.max_batch_size == 0
    assert (REPOSITORY / model / "1" / "model.py").is_file()
    assert parsed.model_transaction_policy.decoupled == (model == MODEL_NAME)


def test_there_is_a_model_for_every_service_and_program() -> None:
    assert set(MODELS) == SERVICES | set(PROGRAMS)


def test_the_models_that_the_server_calls_exist() -> None:
    """The names in `bls.call("...")` and `bls.call_stream("...")`."""
    called = {
        node.args[0].value
        for path in (ROOT / "gen3c_server").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("call", "call_stream")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert called == SERVICES - {MODEL_NAME}


def legal(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]


@pytest.mark.parametrize("program", PROGRAMS)
def test_leaves_have_the_signatures_of_their_programs(program: str) -> None:
    parsed, signature = config(program), PROGRAMS[program]
    types = {torch.float32: "TYPE_FP32", torch.uint8: "TYPE_UINT8"}
    for declared, specs in ((parsed.input, signature.inputs), (parsed.output, signature.outputs)):
        assert [
            (tensor.name, model_config_pb2.DataType.Name(tensor.data_type), list(tensor.dims)) for tensor in declared
        ] == [(spec.name, types[spec.cpu_dtype], legal(spec)) for spec in specs]
        assert not any(getattr(tensor, "optional", False) for tensor in declared)


def test_the_conditioner_declares_what_is_sent() -> None:
    parsed = config("conditioner")
    path = walls.cameras([0.5] * SMALL.chunk_frames)
    pool = Pool.empty(SMALL.latent_shape)
    keep = torch.ones(SMALL.chunk_frames, dtype=torch.bool)
    least = conditioner_wire.pack_call(walls.view(0), path, ConditionOptions(), None, None)
    most = conditioner_wire.pack_call(walls.view(0), path, ConditionOptions(), pool, keep)
    assert {tensor.name for tensor in parsed.input} == set(most)
    assert {tensor.name for tensor in parsed.input if not tensor.optional} == set(least)
    check(parsed.input, most)
    assert tuple(tensor.name for tensor in parsed.output) == conditioner_wire.OUTPUTS
    for result in (Contribution(torch.rand(9), pool, b"mp4"), Contribution(torch.rand(9), None, None)):
        check(parsed.output, conditioner_wire.pack_result(result))


def test_the_geometry_model_declares_what_is_sent() -> None:
    parsed = config("geometry")
    frames = Frames(walls.photo(0)[None], torch.tensor([[32, 48]], dtype=torch.int32), ("a",))
    options = geometry_wire.GeometryOptions("sfm")
    least, most = (geometry_wire.pack_call(frames, options, file) for file in (None, b"npz"))
    assert {tensor.name for tensor in parsed.input} == set(most)
    assert {tensor.name for tensor in parsed.input if not tensor.optional} == set(least)
    check(parsed.input, most)
    assert tuple(tensor.name for tensor in parsed.output) == geometry_wire.OUTPUTS
    geometry = Geometry(torch.ones(1, 32, 48), torch.ones(1, 32, 48), torch.eye(4)[None], torch.eye(3)[None])
    check(parsed.output, geometry_wire.pack_result(geometry))


def test_the_job_model_declares_the_contract() -> None:
    parsed = config(MODEL_NAME)
    check(
        parsed.input,
        {
            "MEDIA": [b"png", b"mp4"],
            "SPEC": [b"{}"],
            "CAMERAS_W2C": torch.from_numpy(np.zeros((25, 4, 4), np.float32)),
            "CAMERAS_K": torch.from_numpy(np.zeros((25, 3, 3), np.float32)),
            "GEOMETRY": [b"npz"],
        },
    )
    assert {tensor.name for tensor in parsed.input if not tensor.optional} == {"MEDIA", "SPEC"}
    assert len(parsed.input) == 5
    assert [tensor.name for tensor in parsed.output] == ["EVENT", "BLOB"]
    check(parsed.output, {"EVENT": [b"{}"], "BLOB": [b"mp4"]})


def test_a_wheel_carries_every_file_of_the_graph() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    carried = {
        f"{folder.removeprefix('share/gen3c/')}/{Path(file).name}": file
        for folder, files in listed.items()
        if folder.startswith("share/gen3c/model_repository/")
        for file in files
    }
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "model_repository").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(carried) == there
    assert all(source == target for target, source in carried.items())  # the layout is kept
