"""Whether a program would understand the words of a container."""

from collections.abc import Sequence
from typing import Any

import click
import typer
from gen3c_client import cli as client

from gen3c_export import cli as export

PROGRAMS = {"gen3c": client.app, "gen3c-export": export.app}


def program(command: Sequence[str]) -> tuple[str, list[str]]:
    """Its name, and what it is told."""
    return command[0], list(command[1:])


def understand(name: str, words: Sequence[str]) -> None:
    """Raises if an option does not exist or its value has the wrong form. Files need not be there."""
    group: Any = typer.main.get_command(PROGRAMS[name])
    verb, *rest = words
    command = group.get_command(click.Context(group), verb)
    assert command is not None, f"{name} has no command {verb}"
    for parameter in command.params:
        if hasattr(parameter.type, "exists"):
            parameter.type.exists = False
    command.make_context(verb, rest)
