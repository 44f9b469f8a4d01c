"""Which model repository a server runs: one that was built, the source tree's, or one that is built now."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import gen3c_server
from gen3c_server.launcher.errors import PreflightError

MANIFEST, REPOSITORY, DEPLOYMENT = "manifest.json", "model_repository", "deployment.yaml"  # as gen3c.exported.manifest
BUILT_PRESET = "tiny"  # small enough to be exported at the first start


def default_model_repository() -> Path:
    """`model_repository/` beside the package in a checkout, else the one that a wheel installs.

    Its networks run in PyTorch. Raises PreflightError when neither is there.
    """
    checkout = _checkout() / REPOSITORY
    installed = Path(sys.prefix) / "share" / "gen3c" / REPOSITORY
    for folder in (checkout, installed):
        if folder.is_dir():
            return folder
    raise PreflightError(
        f"The models of gen3c are neither in {checkout} nor in {installed}; name their folder with --model-repository."
    )


@dataclass(frozen=True)
class Build:
    """A built repository."""

    folder: Path  # holds manifest.json

    @property
    def models(self) -> Path:
        """What Triton serves."""
        return self.folder / REPOSITORY

    @property
    def deployment(self) -> Path:
        """What its configurations were written from."""
        return self.folder / DEPLOYMENT


def find_build(path: Path) -> Build | None:
    """The build that `path` is, or whose models it holds; None if it is a plain model repository.

    Raises PreflightError for a build that is not whole.
    """
    path = path.resolve()  # "." has no name, and a link may have another
    for folder in (path, path.parent if path.name == REPOSITORY else path):
        if (folder / MANIFEST).is_file():
            missing = [name for name in (REPOSITORY, DEPLOYMENT) if not (folder / name).exists()]
            if missing:
                raise PreflightError(f"{folder} has no {missing[0]}; build it again with `gen3c-export build`.")
            return Build(folder)
    return None


def build_folder() -> Path:
    """Where builds are kept: `build/` of a checkout, else a folder of the user's cache."""
    checkout = _checkout()
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / "build"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gen3c" / "build"


def build_now(
    out: Path, *, checkpoints: Path | None, vggt: Path | None, deployment: Path | None, say: Callable[[str], None]
) -> Build:
    """The repository of the preset `tiny` for this CPU, exported if it is not there yet or something changed.

    The exporter runs as a program of its own, whose memory goes with it; it tells of its progress on standard error.
    Raises PreflightError if it fails.
    """
    # One folder for each set of options: another server may be running from it with its own.
    named = [f"{path}" if path is None else f"{path.resolve()}" for path in (checkpoints, vggt, deployment)]
    own = hashlib.sha256("\n".join(named).encode()).hexdigest()[:8]
    name = f"{BUILT_PRESET}-cpu" if {checkpoints, vggt, deployment} == {None} else f"{BUILT_PRESET}-cpu-{own}"
    build = Build(out / name)
    if not (build.folder / MANIFEST).is_file():
        say(f"Exporting the networks to {build.folder}, once; it takes about a minute.")
    command = [sys.executable, "-m", "gen3c_export", "build", "--preset", BUILT_PRESET, "--target", "cpu"]
    for flag, value in (
        ("--out", out),
        ("--name", name),
        ("--checkpoints", checkpoints),
        ("--vggt", vggt),
        ("--deployment", deployment),
    ):
        command += [] if value is None else [flag, str(value)]
    if _run(command) != 0:
        raise PreflightError(
            "The networks could not be exported, for the reason above. --model-repository names a repository that is "
            "served as it is."
        )
    return build


def _run(command: list[str]) -> int:
    """Run a program whose standard output is not ours; it does not outlive us. A second signal ends it at once."""
    received: list[int] = []
    # In a session of its own: Ctrl-C comes to it by us, once.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:

        def stop(number: int, _frame: FrameType | None) -> None:
            # To wait for it here would wait for ever: what the signal came into holds the lock of the same wait.
            received.append(number)
            process.send_signal(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if received:
        raise SystemExit(128 + received[0])
    return code


def _checkout() -> Path:
    return Path(gen3c_server.__file__).resolve().parent.parent
