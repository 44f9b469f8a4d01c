import dataclasses

import pytest
import torch
from torch import Tensor

from gen3c.cache3d import MAX_DEPTH
from gen3c.cameras import camera_path
from gen3c.errors import InvalidInputError
from gen3c.geometry.types import Frames, Geometry
from gen3c.scene import Scene, build_scene, point_cloud
from tests import walls

HEIGHT, WIDTH = 60, 80  # of the pictures; the raster below is narrower and flatter
RASTER = (48, 96)
UNIT = 2.5  # centre depth of view 0 in the provider's unit
K = torch.tensor([[70.0, 0, 41.0], [0, 72.0, 28.5], [0, 0, 1]])


def world_cameras(n: int = 3) -> Tensor:
    """Cameras somewhere in a world, none of them the identity: a path, seen from a tilted and moved frame."""
    angle = torch.tensor(0.7)
    tilt = torch.eye(4)
    tilt[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    tilt[:3, 3] = torch.tensor([3.0, -1.0, 4.0])
    return camera_path("clockwise", n, torch.eye(4), center_depth=UNIT, distance=0.2) @ tilt


def geometry(n: int = 3) -> Geometry:
    """View i sees a wall at depth UNIT + i, in its own frame."""
    depth = torch.stack([torch.full((HEIGHT, WIDTH), UNIT + i) for i in range(n)])
    return Geometry(depth, torch.ones_like(depth), world_cameras(n), K.repeat(n, 1, 1))


def frames(n: int = 3) -> Frames:
    pixels = torch.stack([walls.texture(HEIGHT, WIDTH, seed=i) for i in range(n)])
    return Frames(pixels, torch.tensor([[HEIGHT, WIDTH]] * n, dtype=torch.int32), tuple(f"{i}.png" for i in range(n)))


def projected(w2c: Tensor, K: Tensor, point: Tensor) -> Tensor:
    q = K.double() @ (w2c.double()[:3, :3] @ point + w2c.double()[:3, 3])
    return q[:2] / q[2]


def test_view_0_is_the_identity_and_lengths_are_centre_depths() -> None:
    scene = build_scene(frames(), geometry(), RASTER, "crop")
    assert scene.unit == UNIT
    assert scene.size == RASTER
    assert torch.equal(scene.origin_w2c, world_cameras()[0])
    assert (scene.views[0].w2c - torch.eye(4)).abs().max() < 1e-6
    for i, view in enumerate(scene.views):
        assert view.image.shape == (3, *RASTER)
        assert torch.allclose(view.depth, torch.tensor((UNIT + i) / UNIT))
        assert (view.confidence == 1).all()


def on_raster(pixel: Tensor, fit: str) -> Tensor:
    """Where a pixel of the picture goes: 80x60 to 96x48."""
    if fit == "crop":  # by 1.2; 72 rows, of which 12 are cut off above
        return (pixel + 0.5) * 1.2 - 0.5 - torch.tensor([0, 12.0])
    if fit == "pad":  # by 0.8; 64 columns, 16 black ones on either side
        return (pixel + 0.5) * 0.8 - 0.5 + torch.tensor([16.0, 0])
    return pixel * torch.tensor([1.2, 0.8])  # stretch scales K plainly


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_point_stays_on_its_pixel_in_every_view(fit: str) -> None:
    """Through the cameras as given and through those of the scene, a point is seen at the same place."""
    given = geometry()
    scene = build_scene(frames(), given, RASTER, fit)
    c2w = torch.linalg.inv(given.w2c[0].double())
    for seen in ((0.3, -0.2, 2.0), (-0.6, 0.4, 3.0), (0.0, 0.0, UNIT)):  # in the frame of view 0
        in_view0 = torch.tensor(seen, dtype=torch.float64)
        in_world = c2w[:3, :3] @ in_view0 + c2w[:3, 3]
        for i, view in enumerate(scene.views):
            expected = on_raster(projected(given.w2c[i], given.K[i], in_world), fit)
            assert (projected(view.w2c, view.K, in_view0 / UNIT) - expected).abs().max() < 1e-3  # px; float32 poses


def test_padding_is_of_unknown_depth() -> None:
    view = build_scene(frames(), geometry(), RASTER, "pad").views[1]
    for side in (slice(0, 16), slice(80, 96)):
        assert (view.depth[:, side] == 0).all()
        assert not view.cache(0.0).mask[..., side].any()
    assert (view.depth[:, 16:80] > 0).all()


def test_a_first_view_without_depth_is_refused() -> None:
    """Without it there is no unit of length; the others could be at any scale."""
    given = geometry()
    given.depth[0] = 0
    with pytest.raises(InvalidInputError, match="View 0 has no pixel of known depth"):
        build_scene(frames(), given, RASTER, "crop")


def test_an_unknown_fit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="legal: crop, pad, stretch"):
        build_scene(frames(), geometry(), RASTER, "zoom")


def test_what_lies_outside_of_a_picture_on_the_canvas_does_not_matter() -> None:
    alone = Frames(frames().pixels[:2, :45, :60], torch.tensor([[45, 60]] * 2, dtype=torch.int32), ("a", "b"))
    small = dataclasses.replace(geometry(2), depth=geometry(2).depth[:, :45, :60], confidence=torch.ones(2, 45, 60))
    expected = build_scene(alone, small, RASTER, "crop")
    dirty = torch.full((2, HEIGHT, WIDTH, 3), 255, dtype=torch.uint8)
    dirty[:, :45, :60] = alone.pixels
    depth = torch.zeros(2, HEIGHT, WIDTH)
    depth[:, :45, :60] = small.depth
    confidence = (depth > 0).float()
    got = build_scene(
        Frames(dirty, alone.sizes, alone.names),
        dataclasses.replace(small, depth=depth, confidence=confidence),
        RASTER,
        "crop",
    )
    assert got.unit == expected.unit
    for a, b in zip(got.views, expected.views, strict=True):
        assert all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_world_cameras_come_back_from_the_frame_of_the_scene() -> None:
    scene = build_scene(frames(), geometry(), RASTER, "crop")
    world = world_cameras(5)
    relative = scene.from_world(world).double()
    assert (scene.from_world(world_cameras(3)) - torch.stack([v.w2c for v in scene.views])).abs().max() == 0
    relative[:, :3, 3] *= scene.unit
    assert (relative @ scene.origin_w2c.double() - world).abs().max() < 1e-5


def test_the_unit_of_the_provider_does_not_matter() -> None:
    """The same scene in metres and in millimetres is one scene."""
    metres, given = build_scene(frames(), geometry(), RASTER, "crop"), geometry()
    w2c = given.w2c.clone()
    w2c[:, :3, 3] *= 1000
    millimetres = build_scene(frames(), dataclasses.replace(given, depth=given.depth * 1000, w2c=w2c), RASTER, "crop")
    assert millimetres.unit == pytest.approx(1000 * metres.unit)
    for a, b in zip(metres.views, millimetres.views, strict=True):
        assert torch.allclose(a.depth, b.depth, rtol=1e-5)
        assert (a.w2c - b.w2c).abs().max() < 1e-5


def test_the_unit_of_reference_is_the_provider_s_own() -> None:
    """As in GEN3C, which takes its depth model's unit: a camera moved by 0.3 moves by 0.3 of it, not by 0.3 * UNIT."""
    given = geometry()
    moved = {}
    for scale, unit in (("center_depth", UNIT), ("reference", 1.0)):
        scene = build_scene(frames(), given, RASTER, "crop", scale)
        assert scene.unit == unit
        for i, view in enumerate(scene.views):
            assert torch.allclose(view.depth * unit, torch.tensor(UNIT + i))
        path = camera_path("left", 10, torch.eye(4), rotation="no_rotation", distance=0.3)
        world = path.clone()
        world[:, :3, 3] *= scene.unit
        assert (scene.from_world(world @ scene.origin_w2c) - path).abs().max() < 1e-5
        moved[scale] = float((world[-1, :3, 3] - world[0, :3, 3]).norm())
    assert moved["reference"] == pytest.approx(0.3 * 9 / 10)  # the last of n frames is at (n-1)/n
    assert moved["center_depth"] == pytest.approx(UNIT * moved["reference"])


def test_the_unit_of_reference_needs_no_depth_in_view_0() -> None:
    given = geometry()
    given.depth[0] = 0
    assert build_scene(frames(), given, RASTER, "crop", "reference").unit == 1.0


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="scale is 'metres'; legal: center_depth, reference"):
        build_scene(frames(), geometry(), RASTER, "crop", "metres")  # type: ignore[arg-type]


def test_the_point_cloud_is_what_the_cache_renders() -> None:
    view = walls.view(0)
    confidence = torch.ones_like(view.confidence)
    confidence[:, 40:] = 0.05
    scene = Scene((dataclasses.replace(view, confidence=confidence), walls.view(10)), 1.0, torch.eye(4))
    points, colors = point_cloud(scene, 0.1)
    assert len(points) == len(colors) == 32 * 40 + 32 * 48
    assert (points[:, 2] - 1).abs().max() < 1e-6
    assert torch.equal(colors[-32 * 48 :].reshape(32, 48, 3), walls.photo(10))
    column = points[: 32 * 40].reshape(32, 40, 3)[:, :, 0] * walls.FOCAL + 23.5
    assert (column - torch.arange(40.0)).abs().max() < 1e-4
    moved = points[-32 * 48 :].reshape(32, 48, 3)[:, :, 0] * walls.FOCAL + 23.5
    assert (moved - torch.arange(10.0, 58)).abs().max() < 1e-4  # view 1 sees the wall 10 px further on


def test_a_pixel_far_out_does_not_dull_the_rest() -> None:
    """The splat's weights spread over a picture's largest depth: at 1e6 the background would shine through."""
    given = geometry()
    far = given.depth.clone()
    far[0, 0, 0] = 1e6 * far[0].median()
    plain = build_scene(frames(), given, (given.depth.shape[1], given.depth.shape[2]), "crop").views[0].depth
    capped = build_scene(frames(), dataclasses.replace(given, depth=far), plain.shape, "crop").views[0].depth
    assert float(capped.max()) == MAX_DEPTH
    assert torch.equal(capped.flatten()[1:], plain.flatten()[1:])
