import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from official_files import Published

from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import PRESETS
from gen3c_export import cli
from gen3c_export.cli import main
from tests.cosmos import TINY_COSMOS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """The program sets what belongs to its process."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers, level = [signal.getsignal(number) for number in numbers], logging.root.level
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    logging.root.setLevel(level)


@pytest.fixture(autouse=True)
def a_small_preset_with_the_published_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY_COSMOS)


def options(folder: Path, output: Path, preset: str = "tiny") -> list[str]:
    return ["--dit", f"{folder / 'model.pt'}", "--tokenizer", f"{folder}", "--output", f"{output}", "--preset", preset]


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_published_files_become_a_checkpoint(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", *options(published.folder, tmp_path / "out")]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    tensors = sum(output["tensors"] for output in manifest["outputs"])
    assert f"out: {tensors} tensors" in capsys.readouterr().out
    loaded = [load(TINY_COSMOS, tmp_path / "out")[0].state_dict() for load in (load_dit, load_vae)]
    assert sum(map(len, loaded)) == tensors + 2  # the statistics are in config.json


def test_failures_are_sentences(published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    right = options(published.folder, tmp_path / "out")
    cases = [
        (options(published.folder, tmp_path / "there"), 1, "there exists; name another folder"),
        ([*right, "--strict"], 1, "Nothing was written"),
        (options(published.folder, tmp_path / "out", "huge"), 1, "preset is 'huge'; legal: tiny, gen3c-7b"),
        ([*right, "--output", "/dev/null/out"], 1, "Error: /dev/null"),
        ([*right, "--dtype", "int8"], 2, "int8"),
        (right[2:], 2, "--dit"),
    ]
    for arguments, code, message in cases:
        assert run(["convert", *arguments]) == code
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def wait_for_reader(pipe: Path) -> int:
    """Open a pipe for writing as soon as someone reads from it."""
    for _ in range(600):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO  # noqa: PT017 (nobody reads yet)
            time.sleep(0.1)
    pytest.fail("nobody reads the pipe")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_program_says_so_and_leaves_nothing(published: Published, tmp_path: Path, number: int) -> None:
    """Stopped while it reads a source, a pipe that nobody fills."""
    place, pipe = tmp_path / "place", tmp_path / "image_mean_std.pt"
    place.mkdir()
    os.mkfifo(pipe)
    arguments = [*options(published.folder, place / "out"), "--tokenizer", f"{pipe}"]
    # As at a terminal: what a shell runs in its background ignores SIGINT, and so do its children.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from gen3c.presets import PRESETS; from tests.cosmos import TINY_COSMOS; PRESETS['tiny'] = TINY_COSMOS; "
    code += "from gen3c_export.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "convert", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        writer = wait_for_reader(pipe)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        os.close(writer)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "Interrupted; what was not finished is removed."
    assert "Traceback" not in stderr
    assert not list(place.iterdir())


def test_a_signal_that_becomes_another_error_is_still_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that is stopped while it is imported says ImportError."""

    def imports(**_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr(cli, "app", imports)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted; what was not finished is removed.\n"
