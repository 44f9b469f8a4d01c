"""What tests of built repositories share."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gen3c_export.cli import main

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GEN3C_")}
# All but the decoder, which is the soonest exported, in PyTorch.
DECODER_ALONE = ["--kind", "dit=pytorch", "--kind", "video_encoder=pytorch"]
NOTHING = [*DECODER_ALONE, "--kind", "video_decoder=pytorch"]


def run(*arguments: str | Path) -> int:
    """The exit code of `gen3c-export`, in this process."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    return int(ended.value.code or 0)


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """`gen3c-export` as a process of its own."""
    command = [sys.executable, "-m", "gen3c_export", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def copied(built: Path, folder: Path) -> Path:
    """The build and the artifacts beside it, linked with each other as they were; returns the build."""
    subprocess.run(["cp", "-a", built.parent, folder / "out"], check=True)
    return folder / "out" / built.name


def flip(path: Path) -> None:
    """Another value of the byte in the middle, in place: what is linked to the file has it, too."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def identities(out: Path) -> dict[str, tuple[int, int]]:
    """Which file each artifact's is, and when it was written."""
    paths = sorted((out / "artifacts").glob("*/*"))
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def unfinished(out: Path) -> list[Path]:
    """What a build leaves that does not come to its end."""
    return [*out.glob(".*.partial"), *(out / "artifacts").glob(".*.partial")]


def wait_for_half_an_artifact(out: Path, program: str, process: subprocess.Popen[str]) -> None:
    """Until its files are being written."""
    for _ in range(1200):
        if any((out / "artifacts").glob(f".{program}-*.partial/*")):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"{program} is not begun")
