"""A look at a model repository before Triton reads it.

Triton reports some of these faults in words that need a search, and one not at all: a python model without its
model.py leaves the server (24.10) loading for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2

from gen3c_server.launcher.errors import PreflightError


def check_repository(repository: Path) -> list[str]:
    """The names of the models in `repository`, sorted. Raises PreflightError naming the model and its fault."""
    if not repository.is_dir():
        raise PreflightError(f"The model repository {repository} is not a folder.")
    folders = sorted(path for path in repository.iterdir() if (path / "config.pbtxt").is_file())
    if not folders:
        raise PreflightError(f"The model repository {repository} holds no model: no folder with a config.pbtxt.")
    for folder in folders:
        _check_model(folder)
    return [folder.name for folder in folders]


def _check_model(folder: Path) -> None:
    config: Any = model_config_pb2.ModelConfig()
    try:
        # Fields that are newer than this client are for the server to judge.
        text_format.Parse((folder / "config.pbtxt").read_text(), config, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise PreflightError(f"Model {folder.name!r}: its config.pbtxt cannot be read: {error}.") from error
    versions = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    if not versions:
        raise PreflightError(f"Model {folder.name!r} has no version: it needs a folder named 1 in {folder}.")
    if config.backend != "python":
        return
    name = config.default_model_filename or "model.py"
    for version in versions:
        if not (version / name).is_file():
            raise PreflightError(f"Model {folder.name!r} has no code: {version / name} is missing.")
