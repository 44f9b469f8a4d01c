"""The services of docker/compose.yaml as options of `podman run`, so that what is tested is what the file says."""

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"


def service(name: str) -> dict[str, Any]:
    """A service, its variables with their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    found = yaml.safe_load(text)["services"][name]
    assert isinstance(found, dict)
    return found


def hardening(name: str) -> list[str]:
    """Options of `podman run` for what the service may not do."""
    options = service(name)
    return [
        *(["--read-only"] if options["read_only"] else []),
        *(f"--cap-drop={one}" for one in options["cap_drop"]),
        *(f"--security-opt={one.removesuffix(':true')}" for one in options["security_opt"]),
        *(f"--tmpfs={one}" for one in options["tmpfs"]),
        *([f"--shm-size={options['shm_size']}"] if "shm_size" in options else []),
    ]


def seconds(name: str, option: str) -> int:
    """A duration of the service."""
    match = re.fullmatch(r"(\d+)s", service(name)[option])
    assert match is not None
    return int(match[1])
