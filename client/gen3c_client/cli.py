"""The command `gen3c`: what the client can do itself, and what installed extras add through entry points."""

import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from gen3c_client.contract import CONTRACT_VERSION
from gen3c_client.errors import ClientError
from gen3c_client.generate import generate
from gen3c_client.progress import print_json

COMMAND_GROUP = "gen3c.commands"
_EXIT_CODES = (
    "[b]Exit codes[/b]: 0 done; 1 internal error; 2 wrong usage or input; 3 server not reachable or busy (try again); "
    "4 cancelled by the server; 5 timeout; 6 a result exists (--force); 130 interrupted."
)


class PluginGroup(TyperGroup):
    """Also has the functions of the entry point group `gen3c.commands`, loaded only when they are listed or run."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Own commands, then those of installed extras whose imports work."""
        plugins = [name for name in _plugins() if not isinstance(_load_plugin(name), ImportError)]
        return [*super().list_commands(ctx), *sorted(plugins)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """An own command, or the plugin's.

        Raises:
            ClientError: the plugin's extra is not installed.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _plugins():
            return own
        plugin = _load_plugin(cmd_name)
        if isinstance(plugin, ImportError):
            raise ClientError(
                f"gen3c {cmd_name} needs more than the client: {plugin}. "
                "Install it with: pip install 'gen3c-triton[serve,embedded]'",
                "INVALID_ARG",
            )
        return plugin


app = typer.Typer(
    name="gen3c",
    cls=PluginGroup,
    help="Photos or a video of a scene in, a video along your camera path out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=_EXIT_CODES, no_args_is_help=True)(generate)


@app.command("version")
def print_version() -> None:
    """Print the version of this package and of the wire contract."""
    typer.echo(f"gen3c-triton {version('gen3c-triton')}, contract {CONTRACT_VERSION}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line, and turns every failure into a sentence and an exit code (docs/cli.md).

    Args:
        arguments: without the program's name; None for those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(args=arguments, prog_name="gen3c")
    except ClientError as e:
        if "--json" in arguments:
            print_json({"event": "error", "code": e.code, "message": str(e), "field": e.field})
        else:
            Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(e))}", highlight=False, soft_wrap=True)
        sys.exit(e.exit_code)
    sys.exit(0)


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMAND_GROUP)}


@cache
def _load_plugin(name: str) -> Any:
    """The command of an entry point, or the ImportError that says what is missing."""
    try:
        function = _plugins()[name].load()
    except ImportError as e:
        return e
    single = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    single.command(name)(function)
    return typer.main.get_command(single)
