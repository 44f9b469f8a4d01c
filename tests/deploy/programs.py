"""Whether a program would understand the words of a container."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import typer
from gen3c_client import cli as client

from gen3c_export import cli as export

PROGRAMS = {"gen3c": client.app, "gen3c-export": export.app}
FILES = {".yaml", ".crt", ".key"}


def program(command: Sequence[str]) -> tuple[str, list[str]]:
    """Its name, and what it is told."""
    return command[0], list(command[1:])


def understand(name: str, words: Sequence[str]) -> None:
    """Raises if an option does not exist or its value has the wrong form."""
    group: Any = typer.main.get_command(PROGRAMS[name])
    verb, *rest = words
    command = group.get_command(click.Context(group), verb)
    assert command is not None, f"{name} has no command {verb}"
    with tempfile.TemporaryDirectory() as folder:
        command.make_context(verb, [_here(word, Path(folder)) for word in rest])


def _here(word: str, folder: Path) -> str:
    """The word, and what it names of the container made below `folder`."""
    option, _, value = word.partition("=")
    if not value.startswith("/"):
        return word
    path = folder / value.removeprefix("/")
    is_file = path.suffix in FILES or path.name == "access-key"
    (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)
    if is_file:
        path.touch()
    return f"{option}={path}"
