"""`gen3c serve` as a process of its own."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.launcher_pages import page

EXIT_S = 20.0


@dataclass(frozen=True)
class ServeProcess:
    """It has said `Ready`. Its log is JSON on standard output."""

    process: subprocess.Popen[str]
    url: str  # of gRPC
    health: str  # of the launcher's pages
    start_s: float  # that the first start took

    @property
    def back_s(self) -> float:
        """Seconds in which a restart must be over, grace included; more where others keep the machine busy."""
        return max(60.0, 1.5 * self.start_s)

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the launcher."""
        return page(self.health, path)

    def figure(self, series: str) -> float:
        """A metric of the launcher."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.page("/metrics")[1], re.MULTILINE)
        assert found is not None, series
        return float(found[1])

    def stub(self, model: str) -> int:
        """The process of a model."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                words = child.cmdline()
                if "stub" in Path(words[0]).name and Path(words[1]).parent.parent.name == model:
                    return child.pid
        raise AssertionError(f"no process of {model}")

    def lines(self) -> list[dict[str, str]]:
        """What it said until its end."""
        assert self.process.stdout is not None
        return [json.loads(line) for line in self.process.stdout]


@contextmanager
def serving(built: Path, run_dir: Path, *flags: str) -> Iterator[ServeProcess]:
    """A server of a build, on free ports."""
    command = [str(Path(sys.prefix) / "bin" / "gen3c"), "serve", "--http-port", "0", "--grpc-port", "0"]
    command += ["--metrics-port", "0", "--health-port", "0", "--exit-timeout", str(EXIT_S), "--run-dir", str(run_dir)]
    command += ["--model-repository", str(built), "--log-format", "json", *flags]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = (json.loads(line).get("message", "") for line in process.stdout)
        ready = next(message for message in said if message.startswith("Ready"))
        found = re.search(r"gRPC (\S+), .* health (\S+);", ready)
        assert found is not None, ready
        yield ServeProcess(process, found[1], found[2], time.monotonic() - started)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def leftovers(pid: int) -> tuple[list[str], list[str]]:
    """Processes and shared memory of the servers that the launcher `pid` ran."""
    mark = f"gen3c-{pid}-"
    commands = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    return [c for c in commands if mark in c], [p.name for p in Path("/dev/shm").glob(f"{mark}*")]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> float:
    """The seconds until it was so."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"not so after {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - started
