"""The wire contract of the `gen3c` model: what a job is, and what comes back.

Owned by the client, imported by the server. Strict: an unknown field, a NaN or a wrong type is an error that
names the field. A job travels as four tensors:

    MEDIA        BYTES [n]       encoded images and videos, in order
    SPEC         BYTES [1]       a `JobSpec` as JSON
    CAMERAS_W2C  FP32  [t,4,4]   optional, t = output frames: the camera path itself
    CAMERAS_K    FP32  [t,3,3]   optional, with CAMERAS_W2C
    GEOMETRY     BYTES [1]       optional, npz for geometry provider `file` (docs/contract.md)

and answers as a stream of responses, each with EVENT BYTES [1] (one of the events below as JSON) and, for an
artifact, BLOB BYTES [1]. The request's parameter `traceparent` may say which trace the job belongs to.
"""

import itertools
import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator

CONTRACT_VERSION = 1
TRACE_PARAMETER = "traceparent"  # of a request: a `TraceParent`

PathKind = Literal["left", "right", "up", "down", "zoom_in", "zoom_out", "clockwise", "counterclockwise"]
RotationMode = Literal["center_facing", "no_rotation", "trajectory_aligned"]
FusionMode = Literal["vector_max", "coverage_max", "topk_concat", "ranked_concat"]
FitMode = Literal["crop", "pad", "stretch"]
GeometryProvider = Literal["auto", "vggt", "sfm", "file"]
ScaleMode = Literal["center_depth", "reference"]
SelectMethod = Literal["first", "middle", "last", "all", "interval", "first-max"]
ArtifactName = Literal["video", "warps", "points", "cameras", "geometry"]
Stage = Literal["queued", "media", "geometry", "condition", "denoise", "decode", "encode"]
ErrorCode = Literal["INVALID_ARG", "UNAVAILABLE", "CANCELLED", "DEADLINE", "INTERNAL"]

ARTIFACT_FILES: dict[ArtifactName, tuple[str, str]] = {
    "video": ("video.mp4", "video/mp4"),
    "warps": ("warps.mp4", "video/mp4"),
    "points": ("points.ply", "application/x-ply"),
    "cameras": ("cameras.json", "application/json"),
    "geometry": ("geometry.npz", "application/x-npz"),
}

Row4 = Annotated[list[float], Field(min_length=4, max_length=4)]
Row3 = Annotated[list[float], Field(min_length=3, max_length=3)]
Matrix4x4 = Annotated[list[Row4], Field(min_length=4, max_length=4)]
Matrix3x3 = Annotated[list[Row3], Field(min_length=3, max_length=3)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Selection(_Strict):
    """Which frames of each video become views. Still images are always taken.

    `all` takes at most `max_frames` evenly spread frames; `interval` every `frame_interval`-th; `first-max` frames
    0, step_size, 2*step_size ... up to `max_frames` of them.
    """

    method: SelectMethod = "all"
    step_size: int = Field(1, ge=1, le=1_000_000, description="frames between two views, method first-max")
    frame_interval: int = Field(30, ge=1, le=1_000_000, description="frames between two views, method interval")
    max_frames: int = Field(10, ge=1, le=10_000, description="views per video at most")


class NamedPath(_Strict):
    """One of eight simple camera paths that start at view 0 (docs/cameras.md)."""

    kind: PathKind = "left"
    rotation: RotationMode = "center_facing"
    distance: float = Field(0.3, ge=0, le=10, description="how far the camera moves, in units of `geometry.scale`")


class Pose(_Strict):
    """One camera. `w2c` is OpenCV world-to-camera; translation in units of `geometry.scale` (frame `view0`)."""

    w2c: Matrix4x4
    K: Matrix3x3 | None = Field(None, description="pixels of the output raster; omitted: view 0's own")


class Keyframe(Pose):
    """A camera at a moment of the output video."""

    time: float = Field(ge=0, le=1, description="0 = first output frame, 1 = last")


class CameraFile(_Strict):
    """An explicit camera path: one pose for every output frame, or keyframes to interpolate between.

    Rotations between keyframes follow SLERP, positions and intrinsics a Catmull-Rom spline. In the frame `view0`
    view 0's camera is the identity and lengths are in units of `geometry.scale`; in `world` (geometry provider `file`
    only) both are those of the geometry file.
    """

    version: Literal[1] = 1
    frame: Literal["view0", "world"] = "view0"
    poses: list[Pose] | None = Field(None, min_length=1)
    keyframes: list[Keyframe] | None = Field(None, min_length=2)
    width: int | None = Field(None, ge=1, description="output raster of K, for information and checks")
    height: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0, description="for information")

    @model_validator(mode="after")
    def _one_kind(self) -> "CameraFile":
        if (self.poses is None) == (self.keyframes is None):
            raise ValueError("give either 'poses' or 'keyframes', not both and not neither")
        times = [k.time for k in self.keyframes or []]
        if any(b <= a for a, b in itertools.pairwise(times)):
            raise ValueError(f"keyframe times must grow, got {times}")
        return self


class GeometryOptions(_Strict):
    """Where depth and cameras of the views come from, and what the unit of lengths is.

    `auto` is `vggt` where the server has weights of the released size, else `sfm`, and where that fails a trained
    `vggt` of another size if the server has one; an `info` event says which and why. `scale` is `center_depth`, the
    median of view 0's confident depth, or `reference`: the geometry's own unit as it comes, as in GEN3C.
    """

    provider: GeometryProvider = "auto"
    min_confidence: float = Field(0.1, ge=0, le=1, description="points below this confidence stay out of the cache")
    scale: ScaleMode = Field("center_depth", description="what a length of 1 is")
    vggt_confidence: float = Field(
        1.5,
        ge=1,
        description="by vggt: least confidence of a pixel that is used, on the network's scale; 1 = none",
    )
    vggt_drop_lowest: float = Field(
        0.0, ge=0, lt=1, description="by vggt: share of all pixels, the least confident, that is not used either"
    )


class JobSpec(_Strict):
    """Everything about a job but the media. Every field has a default: `{}` with media is a legal job."""

    version: Literal[1] = 1
    preset: str | None = Field(None, description="refused if the server serves another; omitted: the server's own")
    prompt: str = Field("", max_length=4096)
    negative_prompt: str | None = Field(
        None, max_length=4096, description="of the unconditional pass, at guidance above 0; omitted: the deployment's"
    )
    select: Selection = Selection()
    fit: FitMode = Field("crop", description="how views of another aspect ratio meet the output raster")
    geometry: GeometryOptions = GeometryOptions()
    path: NamedPath | None = Field(None, description="omitted, and no cameras: NamedPath's defaults")
    cameras: CameraFile | None = Field(None, description="an explicit path, instead of `path`")
    num_frames: int | None = Field(None, ge=1, description="output frames: chunk + k*(chunk-1); omitted: one chunk")
    fusion: FusionMode = "ranked_concat"
    foreground_masking: bool = False
    seed: int = Field(1, ge=0, lt=2**32)
    steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; omitted: the preset's")
    guidance: float | None = Field(None, ge=0, le=50, description="cond + g*(cond-uncond); omitted: the preset's")
    fps: float = Field(24.0, gt=0, le=120, description="of the output, and what the network is told")
    save: list[ArtifactName] = Field(["video"], min_length=1, description="artifacts to return")
    timeout_s: float | None = Field(None, gt=0, description="the job is cancelled after this many seconds of work")
    names: list[str] | None = Field(None, description="one per MEDIA element, for messages only")

    @model_validator(mode="after")
    def _one_path(self) -> "JobSpec":
        if self.path is not None and self.cameras is not None:
            raise ValueError("give either 'path' or 'cameras', not both")
        return self


class Progress(_Strict):
    """`step` of `total` steps of `stage` are done. `eta_s`: seconds until this stage ends, once that can be known."""

    event: Literal["progress"] = "progress"
    stage: Stage
    step: int
    total: int
    eta_s: float | None = None
    message: str = ""


class Notice(_Strict):
    """Something the user should know; the job goes on."""

    event: Literal["warning"] = "warning"
    message: str


class Info(_Strict):
    """How the server does the job, where it had a choice; nothing to worry about."""

    event: Literal["info"] = "info"
    message: str


class Artifact(_Strict):
    """A result file, or part `part` of `parts` of it; `sha256` and `size` are of the whole file."""

    event: Literal["artifact"] = "artifact"
    name: str
    media_type: str
    sha256: str
    size: int
    part: int = 1
    parts: int = 1


class Done(_Strict):
    """The job succeeded. `timings_s`: seconds by stage. `provenance`: preset, weights, versions, geometry, spec."""

    event: Literal["done"] = "done"
    seed: int
    timings_s: dict[str, float]
    provenance: dict[str, JsonValue]


class Error(_Strict):
    """The job failed; the stream's status says the same. `field` names the input at fault, where there is one."""

    event: Literal["error"] = "error"
    code: ErrorCode
    message: str
    field: str | None = None


Event = Annotated[Progress | Notice | Info | Artifact | Done | Error, Field(discriminator="event")]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(data: bytes) -> Event:
    """One event from its JSON."""
    return _EVENT.validate_json(data)


class Limits(_Strict):
    """What a deployment accepts; an input over a limit is answered with the figure."""

    upload_bytes: int = Field(512 * 2**20, ge=1, description="of all MEDIA elements and GEOMETRY together")
    views: int = Field(200, ge=1, description="pictures and selected frames of a job")
    pixels: int = Field(100_000_000, ge=1, description="of one picture or video frame, decoded")
    frames: int = Field(1211, ge=1, description="output frames of a job")
    queued_jobs: int = Field(8, ge=0, description="waiting behind the running ones")
    job_seconds: float = Field(3600, gt=0, description="of work for one job; waiting does not count")
    artifact_part_bytes: int = Field(64 * 2**20, ge=1024, description="larger artifacts come in numbered parts")


@dataclass(frozen=True)
class TraceParent:
    """The span that a job is part of, as in W3C Trace Context: ids in lower hexadecimal digits, not all 0."""

    trace_id: str  # 32 digits
    parent_id: str  # 16 digits
    sampled: bool = True

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """What `traceparent` says; None for anything else, which begins a trace of its own, as W3C wants it."""
        found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
        if found is None or not int(found["trace"], 16) or not int(found["parent"], 16):
            return None
        return cls(found["trace"], found["parent"], bool(int(found["flags"], 16) & 1))

    @classmethod
    def new(cls) -> Self:
        """A trace that nobody has begun yet."""
        return cls(f"{secrets.randbelow(2**128 - 1) + 1:032x}", f"{secrets.randbelow(2**64 - 1) + 1:016x}")

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{int(self.sampled):02x}"


# Versions after 00 may append fields; ff is none.
_TRACEPARENT = re.compile(
    r"(?:00|(?!00|ff)(?P<later>[0-9a-f]{2}))-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?(later)(?:-.*)?)"
)
