"""A model that does what a test says, and `serve` in a process of its own."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import psutil
import tritonclient.grpc as triton
from gen3c_client.connection import Access
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gen3c_server.launcher.canary import Canary
from gen3c_server.launcher.security import Security
from gen3c_server.unanswered import UnansweredError
from tests.launcher_pages import page

CONFIG = """
backend: "python"
input [ { name: "IN" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""

# `env NAME` -> its value; `job` -> runs, and gets on, until the drain token is there; `stubborn` -> a job that does
# neither; `canary` -> fails while there is a file `broken` in the run directory; anything else -> itself.
PROBE = """
import os, time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

RUN = Path(os.environ["GEN3C_RUN_DIR"])

def answer(command):
    if command.startswith("env "):
        return os.environ.get(command[4:], "")
    if command in ("job", "stubborn"):
        (RUN / "jobs" / "one").touch()
        while command == "stubborn" or not (RUN / "drain").exists():
            if command == "job":
                (RUN / "progress-made").touch()
            time.sleep(0.02)
        (RUN / "jobs" / "one").unlink()
        return "drained"
    if command == "canary" and (RUN / "broken").exists():
        raise ValueError("out of order")
    return command

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            command = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0].decode()
            out = np.array([answer(command).encode()], dtype=np.object_)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)]))
        return responses
"""

# For SCRIPT: this file, and what it takes from other tests.
PYTHONPATH = f"{Path(__file__).parent}:{Path(__file__).parents[3]}"
SCRIPT = """
import json
import sys
from pathlib import Path
from launcher_probe import canary
from gen3c_server.launcher import ServeOptions, serve
from gen3c_server.launcher.security import Security
options = json.loads(sys.argv[2])
options["run_dir"] = Path(options["run_dir"]) if "run_dir" in options else None
security = Security.load(*[file and Path(file) for file in options.pop("security", [None] * 4)])
sys.exit(serve(ServeOptions(Path(sys.argv[1]), security=security, **options), canary(security)))
"""


def canary(security: Security) -> Canary:
    """The probe model's `canary`."""

    def call(url: str, timeout_s: float) -> str:
        try:
            return ask_at(url, "canary", security.access(), timeout_s)
        except grpc.RpcError as error:
            if "Deadline Exceeded" in str(error):
                raise UnansweredError("The probe did not answer.") from error
            raise

    return call


def add_model(repository: Path, name: str, code: str, config: str = CONFIG) -> Path:
    """Writes a python model; returns the repository."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (repository / name / "1" / "model.py").write_text(code)
    return repository


def ask(url: str, command: str, timeout_s: float = 20.0) -> str:
    """One inference of the probe model."""
    tensor = triton.InferInput("IN", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([command.encode()], dtype=np.object_))
    with triton.InferenceServerClient(url) as client:
        out = client.infer("probe", [tensor], client_timeout=timeout_s).as_numpy("OUT")
    assert out is not None
    return str(out[0].decode())


def ask_at(url: str, command: str, access: Access, timeout_s: float = 20.0) -> str:
    """The same, of a server that is met so. Raises grpc.RpcError."""
    request = service_pb2.ModelInferRequest(model_name="probe")
    request.inputs.add(name="IN", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(command)) + command.encode())
    with access.channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, metadata=[*access.headers().items()], timeout=timeout_s)
    return str(answer.raw_output_contents[0][4:].decode())


def alive(pids: set[int]) -> set[int]:
    """Those of `pids` that still run."""
    found = set()
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def regions(prefix: str) -> list[Path]:
    """The shared memory regions of one server."""
    return list(Path("/dev/shm").glob(f"{prefix}*"))


@dataclass
class Serving:
    """`serve` in a process of its own, ready; `stderr` fills while it is waited for."""

    process: subprocess.Popen[str]
    url: str
    health: str
    triton: int = 0
    stubs: dict[str, int] = field(default_factory=dict)
    prefix: str = ""
    run_dir: Path = Path()
    pids: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Learn the processes of the server that runs now."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            self.pids.add(child.pid)
            with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie
                self._learn(child)

    def _learn(self, child: psutil.Process) -> None:
        arguments = child.cmdline()
        if child.name() == "tritonserver":
            self.prefix = next(f for f in arguments if "shm-region-prefix-name" in f).rpartition("=")[2]
            self.run_dir = Path(child.environ()["GEN3C_RUN_DIR"])
            self.triton = child.pid
        elif child.name().startswith("triton_python"):
            self.stubs[Path(arguments[1]).parent.parent.name] = child.pid

    @property
    def stub(self) -> int:
        """The process of the probe model."""
        return self.stubs["probe"]

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the launcher."""
        return page(self.health, path)

    def wait_for_page(self, path: str, status: int, timeout_s: float) -> tuple[str, float]:
        """Its text once it has that status, and the seconds until then."""
        start = time.monotonic()
        while True:
            got, text = self.page(path)
            if got == status:
                return text, time.monotonic() - start
            assert time.monotonic() - start < timeout_s, f"{path}: {got} {text}"
            time.sleep(0.05)

    def figures(self) -> dict[str, float]:
        """The launcher's metrics: name and labels -> value."""
        lines = (line for line in self.page("/metrics")[1].splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def wait(self, timeout_s: float) -> tuple[int, str, float]:
        """(exit code, what it said, seconds that it took)."""
        start = time.monotonic()
        _, said = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, said, time.monotonic() - start

    def assert_nothing_left(self, within_s: float = 0.0) -> None:
        """No process, no shared memory, no run directory."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and (alive(self.pids) or self.run_dir.exists()):
            time.sleep(0.05)
        assert not alive(self.pids)
        assert not regions(self.prefix)
        assert not self.run_dir.exists()
