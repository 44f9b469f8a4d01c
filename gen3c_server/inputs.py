"""The tensors of a request as a checked job."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from gen3c_client.contract import CameraFile, JobSpec, Limits, NamedPath, Pose
from torch import Tensor

from gen3c.camera_spline import interpolate_cameras
from gen3c.cameras import camera_path, check_cameras
from gen3c.conditioning import Cameras
from gen3c.errors import InvalidInputError
from gen3c.presets import Preset
from gen3c.scene import Scene


@dataclass(frozen=True)
class JobInputs:
    """One job as it came, checked as far as that goes without decoding anything."""

    spec: JobSpec
    media: tuple[bytes, ...]
    names: tuple[str, ...]
    cameras: Cameras | None  # an explicit path in the frame and unit of the spec
    geometry: bytes | None
    num_frames: int


def read_inputs(wire: Mapping[str, Tensor | list[bytes]], preset: Preset, limits: Limits) -> JobInputs:
    """Parse and check; raises ValidationError (spec) or InvalidInputError, naming the field."""
    spec = JobSpec.model_validate_json(_bytes(wire, "SPEC")[0])
    media = tuple(_bytes(wire, "MEDIA"))
    geometry = _bytes(wire, "GEOMETRY")[0] if "GEOMETRY" in wire else None
    if not media:
        raise InvalidInputError("There is no media; legal: one or more encoded images or videos.", "MEDIA")
    size = sum(len(m) for m in media) + len(geometry or b"")
    if size > limits.upload_bytes:
        raise InvalidInputError(f"The upload has {size} bytes; this server takes {limits.upload_bytes}.", "MEDIA")
    if spec.preset not in {None, preset.name}:
        raise InvalidInputError(f"preset is {spec.preset!r}; this server serves {preset.name!r}.", "spec.preset")
    if spec.names is not None and len(spec.names) != len(media):
        raise InvalidInputError(f"There are {len(spec.names)} names for {len(media)} media.", "spec.names")
    names = spec.names or [f"MEDIA[{i}]" for i in range(len(media))]
    if (spec.geometry.provider == "file") != (geometry is not None):
        raise InvalidInputError(
            f"geometry.provider is {spec.geometry.provider!r} and GEOMETRY is {'' if geometry else 'not '}given; "
            "legal: provider 'file' with GEOMETRY, or another provider without.",
            "GEOMETRY",
        )
    cameras = _explicit_cameras(spec, wire)
    if spec.cameras is not None and spec.cameras.frame == "world" and geometry is None:
        raise InvalidInputError(
            "cameras.frame is 'world', which needs geometry provider 'file'; legal here: 'view0'.", "spec.cameras.frame"
        )
    _check_raster(spec.cameras, preset)
    num_frames = _num_frames(spec, cameras, preset, limits)
    if spec.path is not None:  # what the path alone tells must not wait for the scene
        camera_path(spec.path.kind, num_frames, torch.eye(4), rotation=spec.path.rotation, distance=spec.path.distance)
    return JobInputs(spec, media, tuple(names), cameras, geometry, num_frames)


def target_cameras(inputs: JobInputs, scene: Scene) -> Cameras:
    """The camera of every output frame, in the scene's frame and unit."""
    K0 = scene.views[0].K
    n = inputs.num_frames
    spec = inputs.spec
    if inputs.cameras is not None:
        return _with_default_intrinsics(inputs.cameras, K0)
    if spec.cameras is not None:
        cameras = _from_file(spec.cameras, n, K0)
        return Cameras(scene.from_world(cameras.w2c), cameras.K) if spec.cameras.frame == "world" else cameras
    path = spec.path or NamedPath()
    w2c = camera_path(path.kind, n, torch.eye(4), rotation=path.rotation, distance=path.distance)
    return Cameras(w2c, K0.expand(n, -1, -1))


def _explicit_cameras(spec: JobSpec, wire: Mapping[str, Tensor | list[bytes]]) -> Cameras | None:
    """The tensors CAMERAS_W2C and CAMERAS_K, checked; K is NaN where it was left out."""
    w2c, K = wire.get("CAMERAS_W2C"), wire.get("CAMERAS_K")
    if w2c is None and K is None:
        if spec.cameras is not None:
            _check_poses(spec.cameras)
        return None
    if not isinstance(w2c, Tensor) or w2c.ndim != 3 or w2c.shape[1:] != (4, 4) or not len(w2c):
        shape = list(w2c.shape) if isinstance(w2c, Tensor) else w2c
        raise InvalidInputError(f"CAMERAS_W2C has shape {shape}; legal: FP32 [t,4,4].", "CAMERAS_W2C")
    if spec.path is not None or spec.cameras is not None:
        raise InvalidInputError("CAMERAS_W2C comes with a path in the spec; legal: one of them.", "CAMERAS_W2C")
    if K is not None and (not isinstance(K, Tensor) or K.shape != (len(w2c), 3, 3)):
        shape = list(K.shape) if isinstance(K, Tensor) else K
        raise InvalidInputError(f"CAMERAS_K has shape {shape}; legal: [{len(w2c)},3,3] as CAMERAS_W2C.", "CAMERAS_K")
    check_cameras(w2c, torch.eye(3).expand(len(w2c), -1, -1), "CAMERAS_W2C")
    if K is not None:
        check_cameras(torch.eye(4).expand(len(w2c), -1, -1), K, "CAMERAS_K")
    return Cameras(w2c, K if K is not None else torch.full((len(w2c), 3, 3), torch.nan))


def _check_poses(file: CameraFile) -> None:
    poses: list[Pose] = [*(file.poses or []), *(file.keyframes or [])]
    w2c = torch.tensor([p.w2c for p in poses], dtype=torch.float32)
    K = torch.tensor([p.K if p.K is not None else torch.eye(3).tolist() for p in poses], dtype=torch.float32)
    check_cameras(w2c, K, "spec.cameras")


def _check_raster(file: CameraFile | None, preset: Preset) -> None:
    """Intrinsics are pixels of a raster; those of another one would zoom without a word."""
    if file is None or all(pose.K is None for pose in [*(file.poses or []), *(file.keyframes or [])]):
        return
    size = (file.width or preset.width, file.height or preset.height)
    if size != (preset.width, preset.height):
        raise InvalidInputError(
            f"K of the camera file belongs to {size[0]}x{size[1]} pixels; legal: {preset.width}x{preset.height}, or "
            "poses without K.",
            "spec.cameras.width",
        )


def _num_frames(spec: JobSpec, cameras: Cameras | None, preset: Preset, limits: Limits) -> int:
    """How many frames the job makes: what the spec says, else the number of explicit poses, else one chunk."""
    poses = len(cameras) if cameras is not None else None
    if spec.cameras is not None and spec.cameras.poses is not None:
        poses = len(spec.cameras.poses)
    n = spec.num_frames or poses or preset.chunk_frames
    if poses is not None and poses != n:
        raise InvalidInputError(f"num_frames is {n}, but the path has {poses} poses.", "spec.num_frames")
    if n > limits.frames:
        step = preset.chunk_frames - 1
        largest = (limits.frames - 1) // step * step + 1  # 1: not even one chunk
        legal = f"so {largest if largest > 1 else 'none'} with {preset.name}"
        raise InvalidInputError(
            f"num_frames is {n}; this server makes at most {limits.frames} frames, {legal}.", "spec.num_frames"
        )
    preset.chunks(n)
    return n


def _from_file(file: CameraFile, n: int, K0: Tensor) -> Cameras:
    poses: list[Pose] = [*(file.poses or []), *(file.keyframes or [])]
    w2c = torch.tensor([p.w2c for p in poses], dtype=torch.float32)
    K = torch.stack([torch.tensor(p.K, dtype=torch.float32) if p.K is not None else K0 for p in poses])
    if file.keyframes is None:
        return Cameras(w2c, K)
    times = torch.tensor([k.time for k in file.keyframes], dtype=torch.float64)
    at = torch.linspace(0, 1, n, dtype=torch.float64)
    return Cameras(*interpolate_cameras(times, w2c, K, at))


def _with_default_intrinsics(cameras: Cameras, K0: Tensor) -> Cameras:
    return Cameras(cameras.w2c, torch.where(torch.isnan(cameras.K), K0, cameras.K))


def _bytes(wire: Mapping[str, Tensor | list[bytes]], name: str) -> list[bytes]:
    value = wire.get(name)
    if value is None:
        raise InvalidInputError(f"{name} is missing.", name)
    if isinstance(value, Tensor):
        raise InvalidInputError(f"{name} is numeric; legal: BYTES.", name)
    return value
