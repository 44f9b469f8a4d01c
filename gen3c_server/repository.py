"""Where the models that ship with the package are."""

from __future__ import annotations

import sys
from pathlib import Path

import gen3c_server
from gen3c_server.launcher.errors import PreflightError


def default_model_repository() -> Path:
    """`model_repository/` beside the package in a checkout, else the one that a wheel installs.

    Raises PreflightError when neither is there.
    """
    checkout = Path(gen3c_server.__file__).resolve().parent.parent / "model_repository"
    installed = Path(sys.prefix) / "share" / "gen3c" / "model_repository"
    for folder in (checkout, installed):
        if folder.is_dir():
            return folder
    raise PreflightError(
        f"The models of gen3c are neither in {checkout} nor in {installed}; name their folder with --model-repository."
    )
