"""What one side packs, the other unpacks; between them lies what Triton does to tensors."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3c.conditioning import ConditionOptions, Contribution, ViewConditioner
from gen3c.fusion import Pool
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoEncoder
from gen3c.generator.weights import load_vae
from gen3c.geometry.types import Frames, Geometry
from gen3c.program import LocalProgram
from gen3c_server import conditioner_wire, geometry_wire
from tests import walls
from tests.walls import SMALL

Wire = Mapping[str, Tensor | list[bytes]]

OPTIONS = ConditionOptions("ranked_concat", foreground_masking=True, min_confidence=0.25, preview_fps=12.5)
PATH = walls.cameras([i + 0.5 for i in range(SMALL.chunk_frames)])


def sent(wire: Wire) -> dict[str, Tensor | list[bytes]]:
    """The same, in other memory: numbers as contiguous arrays, strings as bytes objects."""
    return {
        name: torch.from_numpy(np.array(value.contiguous().numpy())) if isinstance(value, Tensor) else list(value)
        for name, value in wire.items()
    }


def same(a: object, b: object) -> bool:
    """Equal field by field, tensors by their values and dtypes."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a == b


def pool(seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    keys = [torch.rand(2, *SMALL.latent_shape, generator=generator) for _ in range(2)]
    return Pool(torch.randn(2, 32, *SMALL.latent_shape, generator=generator), *keys)


@pytest.mark.parametrize("with_pool", [True, False])
@pytest.mark.parametrize("with_keep", [True, False])
def test_a_call_of_the_conditioner(with_pool: bool, with_keep: bool) -> None:
    keep = torch.arange(SMALL.chunk_frames) % 2 == 0 if with_keep else None
    arguments = (walls.view(10), PATH, OPTIONS, pool() if with_pool else None, keep)
    wire = conditioner_wire.pack_call(*arguments)
    assert all(same(a, b) for a, b in zip(conditioner_wire.unpack_call(sent(wire)), arguments, strict=True))


@pytest.mark.parametrize(
    "result",
    [
        Contribution(torch.rand(9), pool(), b"mp4"),
        Contribution(torch.rand(9), pool(), None),
        Contribution(torch.rand(9), None, b"mp4"),
        Contribution(torch.rand(9), None, None),
    ],
)
def test_a_result_of_the_conditioner(result: Contribution) -> None:
    wire = conditioner_wire.pack_result(result)
    assert tuple(wire) == conditioner_wire.OUTPUTS  # all of them in every response
    assert same(conditioner_wire.unpack_result(sent(wire)), result)


def test_an_empty_pool_is_not_no_pool() -> None:
    """The first view of a chunk comes with a pool that holds nothing; without one nothing would be encoded."""
    wire = conditioner_wire.pack_call(walls.view(0), PATH, OPTIONS, Pool.empty(SMALL.latent_shape), None)
    got = conditioner_wire.unpack_call(sent(wire))[3]
    assert same(got, Pool.empty(SMALL.latent_shape))


def test_the_conditioner_over_the_wire_is_the_conditioner() -> None:
    inner = ViewConditioner(LocalProgram(VideoEncoder(load_vae(SMALL, untrained_seed=0)[0]), VIDEO_ENCODER))
    arguments = (walls.view(10), PATH, ConditionOptions(), Pool.empty(SMALL.latent_shape), None)
    call = sent(conditioner_wire.pack_call(*arguments))
    answer = sent(conditioner_wire.pack_result(inner(*conditioner_wire.unpack_call(call))))
    assert same(conditioner_wire.unpack_result(answer), inner(*arguments))


def test_the_wrong_kind_of_tensor_is_named() -> None:
    wire = sent(conditioner_wire.pack_call(walls.view(0), PATH, OPTIONS, None, None))
    with pytest.raises(TypeError, match="DEPTH is BYTES"):
        conditioner_wire.unpack_call({**wire, "DEPTH": [b"x"]})
    with pytest.raises(TypeError, match="OPTIONS is numeric"):
        conditioner_wire.unpack_call({**wire, "OPTIONS": torch.zeros(1)})


def frames() -> Frames:
    sizes = torch.tensor([[32, 48], [20, 30]], dtype=torch.int32)
    return Frames(torch.stack([walls.photo(0), walls.photo(10)]), sizes, ("a.jpg", "Größe.mp4#3"))


@pytest.mark.parametrize("file", [None, b"npz", b""])
def test_a_call_of_the_geometry_model(file: bytes | None) -> None:
    options = geometry_wire.GeometryOptions("sfm", seed=7, job="abc")
    wire = geometry_wire.pack_call(frames(), options, file)
    got = geometry_wire.unpack_call(sent(wire))
    assert all(same(a, b) for a, b in zip(got, (frames(), options, file), strict=True))


def test_a_result_of_the_geometry_model() -> None:
    depth = torch.rand(2, 32, 48)
    w2c, K = torch.stack([walls.pose(0), walls.pose(10)]), walls.intrinsics().repeat(2, 1, 1)
    geometry = Geometry(depth, depth / 2, w2c, K, {"provider": "sfm", "error_px": 0.5}, ("few matches.",))
    wire = geometry_wire.pack_result(geometry)
    assert tuple(wire) == geometry_wire.OUTPUTS
    assert same(geometry_wire.unpack_result(sent(wire)), geometry)


def test_progress_of_the_geometry_model_is_the_last_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "job"
    assert geometry_wire.read_progress(path) is None
    for step in (3, 4):
        progress = geometry_wire.GeometryProgress("matching", step, 12)
        geometry_wire.write_progress(path, progress)
        assert geometry_wire.read_progress(path) == progress
    assert list(tmp_path.iterdir()) == [path]
