"""How a call of the `geometry` model looks as named tensors; written once, for the caller and the model.

Progress does not travel with the answer: the model writes it to a file of the server's run directory that the caller
names. (A decoupled model could stream it, but Triton 24.10 now and then loses a response between two models, and the
caller waits for ever.)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from gen3c.geometry.types import Frames, Geometry
from gen3c.geometry.vggt.provider import VggtOptions

Wire = dict[str, Tensor | list[bytes]]

OUTPUTS = ("INFO", "DEPTH", "CONFIDENCE", "W2C", "K")


@dataclass(frozen=True)
class GeometryOptions:
    """What to do, beside the frames."""

    provider: str
    seed: int = 0
    job: str = ""  # name of the job's files: in the cancel directory, to stop; in the progress directory, to report to
    vggt_confidence: float = VggtOptions.min_confidence
    vggt_drop_lowest: float = VggtOptions.drop_lowest


@dataclass(frozen=True)
class GeometryProgress:
    """`step` of `total` of a part of the work."""

    part: str
    step: int
    total: int


def pack_call(frames: Frames, options: GeometryOptions, file: bytes | None) -> Wire:
    """The inputs of one call; `file` is the npz of provider `file`."""
    names = [name.encode() for name in frames.names]
    inputs: Wire = {
        "FRAMES": frames.pixels,
        "SIZES": frames.sizes,
        "NAMES": names,
        "OPTIONS": [json.dumps(asdict(options)).encode()],
    }
    return inputs if file is None else inputs | {"GEOMETRY": [file]}


def unpack_call(wire: Mapping[str, Tensor | list[bytes]]) -> tuple[Frames, GeometryOptions, bytes | None]:
    """The arguments of one call."""
    pixels, sizes, names, options = (wire[name] for name in ("FRAMES", "SIZES", "NAMES", "OPTIONS"))
    if not isinstance(pixels, Tensor) or not isinstance(sizes, Tensor):
        raise TypeError("FRAMES and SIZES are numeric")
    frames = Frames(pixels, sizes, tuple(bytes(name).decode() for name in names))
    file = wire.get("GEOMETRY")
    return frames, GeometryOptions(**json.loads(bytes(options[0]))), bytes(file[0]) if file is not None else None


def write_progress(path: Path, progress: GeometryProgress) -> None:
    """Replace the progress file; a reader sees the old or the new one, never half of it."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(progress)))
    scratch.replace(path)


def read_progress(path: Path) -> GeometryProgress | None:
    """The last progress, None if there is none yet."""
    try:
        return GeometryProgress(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def pack_result(geometry: Geometry) -> Wire:
    """The outputs of one call."""
    info = {"info": geometry.info, "warnings": list(geometry.warnings), "notes": list(geometry.notes)}
    return {
        "INFO": [json.dumps(info, allow_nan=False).encode()],
        "DEPTH": geometry.depth,
        "CONFIDENCE": geometry.confidence,
        "W2C": geometry.w2c,
        "K": geometry.K,
    }


def unpack_result(wire: Mapping[str, Tensor | list[bytes]]) -> Geometry:
    """What one call gave."""
    info = json.loads(bytes(wire["INFO"][0]))
    depth, confidence, w2c, K = (wire[name] for name in OUTPUTS[1:])
    told = (info["info"], tuple(info["warnings"]), tuple(info["notes"]))
    return Geometry(depth, confidence, w2c, K, *told)  # type: ignore[arg-type]
