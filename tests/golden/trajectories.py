"""Camera paths."""

from typing import get_args

import torch

from gen3c.cameras import PathKind, RotationMode, camera_path
from tests.golden.tolerance import Absolute, Exact
from tests.golden.vectors import Check, Vectors

POSE = Absolute(1e-6)

# Settings of the per-frame paths that the file does not hold; the vectors' README gives them.
SEQUENCE_DISTANCE = 0.25
SEQUENCE_CENTER_DEPTH = 2.0

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
    for match in v.matching(f"w2cseq__({kind})"):
        path = camera_path(
            KINDS[match[1]],
            len(starts),
            starts,
            distance=SEQUENCE_DISTANCE,
            center_depth=SEQUENCE_CENTER_DEPTH,
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


CHECKS: dict[str, Check] = {"trajectories": check_trajectories}
