import hashlib
import io

import numpy as np
import pytest
import torch
from gen3c_client.contract import ARTIFACT_FILES, CameraFile

from gen3c.geometry.files import read_geometry
from gen3c.geometry.types import Frames, Geometry
from gen3c.media import decode_video, encode_video
from gen3c.ply import read_ply
from gen3c_server import artifacts
from tests import walls


@pytest.mark.parametrize(("size", "parts"), [(0, 1), (1, 1), (9, 1), (10, 1), (11, 2), (20, 2), (25, 3)])
def test_parts_make_the_file_again(size: int, parts: int) -> None:
    data = bytes(range(size))
    answers = list(artifacts.in_parts("points", data, 10))
    assert b"".join(part for _, part in answers) == data
    assert all(len(part) <= 10 for _, part in answers)
    assert [event.part for event, _ in answers] == list(range(1, parts + 1))
    for event, _ in answers:
        assert (event.name, event.media_type) == ARTIFACT_FILES["points"]
        assert (event.size, event.parts) == (size, parts)
        assert event.sha256 == hashlib.sha256(data).hexdigest()


def test_cameras_are_a_camera_file_with_the_cameras_of_the_path() -> None:
    path = walls.cameras([0.0, 2.5, 5.0])
    path.w2c[1, 0, 1] = 1 / 3  # float32 with no short decimal form
    file = CameraFile.model_validate_json(artifacts.cameras(path, (32, 48), 12.5))
    assert (file.frame, file.height, file.width, file.fps) == ("view0", 32, 48, 12.5)
    assert file.keyframes is None
    assert file.poses is not None
    assert torch.equal(torch.tensor([pose.w2c for pose in file.poses]), path.w2c)
    assert torch.equal(torch.tensor([pose.K for pose in file.poses]), path.K)


def test_geometry_reads_back_through_provider_file() -> None:
    """Two pictures of different sizes on one canvas; unknown depth stays unknown."""
    generator = torch.Generator().manual_seed(0)
    frames = Frames(
        torch.zeros(2, 48, 64, 3, dtype=torch.uint8), torch.tensor([[48, 64], [30, 40]], dtype=torch.int32), ("a", "b")
    )
    depth = torch.rand(2, 48, 64, generator=generator) + 1
    depth[0, :5] = 0
    depth[1, 30:] = 0
    depth[1, :, 40:] = 0
    confidence = torch.rand(2, 48, 64, generator=generator) * (depth > 0)
    w2c = torch.stack([walls.pose(0), walls.pose(10)])
    K = walls.intrinsics().repeat(2, 1, 1)
    got = read_geometry(artifacts.geometry(Geometry(depth, confidence, w2c, K), frames), frames)
    assert torch.equal(got.depth, depth)
    assert torch.equal(got.confidence, confidence)
    assert torch.equal(got.w2c, w2c)
    assert torch.equal(got.K, K)


def test_the_geometry_file_holds_no_pickles() -> None:
    frames = Frames(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.tensor([[8, 8]], dtype=torch.int32), ("a",))
    plain = Geometry(torch.ones(1, 8, 8), torch.ones(1, 8, 8), torch.eye(4)[None], walls.intrinsics()[None])
    with np.load(io.BytesIO(artifacts.geometry(plain, frames)), allow_pickle=False) as file:
        assert {name: file[name].shape for name in file.files} == {
            "depth": (1, 8, 8),
            "confidence": (1, 8, 8),
            "w2c": (1, 4, 4),
            "K": (1, 3, 3),
            "sizes": (1, 2),
        }


def test_points_are_those_of_the_scene() -> None:
    points, colors = read_ply(artifacts.points(walls.scene((0, 10)), 0.1))
    assert points.shape == (2 * 32 * 48, 3)
    assert torch.equal(colors[: 32 * 48].reshape(32, 48, 3), walls.photo(0))


def clip(greys: list[int]) -> bytes:
    return encode_video([torch.full((32, 48, 3), grey, dtype=torch.uint8) for grey in greys], 24)


def test_warps_of_two_chunks_show_the_shared_frame_once() -> None:
    """Two views, two chunks of three frames: five grids of two tiles, in order."""
    views = [[clip([10, 50, 90]), clip([90, 130, 170])], [clip([200, 190, 180]), clip([180, 170, 160])]]
    grids = list(decode_video(artifacts.warps(views, 24)))
    assert [tuple(grid.shape) for grid in grids] == [(32, 2 * 48, 3)] * 5
    for view, greys in enumerate(([10, 50, 90, 130, 170], [200, 190, 180, 170, 160])):
        for grid, grey in zip(grids, greys, strict=True):
            tile = grid[:16, view * 48 : (view + 1) * 48].float()  # the label is below
            assert (tile.mean() - grey).abs() < 4  # grey levels, after two generations of H.264


def test_warps_of_one_chunk_are_whole() -> None:
    assert len(list(decode_video(artifacts.warps([[clip([10, 50, 90])]], 24)))) == 3
