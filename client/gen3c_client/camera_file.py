"""Camera path files (`CameraFile` as JSON): reading, and the checks that need no scene."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gen3c_client.contract import CameraFile
from gen3c_client.errors import InputError, describe

TOLERANCE = 1e-3  # of |R R^T - I| and of constant entries, as at the server: poses printed with four decimals pass


def load_camera_file(path: Path) -> CameraFile:
    """The camera path in `path`, every pose a rigid motion and every K a pinhole matrix.

    Raises:
        InputError: unreadable, not a `CameraFile`, or a pose or K that no camera has; the sentence says which.
    """
    try:
        cameras = CameraFile.model_validate_json(path.read_bytes())
    except OSError as e:
        raise InputError(f"The camera file {path} cannot be read: {e.strerror}.", "--cameras") from e
    except ValidationError as e:
        raise InputError(f"The camera file {path} is not valid: {describe(e)}.", "--cameras") from e
    kind = "poses" if cameras.poses is not None else "keyframes"
    for i, pose in enumerate(cameras.poses or cameras.keyframes or []):
        for problem in (w2c_problem(np.array(pose.w2c)), pose.K and k_problem(np.array(pose.K))):
            if problem:
                raise InputError(f"The camera file {path} is not valid: {kind}[{i}].{problem}.", "--cameras")
    return cameras


def w2c_problem(
    w2c: NDArray[Any],  # [4,4]
) -> str | None:
    """Why `w2c` (numbers) is not a rigid motion, or None. A sentence's tail that begins with `w2c`."""
    w2c = as_float32(w2c).astype(np.float64)  # the job is computed with float32: that is what must be finite
    if not np.isfinite(w2c).all():
        return "w2c has a value that is not finite"
    if np.abs(w2c[3] - (0, 0, 0, 1)).max() > TOLERANCE:
        return f"w2c must end in the row [0, 0, 0, 1], got {w2c[3].tolist()}"
    R = w2c[:3, :3]
    error = float(np.abs(R @ R.T - np.eye(3)).max())
    if error > TOLERANCE:
        return f"w2c has no rotation in its upper left 3x3 block: |R R^T - I| is {error:.3g}, legal is {TOLERANCE}"
    if np.linalg.det(R) < 0:
        return "w2c has a reflection in its upper left 3x3 block (determinant -1), legal is a rotation (determinant 1)"
    return None


def k_problem(
    K: NDArray[Any],  # [3,3]
) -> str | None:
    """Why `K` (numbers) is not a pinhole matrix in pixels, or None. A sentence's tail that begins with `K`."""
    K = as_float32(K)
    if not np.isfinite(K).all():
        return "K has a value that is not finite"
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        return f"K needs positive focal lengths, got {K[0, 0]:g} and {K[1, 1]:g}"
    if np.abs(K[2] - (0, 0, 1)).max() > TOLERANCE:
        return f"K must end in the row [0, 0, 1], got {K[2].tolist()}"
    if abs(K[1, 0]) > TOLERANCE:
        return f"K must be upper triangular, got {K[1, 0]:g} below the diagonal"
    return None


def holds_numbers(array: NDArray[Any]) -> bool:
    """Whether the elements are integers or floating-point numbers, of any width."""
    return array.dtype.kind in "fiu"


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers as the server sees them; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def check_camera_arrays(
    w2c: NDArray[Any],  # [t,4,4]
    K: NDArray[Any] | None,  # [t,3,3]
) -> None:
    """Refuses camera tensors that no camera path has.

    Raises:
        InputError: no numbers, a wrong shape, a pose that is not rigid, a K that is no pinhole matrix.
    """
    poses = np.asarray(w2c)
    matrices = np.asarray(K) if K is not None else None
    for name, array in (("cameras_w2c", poses), ("cameras_k", matrices)):
        if array is not None and not holds_numbers(array):
            raise InputError(f"{name} must hold numbers, got {array.dtype}.", name)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not len(poses):
        raise InputError(f"cameras_w2c must have the shape [t, 4, 4], got {list(poses.shape)}.", "cameras_w2c")
    if matrices is not None and matrices.shape != (len(poses), 3, 3):
        expected = [len(poses), 3, 3]
        raise InputError(f"cameras_k must have the shape {expected}, got {list(matrices.shape)}.", "cameras_k")
    for i, pose in enumerate(poses):
        if problem := w2c_problem(pose):
            raise InputError(f"Camera {i}: {problem}.", "cameras_w2c")
    for i, matrix in enumerate(matrices if matrices is not None else ()):
        if problem := k_problem(matrix):
            raise InputError(f"Camera {i}: {problem}.", "cameras_k")
