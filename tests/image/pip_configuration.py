"""This machine's pip configuration, for builds of images: indexes, folders of wheels, certificates."""

import ast
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATES = "/etc/ssl/pip-certificates.crt"  # where a build finds those of this machine


@dataclass(frozen=True)
class PipConfiguration:
    """What a build takes over."""

    text: str  # of a pip.conf
    mounts: dict[Path, str] = field(default_factory=dict)  # of this machine -> of the build

    def has_torch_for_cpus(self) -> bool:
        """Whether a folder of wheels has the PyTorch that the image for CPUs is locked to."""
        return any(folder.glob("torch-*+cpu-*.whl") for folder in self.mounts if folder.is_dir())


def read() -> PipConfiguration:
    """The configuration files and PIP_* variables of this Python's pip, those that tell where packages come from."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    options: dict[str, str] = {}
    for line in listed.splitlines():  # global.cert='/etc/...', :env:.cert='...'
        name, _, value = line.partition("=")
        options[name.rpartition(".")[2]] = ast.literal_eval(value)
    lines, mounts = ["[global]"], {}
    for name in ("index-url", "extra-index-url", "trusted-host"):
        remote = [word for word in options.get(name, "").split() if not word.startswith("file:")]
        lines += [f"{name} = {' '.join(remote)}"] if remote else []
    folders = [Path(word) for word in options.get("find-links", "").split() if Path(word).is_dir()]
    if folders:
        lines.append(f"find-links = {' '.join(map(str, folders))}")
        mounts.update({folder: str(folder) for folder in folders})
    if Path(options.get("cert", "")).is_file():
        lines.append(f"cert = {CERTIFICATES}")
        mounts[Path(options["cert"])] = CERTIFICATES
    return PipConfiguration("\n".join(lines) + "\n", mounts)
