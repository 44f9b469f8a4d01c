"""VGGT's losses, the pictures it learns from, and its measures, on scenes whose answers are known."""

import math

import pytest
import torch
from torch import Tensor

from gen3c.cameras import unproject
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.pose import decode_pose
from gen3c.presets import VggtConfig
from training.vggt import initialise, trainable
from training.vggt_data import Changes, Views, altered, blocks, chosen, draw_changes, mirrored, scaled
from training.vggt_loss import ALPHA, camera_loss, depth_loss, inverse_of_rigid, product, targets_of
from training.vggt_metrics import alignment, camera_errors

SIZE = (16, 24)
SMALL = VggtConfig(
    name="VGGT-tiny",
    image_side=56,
    width=16,
    heads=2,
    depth=4,
    levels=(0, 1, 2, 3),
    vit_depth=1,
    vit_heads=2,
    camera_depth=1,
    camera_heads=2,
    features=8,
    out_channels=(8, 8, 8, 8),
    mlp_ratio=2,
)


def turned(x: float, y: float, z: float) -> Tensor:
    """The rotation about axis (x,y,z) by its length in radians."""
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))


@pytest.fixture
def views() -> Views:
    """Two scenes of three views; cameras and depth need not fit together."""
    generator = torch.Generator().manual_seed(1)
    w2c = torch.eye(4).repeat(2, 3, 1, 1)
    for i in range(2):
        for j in range(3):
            w2c[i, j, :3, :3] = turned(0.1 * j - 0.1, 0.2 * j + 0.1 * i, 0.05)
    w2c[..., :3, 3] = torch.randn(2, 3, 3, generator=generator)
    K = torch.tensor([[20.0, 0, (SIZE[1] - 1) / 2], [0, 21, (SIZE[0] - 1) / 2], [0, 0, 1]]).repeat(2, 1, 1)
    rgb = torch.randint(0, 256, (2, 3, *SIZE, 3), generator=generator, dtype=torch.uint8)
    depth = 1 + 3 * torch.rand(2, 3, *SIZE, generator=generator)
    return Views(rgb, depth, w2c, K)


def test_targets_are_in_the_frame_of_camera_0_with_mean_log_distance_0(views: Views) -> None:
    targets = targets_of(views)
    w2c, K = decode_pose(targets.pose, SIZE)
    assert torch.allclose(w2c[:, 0], torch.eye(4).expand(2, 4, 4), atol=1e-6)
    assert torch.allclose(K[:, :, 0, 0], views.K[:, None, 0, 0].expand(2, 3), rtol=1e-5)
    true_K = views.K[:, None].expand(2, 3, 3, 3).flatten(0, 1)
    points = unproject(targets.depth.flatten(0, 1), w2c.flatten(0, 1), true_K)[:, ::4, ::4]
    assert torch.allclose(points.reshape(2, -1, 3).norm(dim=-1).log().mean(1), torch.zeros(2), atol=1e-5)


def test_targets_know_neither_the_unit_nor_the_world(views: Views) -> None:
    world = torch.eye(4)
    world[:3, :3], world[:3, 3] = turned(0.3, 1.0, -0.4), torch.tensor([4.0, -2.0, 1.0])
    moved = views.w2c @ world
    moved[..., :3, 3] *= 7
    other = targets_of(Views(views.rgb, 7 * views.depth, moved, views.K))
    expected = targets_of(views)
    assert torch.allclose(other.pose, expected.pose, atol=1e-4)
    assert torch.allclose(other.depth, expected.depth, rtol=1e-4)


def test_the_truth_costs_nothing_and_everything_else_does(views: Views) -> None:
    targets = targets_of(views)
    estimates = targets.pose.expand(4, -1, -1, -1)
    assert torch.stack(camera_loss(estimates, targets.pose)).abs().max() == 0
    for i in range(9):
        wrong = estimates.clone()
        wrong[..., i] += 0.1
        assert camera_loss(wrong, targets.pose)[0] > 0.02
    late, early = estimates.clone(), estimates.clone()
    late[3] += 0.1
    early[0] += 0.1
    assert camera_loss(late, targets.pose)[0] > 4 * camera_loss(early, targets.pose)[0]

    depth = targets.depth.flatten(0, 1)
    logits = torch.stack((depth.log(), torch.zeros_like(depth)), dim=1).requires_grad_()
    loss, error, gradient = depth_loss(logits, depth)
    assert error < 1e-6
    assert gradient < 1e-6
    assert all(depth_loss(logits + torch.tensor([v, 0])[:, None, None], depth)[0] > loss for v in (-0.1, 0.1))


def test_confidence_becomes_the_inverse_of_the_relative_error(views: Views) -> None:
    """The served threshold of 1.5 relies on it."""
    depth = views.depth.flatten(0, 1)
    error = 0.05
    confidence = torch.full_like(depth, math.log(ALPHA / error - 1))
    logits = torch.stack(((depth * math.exp(error)).log(), confidence), dim=1).requires_grad_()
    depth_loss(logits, depth)[0].backward()
    assert logits.grad is not None
    assert logits.grad[:, 1].abs().max() < 1e-3 * logits.grad[:, 0].abs().max()


def test_a_mirrored_point_is_seen_in_the_mirrored_place(views: Views) -> None:
    which = torch.tensor([True, False])
    mirror = mirrored(views, which)
    for i in range(2):
        sign = torch.tensor([-1.0 if which[i] else 1.0, 1, 1])
        for j in range(3):
            point = unproject(views.depth[i, j : j + 1], views.w2c[i, j : j + 1], views.K[i : i + 1])[0, 5, 3]
            camera = mirror.w2c[i, j, :3, :3] @ (sign * point) + mirror.w2c[i, j, :3, 3]
            u, v, z = mirror.K[i] @ camera / camera[2] * torch.tensor([1, 1, float(camera[2])])
            column = SIZE[1] - 1 - 3 if which[i] else 3
            assert float(u) == pytest.approx(column, abs=1e-4)
            assert float(v) == pytest.approx(5, abs=1e-4)
            assert float(z) == pytest.approx(float(mirror.depth[i, j, 5, column]), rel=1e-5)
            assert torch.equal(mirror.rgb[i, j, 5, column], views.rgb[i, j, 5, 3])
    assert torch.allclose(torch.linalg.det(mirror.w2c), torch.ones(2, 3), atol=1e-5)
    twice = mirrored(mirror, which)
    assert all(torch.allclose(a, b) for a, b in zip(vars(twice).values(), vars(views).values(), strict=True))


def test_a_picture_keeps_its_camera_when_views_are_chosen(views: Views) -> None:
    taken = chosen(vars(views), 2, torch.Generator().manual_seed(0))
    assert taken.w2c.shape == (2, 2, 4, 4)
    for i in range(2):
        places = [[torch.equal(taken.rgb[i, j], views.rgb[i, k]) for k in range(3)].index(True) for j in range(2)]
        assert len(set(places)) == 2
        assert torch.equal(taken.w2c[i], views.w2c[i, places])
        assert torch.equal(taken.depth[i], views.depth[i, places])


def test_scaled_intrinsics_keep_the_corners_of_the_picture(views: Views) -> None:
    K = scaled(views.K, SIZE, (8, 36))
    corners = torch.tensor([[-0.5, SIZE[1] - 0.5], [-0.5, SIZE[0] - 0.5]])  # x, y
    rays = (corners - views.K[0, :2, 2:]) / views.K[0, [0, 1], [0, 1]][:, None]
    seen = rays * K[0, [0, 1], [0, 1]][:, None] + K[0, :2, 2:]
    assert torch.allclose(seen, torch.tensor([[-0.5, 35.5], [-0.5, 7.5]]))


def test_errors_after_alignment_are_those_that_were_made(views: Views) -> None:
    targets = targets_of(views)
    scale = alignment(targets.depth, views.depth)
    assert torch.allclose(targets.depth * scale[:, None, None, None], views.depth, rtol=1e-5)
    for errors in camera_errors(targets.pose, views.w2c, views.K, scale, SIZE):
        assert errors.max() < 1e-3
    angle, shift = 0.03, 0.2
    off = torch.eye(4)
    off[:3, :3] = turned(0, angle, 0)
    w2c = views.w2c.clone()
    w2c[:, 2] = off @ w2c[:, 2]  # another rotation, the same place
    rotation, place, _ = camera_errors(targets.pose, w2c, views.K, scale, SIZE)
    assert rotation[:, 1].tolist() == pytest.approx([math.degrees(angle)] * 2, rel=1e-3)
    assert rotation[:, 0].max() < 1e-3
    assert place.max() < 1e-4
    w2c = views.w2c.clone()
    w2c[:, 1, 2, 3] += shift
    K = views.K.clone()
    K[:, 0, 0] *= 1.1
    rotation, place, focal = camera_errors(targets.pose, w2c, K, scale, SIZE)
    assert place[:, 0].tolist() == pytest.approx([shift] * 2, rel=1e-3)
    assert place[:, 1].max() < 1e-4
    assert rotation.max() < 1e-3
    assert focal.flatten().tolist() == pytest.approx([1 - 1 / 1.1] * 6, rel=1e-3)


def test_inverses_of_rigid_matrices(views: Views) -> None:
    identity = torch.eye(4).expand(2, 3, 4, 4)
    assert torch.allclose(inverse_of_rigid(views.w2c) @ views.w2c, identity, atol=1e-5)
    assert torch.allclose(product(inverse_of_rigid(views.w2c), views.w2c), identity, atol=1e-5)


def test_unchanged_pictures_stay_and_changed_ones_stay_pictures(views: Views) -> None:
    rgb = views.rgb.flatten(0, 1)
    plain = rgb.permute(0, 3, 1, 2).float() / 255
    one, zero = torch.ones(6, 1, 1, 1), torch.zeros(6, 1, 1, 1)
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    neutral = Changes(one.expand(6, 3, 1, 1), one, one, zero, zero, zero)
    assert torch.allclose(altered(rgb, noise, neutral), plain, atol=2e-4)
    assert torch.allclose(blocks(plain, torch.full((6, 1, 1, 1), 1e-5)), plain, atol=1e-3)
    for seed in range(20):
        changes = draw_changes(2, 3, torch.Generator().manual_seed(seed))
        again = draw_changes(2, 3, torch.Generator().manual_seed(seed))
        assert all(torch.equal(a, b) for a, b in zip(vars(changes).values(), vars(again).values(), strict=True))
        changed = altered(rgb, noise, changes)
        assert changed.isfinite().all()
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_a_network_to_train_has_the_served_weights_and_starts_at_the_identity() -> None:
    network, served = trainable(SMALL), Vggt(SMALL, points=False)
    initialise(network, torch.Generator().manual_seed(0))
    served.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 3, 28, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prediction, expected = network(images), served(images)
    assert torch.equal(prediction.depth, expected.depth)
    assert prediction.depth.log().abs().max() < 1
    w2c, _ = decode_pose(prediction.pose, (28, 56))
    assert (w2c - torch.eye(4)).abs().max() < 0.3
    assert (prediction.pose[..., 7:] - 1).abs().max() < 0.3
