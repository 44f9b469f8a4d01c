"""Plans: what goes wrong is told and leaves nothing, and TensorRT is used as it wants to be, by a stand-in for it.

Real builds, with TensorRT for RTX, are skipped where it is not installed; test_tensorrt_build.py has the networks.
"""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_tensorrt import Config, FakeTensorRT
from onnx import TensorProto, helper
from onnxscript import ir

from gen3c.errors import InvalidInputError
from gen3c_export import tensorrt_flavours
from gen3c_export.tensorrt_engine import Profile, build_engine, cc_model_filenames, plan_name
from gen3c_export.tensorrt_flavours import load_tensorrt, target, use_timing_cache
from gen3c_export.tensorrt_rewrites import rewrite

ADA = (8, 9)
HOPPER = (9, 0)
KERNEL = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    shapes: Mapping[str, list[int | str]],
    *,
    dtype: int = TensorProto.FLOAT,
    out: int | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A graph from X to Y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("X", dtype, shapes["X"])],
        [helper.make_tensor_value_info("Y", dtype if out is None else out, shapes["Y"])],
        [helper.make_tensor(name, dtype, value.shape, value.flatten()) for name, value in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), path)
    return path


def relu(path: Path, length: int | str = "n") -> Path:
    """Any number of rows of any length, or of that length."""
    return save(path, [helper.make_node("Relu", ["X"], ["Y"])], {"X": ["batch", length], "Y": ["batch", length]})


def deconvolution(path: Path, dtype: int = TensorProto.FLOAT) -> Path:
    node = helper.make_node("ConvTranspose", ["X", "W"], ["Y"], strides=[4, 4], kernel_shape=[4, 4])
    return save(path, [node], {"X": [2, 8, 5, 6], "Y": [2, 3, 20, 24]}, dtype=dtype, weights={"W": KERNEL})


def late_move_of_bytes(path: Path) -> Path:
    nodes = [
        helper.make_node("Cast", ["X"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["bytes"], ["Y"], perm=[0, 2, 3, 1]),
    ]
    return save(path, nodes, {"X": [1, 3, 4, 5], "Y": [1, 4, 5, 3]}, out=TensorProto.UINT8)


RANGES: Profile = {"batch": (1, 1, 2), "n": (4, 8, 16)}


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")


def test_files_are_named_as_triton_looks_for_them() -> None:
    assert plan_name("model", HOPPER) == "model_sm90.plan"
    assert cc_model_filenames("model", [HOPPER, (12, 0)]) == {"9.0": "model_sm90.plan", "12.0": "model_sm120.plan"}


def test_a_package_that_is_missing_or_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(InvalidInputError, match=r"tensorrt cannot be imported .* pip install tensorrt-cu12==VERSION"):
        load_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.1"))
    with pytest.raises(InvalidInputError, match=r"tensorrt is version 8.6.1; legal is 10.0 or later"):
        load_tensorrt()
    with pytest.raises(InvalidInputError, match=r"no TensorRT called 'trt'; legal: tensorrt, tensorrt_rtx"):
        load_tensorrt("trt")


def test_a_plan_has_a_profile_for_every_set_of_ranges(rtx: Any, tmp_path: Path) -> None:
    graph, plan = relu(tmp_path / "relu.onnx"), tmp_path / "folder" / "relu.plan"
    engine = build_engine(
        graph,
        plan,
        profiles=[RANGES, {"batch": (2, 2, 2), "n": (16, 16, 16)}],
        timing_cache=tmp_path / "cache",  # of which this TensorRT has none
        workspace_bytes=2**20,
        optimization_level=1,
        capability=ADA,
        trt=rtx,
    )
    assert (engine.path, engine.capability, engine.version) == (plan, ADA, rtx.__version__)
    assert engine.size == plan.stat().st_size > 0
    assert [path.name for path in plan.parent.iterdir()] == ["relu.plan"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ([], "The graph leaves batch, n open; a profile must give their ranges"),
        ([{"batch": (1, 1, 2)}], "profile 0 has no range of n"),
        ([RANGES, {**RANGES, "m": (1, 1, 1)}], "profile 1: the graph has no open size m"),
        ([{**RANGES, "n": (4, 2, 8)}], "profile 0: n is 4, 2, 8; legal are rising sizes"),
        ([{**RANGES, "n": (0, 2, 8)}], "profile 0: n is 0, 2, 8; legal are rising sizes"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(rtx: Any, profiles: list[Profile], message: str, tmp_path: Path) -> None:
    graph = relu(tmp_path / "relu.onnx")
    with pytest.raises(InvalidInputError, match=message):
        build_engine(graph, tmp_path / "relu.plan", profiles=profiles, capability=ADA, trt=rtx)
    assert list(tmp_path.iterdir()) == [graph]


def test_a_graph_that_cannot_be_read_is_told_and_leaves_the_old_plan(rtx: Any, tmp_path: Path) -> None:
    plan = tmp_path / "bytes.plan"
    plan.write_bytes(b"old")
    message = r"cannot read bytes.onnx \(1 problem\):\n  .*Cast.*does not support UINT8 types for intermediate tensors"
    with pytest.raises(InvalidInputError, match=message):
        build_engine(late_move_of_bytes(tmp_path / "bytes.onnx"), plan, capability=ADA, trt=rtx)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(InvalidInputError, match=r"cannot read broken.onnx"):
        build_engine(tmp_path / "broken.onnx", plan, capability=ADA, trt=rtx)
    with pytest.raises(InvalidInputError, match=r"There is no file .*none.onnx"):
        build_engine(tmp_path / "none.onnx", plan, capability=ADA, trt=rtx)
    assert plan.read_bytes() == b"old"
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx", ".plan"}


def test_a_plan_that_cannot_be_made_is_told_and_leaves_nothing(rtx: Any, tmp_path: Path) -> None:
    graph = deconvolution(tmp_path / "deconvolution.onnx", TensorProto.BFLOAT16)
    # Should this build one day, gen3c_export.tensorrt_rewrites has one reason less.
    with pytest.raises(InvalidInputError, match=r"makes no plan of deconvolution.onnx (?s:.)*deconv"):
        build_engine(graph, tmp_path / "deconvolution.plan", capability=ADA, trt=rtx)
    assert list(tmp_path.iterdir()) == [graph]


def test_rewritten_graphs_build(rtx: Any, tmp_path: Path) -> None:
    for path in (
        deconvolution(tmp_path / "deconvolution.onnx", TensorProto.BFLOAT16),
        late_move_of_bytes(tmp_path / "bytes.onnx"),
    ):
        model = ir.load(path)
        rewrite(model)
        ir.save(model, path)
        assert build_engine(path, path.with_suffix(".plan"), capability=ADA, trt=rtx).size > 0


def test_rewritten_graphs_compute_the_same(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for path, x in (
        (deconvolution(tmp_path / "deconvolution.onnx"), generator.normal(size=(2, 8, 5, 6))),
        (late_move_of_bytes(tmp_path / "bytes.onnx"), generator.uniform(0, 255, size=(1, 3, 4, 5))),
    ):
        model = ir.load(path)
        before = [node.op_type for node in model.graph]
        rewrite(model, no_deconvolution=ir.DataType.FLOAT)
        assert [node.op_type for node in model.graph] != before
        ir.save(model, tmp_path / "rewritten.onnx")
        outputs = [
            onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"X": x.astype("f4")})[0]
            for file in (path, tmp_path / "rewritten.onnx")
        ]
        assert outputs[0].std() > 0.1
        np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-5)


def test_a_gpu_that_is_not_built_for_is_refused(rtx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"tensorrt_rtx cannot build for sm90; legal: .*sm89"):
        build_engine(
            relu(tmp_path / "relu.onnx"), tmp_path / "relu.plan", profiles=[RANGES], capability=HOPPER, trt=rtx
        )
    monkeypatch.setattr(tensorrt_flavours, "capability_here", lambda: None)
    with pytest.raises(InvalidInputError, match="tensorrt_rtx cannot build for no GPU"):
        build_engine(relu(tmp_path / "relu.onnx"), tmp_path / "relu.plan", profiles=[RANGES], trt=rtx)


@pytest.mark.parametrize(
    ("stored", "used", "warns"),
    [(None, b"", False), (b"same GPU", b"same GPU", False), (b"other GPU", b"", True), (b"broken", b"", True)],
)
def test_timings_of_this_gpu_are_used_again(
    stored: bytes | None, used: bytes, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, config = tmp_path / "cache", Config()
    if stored is not None:
        path.write_bytes(stored)
    with caplog.at_level(logging.WARNING):
        assert use_timing_cache(FakeTensorRT(), config, path)
    assert config.cache == used
    assert ("begun anew" in caplog.text) == warns


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_flavours, "capability_here", lambda: HOPPER)


@pytest.mark.usefixtures("hopper")
def test_the_other_tensorrt_builds_for_the_gpu_that_is_there(tmp_path: Path) -> None:
    fake, graph, cache = FakeTensorRT(), relu(tmp_path / "relu.onnx", 7), tmp_path / "cache"
    cache.write_bytes(b"other GPU")
    engine = build_engine(
        graph, tmp_path / "relu.plan", profiles=[{"batch": (1, 2, 4)}], timing_cache=cache, workspace_bytes=5, trt=fake
    )
    assert (engine.capability, engine.layers, engine.size, engine.version) == (HOPPER, 1, 4, "10.7.0")
    assert engine.path.read_bytes() == b"plan"
    assert cache.read_bytes() == b"same GPU"
    assert fake.config.profiles == [{"X": [[1, 7], [2, 7], [4, 7]]}]
    assert (fake.config.cleared, fake.config.limits) == (["TF32"], {"WORKSPACE": 5})


@pytest.mark.usefixtures("hopper")
def test_a_failure_keeps_the_old_timings(tmp_path: Path) -> None:
    graph, cache = relu(tmp_path / "relu.onnx", 7), tmp_path / "cache"
    cache.write_bytes(b"same GPU")
    with pytest.raises(InvalidInputError) as raised:
        build_engine(
            graph,
            tmp_path / "relu.plan",
            profiles=[{"batch": (1, 2, 4)}],
            timing_cache=cache,
            trt=FakeTensorRT(fails=True),
        )
    assert str(raised.value) == (
        "TensorRT makes no plan of relu.onnx (1 problem):\n  Error Code 9: no memory in layer 3"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"relu.onnx", "cache"}


def test_the_other_tensorrt_cannot_build_for_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_flavours, "capability_here", lambda: HOPPER)
    assert target(FakeTensorRT(), None) == target(FakeTensorRT(), HOPPER) == HOPPER
    with pytest.raises(InvalidInputError, match="which is sm90 here; asked for is sm89"):
        target(FakeTensorRT(), ADA)
    monkeypatch.setattr(tensorrt_flavours, "capability_here", lambda: None)
    with pytest.raises(InvalidInputError, match="there is none that PyTorch can use"):
        target(FakeTensorRT(), HOPPER)
