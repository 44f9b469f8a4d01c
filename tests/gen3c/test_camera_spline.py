import math

import torch

from gen3c.camera_spline import interpolate_cameras, quaternion_to_rotation, rotation_to_quaternion

K = torch.tensor([[100.0, 0, 31], [0, 90, 17], [0, 0, 1]])


def looking(angle: float, centre: tuple[float, float, float]) -> torch.Tensor:
    """World to camera of a camera at `centre`, turned about y by `angle`."""
    c2w = torch.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    c2w[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c2w[:3, 3] = torch.tensor(centre)
    return torch.linalg.inv(c2w)


def test_the_path_goes_through_its_keyframes() -> None:
    times = torch.tensor([0.0, 0.3, 1.0])
    w2c = torch.stack([looking(0, (0, 0, 0)), looking(0.5, (1, 0.2, 0)), looking(-2.9, (0, 3, 1))])
    Ks = torch.stack([K, 1.2 * K, 0.9 * K])
    got_w2c, got_K = interpolate_cameras(times, w2c, Ks, times)
    assert (got_w2c - w2c).abs().max() < 1e-5
    assert (got_K - Ks).abs().max() < 1e-3


def test_rotation_runs_at_constant_speed_and_the_short_way() -> None:
    w2c = torch.stack([looking(3.0, (0, 0, 0)), looking(-3.0, (0, 0, 0))])  # 0.283 apart through pi
    got, _ = interpolate_cameras(torch.tensor([0.0, 1.0]), w2c, K.expand(2, 3, 3), torch.linspace(0, 1, 5))
    steps = [
        float(torch.acos(((a @ b.T).trace() - 1) / 2)) for a, b in zip(got[:-1, :3, :3], got[1:, :3, :3], strict=True)
    ]
    expected = (2 * math.pi - 6.0) / 4
    assert max(abs(s - expected) for s in steps) < 1e-3


def test_equal_steps_along_a_line_stay_equal() -> None:
    w2c = torch.stack([looking(0.1 * i, (float(i), 0, 0)) for i in range(4)])
    got, _ = interpolate_cameras(torch.linspace(0, 1, 4), w2c, K.expand(4, 3, 3), torch.linspace(0, 1, 13))
    centres = torch.linalg.inv(got)[:, 0, 3]
    assert (centres - torch.linspace(0, 3, 13)).abs().max() < 1e-5


def test_quaternions_of_half_turns_survive() -> None:
    half_turns = torch.stack([torch.diag(torch.tensor(d)) for d in ((1.0, -1, -1), (-1.0, 1, -1), (-1.0, -1, 1))])
    assert (quaternion_to_rotation(rotation_to_quaternion(half_turns)) - half_turns).abs().max() < 1e-6
