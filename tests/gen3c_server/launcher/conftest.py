"""Fixtures: the probe repository, and `serve` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launcher_probe import PROBE, PYTHONPATH, SCRIPT, Serving, add_model, alive, regions


@pytest.fixture(scope="session")
def probe_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("repository"), "probe", PROBE)


@pytest.fixture
def start_serving(probe_repository: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(repository: Path = probe_repository, **options: Any) -> Serving:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(repository), json.dumps(options)],
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        ready = re.match(r"Ready: gRPC (\S+), HTTP \S+, metrics \S+, health (\S+); ", line)
        assert ready is not None, line + process.stderr.read()
        serving = Serving(process, ready[1], ready[2])
        started.append(serving)
        serving.look()
        assert serving.triton
        assert serving.stub
        assert regions(serving.prefix), "the server's shared memory does not carry the launcher's prefix"
        return serving

    yield start
    for serving in started:
        if serving.process.poll() is None:
            serving.look()
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.communicate()
        for pid in alive(serving.pids):
            os.kill(pid, signal.SIGKILL)
        for region in regions(serving.prefix) if serving.prefix else []:
            region.unlink()
        if serving.run_dir.name.startswith("gen3c-"):
            shutil.rmtree(serving.run_dir, ignore_errors=True)
