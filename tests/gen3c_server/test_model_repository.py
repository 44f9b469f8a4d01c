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
from gen3c.exported.manifest import Kind, Target
from gen3c.fusion import Pool
from gen3c.generator.signatures import SIGNATURES
from gen3c.geometry.types import Frames, Geometry
from gen3c.geometry.vggt.signature import VGGT
from gen3c.program import TensorSpec
from gen3c_export.build import configurations
from gen3c_server import conditioner_wire, geometry_wire
from gen3c_server.deployment import Deployment
from gen3c_server.model_config import leaf_config
from gen3c_server.repository import default_model_repository
from tests import walls
from tests.gen3c.exported.samples import artifact, manifest
from tests.walls import SMALL

ROOT = Path(__file__).parents[2]
REPOSITORY = default_model_repository()
MODELS = sorted(path.name for path in REPOSITORY.iterdir())
SERVICES = {MODEL_NAME, "conditioner", "geometry"}
PROGRAMS = {**SIGNATURES, VGGT.name: VGGT}
TYPES = {
    torch.float32: "TYPE_FP32",
    torch.bfloat16: "TYPE_BF16",
    torch.uint8: "TYPE_UINT8",
    torch.int64: "TYPE_INT64",
}


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
def test_leaves_have_the_configuration_that_is_generated_for_them(program: str) -> None:
    generated = leaf_config(
        PROGRAMS[program], platform="python", device="cpu", sizes={}, settings=Deployment().settings(program, "cpu")
    )
    path = REPOSITORY / program / "config.pbtxt"
    assert path.read_text() == generated, f"write what gen3c_server.model_config.leaf_config gives to {path}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_leaves_have_the_signatures_of_their_programs(program: str) -> None:
    parsed, signature = config(program), PROGRAMS[program]
    for declared, specs in ((parsed.input, signature.inputs), (parsed.output, signature.outputs)):
        assert [
            (tensor.name, model_config_pb2.DataType.Name(tensor.data_type), list(tensor.dims)) for tensor in declared
        ] == [(spec.name, TYPES[spec.cpu_dtype], legal(spec)) for spec in specs]
        assert not any(getattr(tensor, "optional", False) for tensor in declared)


@pytest.mark.parametrize("model", ["conditioner", "dit", "video_encoder", "video_decoder"])
def test_tensors_of_other_models_arrive_where_they_lie(model: str) -> None:
    """As the source tree on a GPU needs it."""
    assert config(model).parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == "no"


def built(kind: Kind, target: Target, *, native: bool = False) -> dict[str, Any]:
    """The configurations of a build whose programs are all of one kind."""
    artifacts = [artifact(program, kind, native=native, on_gpu=target != "cpu") for program in PROGRAMS]
    texts = configurations(manifest(*artifacts, target=target), Deployment(), REPOSITORY)
    assert set(texts) == set(MODELS)
    return {name: text_format.Parse(text, model_config_pb2.ModelConfig()) for name, text in texts.items()}


@pytest.mark.parametrize(
    ("kind", "target", "native", "backend", "file"),
    [
        ("onnx", "cpu", False, "python", ""),
        ("pytorch", "cpu", False, "python", ""),
        ("aoti", "cuda", False, "python", ""),
        ("aoti", "cuda", True, "pytorch", "model.pt2"),
        ("tensorrt", "tensorrt", False, "tensorrt", ""),
    ],
)
def test_builds_for_every_target_have_configurations_of_triton(
    kind: Kind, target: Target, native: bool, backend: str, file: str
) -> None:
    for name, parsed in built(kind, target, native=native).items():
        assert parsed.name in ("", name)
        assert parsed.max_batch_size == 0
        assert parsed.model_transaction_policy.decoupled == (name == MODEL_NAME)
        assert parsed.backend == ("python" if name in SERVICES else backend)
        assert parsed.default_model_filename == ("" if name in SERVICES else file)
        (group,) = parsed.instance_group
        on_gpu = target != "cpu" and name != "geometry"  # which works on a CPU, and calls vggt
        assert (group.kind, list(group.gpus)) == ((group.KIND_GPU, [0]) if on_gpu else (group.KIND_CPU, []))
        if name in SERVICES:
            continue
        types = [model_config_pb2.DataType.Name(tensor.data_type) for tensor in parsed.input]
        assert types == [TYPES[spec.cpu_dtype if target == "cpu" else spec.gpu_dtype] for spec in PROGRAMS[name].inputs]
        fixed = {"t": 4} if kind != "pytorch" else {}
        for declared, specs in ((parsed.input, PROGRAMS[name].inputs), (parsed.output, PROGRAMS[name].outputs)):
            assert [list(tensor.dims) for tensor in declared] == [
                [fixed.get(size, -1) if isinstance(size, str) else size for size in spec.shape] for spec in specs
            ]
        names = [tensor.name for tensor in (*parsed.input, *parsed.output)]
        inputs, outputs = PROGRAMS[name].inputs, PROGRAMS[name].outputs
        if native:
            assert names == [f"INPUT__{i}" for i in range(len(inputs))] + [f"OUTPUT__{i}" for i in range(len(outputs))]
        else:
            assert names == [spec.name for spec in (*inputs, *outputs)]


def test_a_plan_is_named_for_the_gpu_that_it_was_built_on() -> None:
    """Triton on another one then says which it has."""
    for name in PROGRAMS:
        assert dict(built("tensorrt", "tensorrt")[name].cc_model_filenames) == {"9.0": "model.plan"}


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
