"""From command-line flags to a `JobSpec`: defaults stay the contract's own, and a flag without effect is refused."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from gen3c_client.contract import ArtifactName, CameraFile, JobSpec
from gen3c_client.errors import InputError, describe

# Where the value of a flag lives in JobSpec.
_FLAG_OF_FIELD = {
    "preset": "--preset",
    "prompt": "--prompt",
    "negative_prompt": "--negative-prompt",
    "select.method": "--select",
    "select.step_size": "--step-size",
    "select.frame_interval": "--frame-interval",
    "select.max_frames": "--max-frames",
    "fit": "--fit",
    "geometry.provider": "--geometry",
    "geometry.min_confidence": "--min-confidence",
    "geometry.scale": "--scale",
    "geometry.vggt_confidence": "--vggt-confidence",
    "geometry.vggt_drop_lowest": "--vggt-drop-lowest",
    "path.kind": "--path",
    "path.rotation": "--rotation",
    "path.distance": "--distance",
    "num_frames": "--num-frames",
    "fusion": "--fusion",
    "foreground_masking": "--foreground-masking",
    "seed": "--seed",
    "steps": "--steps",
    "guidance": "--guidance",
    "fps": "--fps",
    "save": "--save",
}
# Which selection methods look at a flag.
_METHODS_OF_FLAG = {
    "step_size": ("first-max",),
    "frame_interval": ("interval",),
    "max_frames": ("all", "interval", "first-max"),
}


def build_spec(flags: Mapping[str, Any], cameras: CameraFile | None, names: Sequence[str]) -> JobSpec:
    """The job that `flags` describe.

    Args:
        flags: dotted field of `JobSpec` (`select.method`, `path.kind`, `seed` ...) to the value given; None = not
            given, so that the contract's default holds.
        cameras: the content of `--cameras`.
        names: one per media file, for messages.

    Raises:
        InputError: an illegal value, or a flag that would have no effect.
    """
    given = {field: value for field, value in flags.items() if value is not None}
    _refuse_idle_selection(given)
    _refuse_idle_vggt(given)
    if "negative_prompt" in given and given.get("guidance") == 0:
        raise InputError(
            "--negative-prompt has no effect with --guidance 0, which skips the pass that reads it.",
            "--negative-prompt",
        )
    fields: dict[str, Any] = {"names": list(names)}
    for field, value in given.items():
        *parents, leaf = field.split(".")
        target = fields
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    if cameras is not None:
        idle = [_FLAG_OF_FIELD[field] for field in given if field.startswith("path.")]
        if idle:
            raise InputError(
                f"{idle[0]} has no effect with --cameras, which is the whole path. Give one of them.", idle[0]
            )
        _check_frame_count(cameras, given)
        fields["cameras"] = cameras
        if cameras.poses is not None:
            fields["num_frames"] = len(cameras.poses)
    try:
        return JobSpec(**fields)
    except ValidationError as e:
        field = ".".join(str(part) for part in e.errors()[0]["loc"] if isinstance(part, str))
        flag = _FLAG_OF_FIELD.get(field, field)
        sentence = describe(e).partition(": ")[2] or describe(e)
        raise InputError(f"{flag}: {sentence}.", flag) from e


def parse_save(given: str) -> list[ArtifactName]:
    """`video,points` to its names, without repetition.

    Raises:
        InputError: an unknown name, or none.
    """
    legal: tuple[ArtifactName, ...] = get_args(ArtifactName)
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in legal]
    if unknown or not wanted:
        raise InputError(f"--save: {given!r} is not a comma list out of {', '.join(legal)}.", "--save")
    return [name for name in legal if name in wanted]


def _refuse_idle_selection(given: Mapping[str, Any]) -> None:
    method = given.get("select.method", JobSpec().select.method)
    instead = next((f.replace("_", "-") for f, methods in _METHODS_OF_FLAG.items() if methods == (method,)), None)
    hint = f" The step of {method} is --{instead}." if instead else ""
    for field, methods in _METHODS_OF_FLAG.items():
        if f"select.{field}" in given and method not in methods:
            flag = _FLAG_OF_FIELD[f"select.{field}"]
            where = " or ".join(f"--select {name}" for name in methods)
            raise InputError(f"{flag} has no effect with --select {method}; it applies to {where}.{hint}", flag)


def _refuse_idle_vggt(given: Mapping[str, Any]) -> None:
    provider = given.get("geometry.provider", JobSpec().geometry.provider)
    idle = [_FLAG_OF_FIELD[field] for field in given if field.startswith("geometry.vggt_")]
    if idle and provider not in ("vggt", "auto"):
        raise InputError(f"{idle[0]} has no effect with --geometry {provider}; it applies to vggt and auto.", idle[0])


def _check_frame_count(cameras: CameraFile, given: Mapping[str, Any]) -> None:
    wanted = given.get("num_frames")
    if cameras.poses is not None and wanted is not None and len(cameras.poses) != wanted:
        raise InputError(
            f"--num-frames {wanted} does not fit the camera file, which has {len(cameras.poses)} poses. "
            "Give one pose for each output frame, or keyframes.",
            "--num-frames",
        )
    if cameras.frame == "world" and given.get("geometry.provider") != "file":
        raise InputError(
            "The camera file has frame 'world', which exists only with --geometry file. Legal otherwise: 'view0'.",
            "--cameras",
        )
