"""Camera paths."""

from typing import get_args

import torch
from torch import Tensor

from gen3c.cameras import PathKind, RotationMode, camera_path
from tests.golden.tolerance import Absolute, Exact
from tests.golden.vectors import Check, Vectors

POSE = Absolute(1e-6)

# Settings of the per-frame paths that the file holds in no array: the README's, for paths that do not tell them.
SEQUENCE_DISTANCE = 0.25
SEQUENCE_CENTER_DEPTH = 2.0
STRAIGHT = "left|right|up|down|zoom_in|zoom_out"
SMALLEST = 1e-3  # displacement in scene units, and tangent of a turn: below it the settings drown in rounding

KINDS: dict[str, PathKind] = {kind: kind for kind in get_args(PathKind)}
ROTATIONS: dict[str, RotationMode] = {rotation: rotation for rotation in get_args(RotationMode)}


def check_trajectories(v: Vectors) -> None:
    """`w2c__KIND__ROTATION` from one camera, `w2cseq__KIND` from one a frame, `w2cN_KIND_dD` from the identity."""
    kind, rotation = "|".join(KINDS), "|".join(ROTATIONS)
    start, distance = v.input("initial_w2c"), v.number("distance")
    for match in v.matching(f"w2c__({kind})__({rotation})"):
        frames = v.expected(match[0]).shape[1]
        path = camera_path(
            KINDS[match[1]], frames, start, rotation=ROTATIONS[match[2]], distance=distance, reference=True
        )
        v.check(match[0], path[None], POSE)

    starts = v.input("initial_w2c_seq")
    distance, center_depth = sequence_settings(v, starts)
    for match in v.matching(f"w2cseq__({kind})"):
        path = camera_path(
            KINDS[match[1]],
            len(starts),
            starts,
            distance=distance,
            center_depth=center_depth,
            reference=True,
        )
        v.check(match[0], path[None], POSE)

    for match in v.matching(rf"w2c(\d+)_({kind})_d(\d+(?:\.\d+)?)"):
        path = camera_path(KINDS[match[2]], int(match[1]), torch.eye(4), distance=float(match[3]), reference=True)
        v.check(match[0], path[None], POSE)

    # Our paths are of poses alone: intrinsics stay what they were.
    K = v.input("initial_K")
    v.input("initial_K_seq")
    v.check("K_out", K.expand(v.expected("K_out").shape), Exact())


def sequence_settings(v: Vectors, starts: Tensor) -> tuple[float, float]:
    """Distance and centre depth of the per-frame paths from cameras [n,4,4], as the stored straight ones tell them.

    In the last frame the camera has moved by (n-1)/n of distance * centre depth, and looks at the centre: moved
    sideways by s it has turned by atan(s / centre depth). The median over paths, so that one wrong path does not
    make the others fail. Only sizes are read: directions and signs are ours to get right.
    """
    reaches, depths = [], []
    n = len(starts)
    for match in v.matching(f"w2cseq__({STRAIGHT})"):
        move = v.expected(match[0])[0, -1].double() @ torch.linalg.inv(starts[-1].double())
        moved = float(move[:3, 3].norm())
        if n < 2 or moved < SMALLEST:
            continue
        reaches.append(moved * n / (n - 1))
        forward = move[2, :3]
        turn = float(forward[:2].norm() / forward[2].abs())
        if turn > SMALLEST:  # zooming does not turn
            depths.append(moved / turn)
    center_depth = _median(depths, SEQUENCE_CENTER_DEPTH)
    return _median(reaches, SEQUENCE_DISTANCE * center_depth) / center_depth, center_depth


def _median(values: list[float], fallback: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median()) if values else fallback


CHECKS: dict[str, Check] = {"trajectories": check_trajectories}
