"""The flags of `gen3c generate`: names, help and grouping. Defaults that the contract owns stay None here."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from gen3c_client.contract import (
    FitMode,
    FusionMode,
    GeometryOptions,
    GeometryProvider,
    JobSpec,
    NamedPath,
    PathKind,
    RotationMode,
    ScaleMode,
    Selection,
    SelectMethod,
)
from gen3c_client.transport import DEFAULT_URL

_FRAMES = "Input frames (videos)"
_GEOMETRY = "Geometry"
_CAMERA = "Camera path"
_VIDEO = "Video"
_RESULTS = "Results"
_SERVER = "Server"


def _option(flags: str, panel: str, text: str, default: object = None, choices: object = None, **more: Any) -> Any:
    if choices is not None:  # listed in the text: a narrow terminal cuts them in the type column
        text += f" One of {', '.join(get_args(choices))}."
        more["metavar"] = "NAME"
    shown = f" [dim]\\[default: {default}][/dim]" if default is not None else ""
    return typer.Option(*flags.split(), help=text + shown, rich_help_panel=panel, show_default=False, **more)


_SELECT, _PATH, _GEO, _SPEC = Selection(), NamedPath(), GeometryOptions(), JobSpec()

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Images and videos of one scene: files, quoted globs, folders. The first gives view 0.",
        show_default=False,
    ),
]

Select = Annotated[
    SelectMethod | None,
    _option(
        "--select",
        _FRAMES,
        "Which frames of a video become views: first, middle, last; all (at most --max-frames, evenly spread); "
        "interval (every --frame-interval-th); first-max (0, --step-size, 2 x --step-size ...).",
        _SELECT.method,
        metavar="NAME",
    ),
]
StepSize = Annotated[
    int | None, _option("--step-size", _FRAMES, "Frames between two views, with --select first-max.", _SELECT.step_size)
]
FrameInterval = Annotated[
    int | None,
    _option("--frame-interval", _FRAMES, "Frames between two views, with --select interval.", _SELECT.frame_interval),
]
MaxFrames = Annotated[
    int | None,
    _option(
        "--max-frames",
        _FRAMES,
        "Views per video at most, with --select all, interval or first-max.",
        _SELECT.max_frames,
    ),
]
Fit = Annotated[
    FitMode | None,
    _option("--fit", _FRAMES, "How input of another aspect ratio meets the output raster.", _SPEC.fit, FitMode),
]

Geometry = Annotated[
    GeometryProvider | None,
    _option(
        "--geometry",
        _GEOMETRY,
        "Where depth and cameras come from: a network (vggt), structure from motion (sfm), the network if the server "
        "has its weights, else sfm (auto), or --geometry-file.",
        _GEO.provider,
        GeometryProvider,
    ),
]
GeometryFile = Annotated[
    Path | None,
    _option(
        "--geometry-file", _GEOMETRY, "npz with depth, w2c and K of every view; means --geometry file.", metavar="FILE"
    ),
]
MinConfidence = Annotated[
    float | None,
    _option("--min-confidence", _GEOMETRY, "Points below this confidence (0..1) are left out.", _GEO.min_confidence),
]
VggtConfidence = Annotated[
    float | None,
    _option(
        "--vggt-confidence",
        _GEOMETRY,
        "Depth by vggt below this confidence is left out: from 1, which is none, to hundreds.",
        _GEO.vggt_confidence,
    ),
]
VggtDropLowest = Annotated[
    float | None,
    _option(
        "--vggt-drop-lowest",
        _GEOMETRY,
        "Share of the least confident depth by vggt that is left out, too (0 to below 1).",
        _GEO.vggt_drop_lowest,
    ),
]
Scale = Annotated[
    ScaleMode | None,
    _option(
        "--scale",
        _GEOMETRY,
        "The unit of lengths: the depth of view 0's centre, or the geometry's own as it comes (as in GEN3C).",
        _GEO.scale,
        ScaleMode,
    ),
]

CameraPath = Annotated[
    PathKind | None, _option("--path", _CAMERA, "Where the camera goes from view 0.", _PATH.kind, PathKind)
]
Rotation = Annotated[
    RotationMode | None, _option("--rotation", _CAMERA, "Where it looks on the way.", _PATH.rotation, RotationMode)
]
Distance = Annotated[
    float | None,
    _option(
        "--distance",
        _CAMERA,
        "How far it goes, in depths of view 0's centre, or as --scale says (0..10).",
        _PATH.distance,
    ),
]
Cameras = Annotated[
    Path | None,
    _option(
        "--cameras",
        _CAMERA,
        "JSON with a pose for every output frame, or keyframes; instead of --path.",
        metavar="FILE",
    ),
]

Preset = Annotated[
    str | None, _option("--preset", _VIDEO, "Refuse a server that serves another preset, such as gen3c-7b.")
]
Prompt = Annotated[str | None, _option("--prompt", _VIDEO, "What the scene shows, for servers with a text encoder.")]
NegativePrompt = Annotated[
    str | None,
    _option("--negative-prompt", _VIDEO, "What it should not be like, with --guidance above 0.", "the server's"),
]
NumFrames = Annotated[
    int | None,
    _option("--num-frames", _VIDEO, "Output frames: a chunk + k x (chunk - 1), chunk being the preset's.", "one chunk"),
]
Fps = Annotated[float | None, _option("--fps", _VIDEO, "Frames per second of the result.", _SPEC.fps)]
Seed = Annotated[int | None, _option("--seed", _VIDEO, "The same seed and input give the same video.", _SPEC.seed)]
Steps = Annotated[int | None, _option("--steps", _VIDEO, "Denoising steps.", "the preset's")]
Guidance = Annotated[float | None, _option("--guidance", _VIDEO, "Classifier-free guidance (0..50).", "the preset's")]
Fusion = Annotated[
    FusionMode | None, _option("--fusion", _VIDEO, "How the views become one condition.", _SPEC.fusion, FusionMode)
]
ForegroundMasking = Annotated[
    bool | None,
    _option(
        "--foreground-masking/--no-foreground-masking", _VIDEO, "Hide surfaces that a nearer one should hide.", "off"
    ),
]

Output = Annotated[
    Path | None,
    _option("--output -o", _RESULTS, "Folder of the results.", "./outputs/<name of the first input>", metavar="DIR"),
]
Save = Annotated[
    str,
    _option("--save", _RESULTS, "Comma list out of video, warps, points, cameras, geometry.", "video", metavar="LIST"),
]
Force = Annotated[bool, _option("--force", _RESULTS, "Overwrite results that exist.")]
AsJson = Annotated[
    bool, _option("--json", _RESULTS, "Print every event as a line of JSON on standard output, nothing else.")
]
Quiet = Annotated[bool, _option("--quiet -q", _RESULTS, "Print errors and warnings only.")]
DryRun = Annotated[
    bool, _option("--dry-run", _RESULTS, "Check everything, print what would be sent, and stop. Needs no server.")
]

Url = Annotated[
    str,
    _option(
        "--url",
        _SERVER,
        "host:port of the server's gRPC endpoint.",
        DEFAULT_URL,
        envvar="GEN3C_URL",
        metavar="HOST:PORT",
    ),
]
UseTls = Annotated[
    bool,
    _option("--tls", _SERVER, "Speak TLS, trusting the system's certificates.", envvar="GEN3C_CLIENT_TLS"),
]
TlsCa = Annotated[
    Path | None,
    _option(
        "--tls-ca",
        _SERVER,
        "Speak TLS, trusting these certificates (PEM).",
        metavar="FILE",
        envvar="GEN3C_CLIENT_TLS_CA",
    ),
]
TlsCertificate = Annotated[
    Path | None,
    _option(
        "--tls-certificate",
        _SERVER,
        "Our certificate (PEM), with --tls-key.",
        metavar="FILE",
        envvar="GEN3C_CLIENT_TLS_CERTIFICATE",
    ),
]
TlsKey = Annotated[
    Path | None,
    _option(
        "--tls-key",
        _SERVER,
        "Our private key (PEM), with --tls-certificate.",
        metavar="FILE",
        envvar="GEN3C_CLIENT_TLS_KEY",
    ),
]
TlsName = Annotated[
    str | None,
    _option(
        "--tls-name",
        _SERVER,
        "Speak TLS; the name in the server's certificate, where --url has another.",
        metavar="NAME",
        envvar="GEN3C_CLIENT_TLS_NAME",
    ),
]
AccessKeyFile = Annotated[
    Path | None,
    _option(
        "--access-key-file",
        _SERVER,
        "File with the key that the server wants to see.",
        metavar="FILE",
        envvar="GEN3C_ACCESS_KEY_FILE",
    ),
]
Timeout = Annotated[
    float | None,
    _option(
        "--timeout", _SERVER, "Cancel the job after this many seconds, waiting included.", "none", metavar="SECONDS"
    ),
]
