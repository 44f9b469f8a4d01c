"""The command line `gen3c-export`: from published checkpoints to what the server loads."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gen3c.errors import InvalidInputError
from gen3c_export import repository_cli

FAILED = 1
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
)


class DType(StrEnum):
    """Types that the transformer can be stored in."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class _Stopped(BaseException):
    """By a signal. Of a KeyboardInterrupt typer makes an exit code, without a word."""


@app.callback()
def program() -> None:
    """Checkpoints in, Triton models out."""


@app.command()
def convert(
    dit: Annotated[Path, typer.Option(dir_okay=False, exists=True, help="model.pt of nvidia/GEN3C-Cosmos-7B.")],
    tokenizer: Annotated[
        list[Path],
        typer.Option(
            exists=True,
            help="Folder of nvidia/Cosmos-Tokenize1-CV8x8x8-720p, or its files one by one: encoder.jit and "
            "decoder.jit (or autoencoder.jit), mean_std.pt.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Checkpoint directory to write.")],
    preset: Annotated[str, typer.Option(help="Sizes that the files must have.")] = "gen3c-7b",
    dtype: Annotated[DType, typer.Option(help="Type of the stored transformer.")] = DType.BFLOAT16,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse files whose MD5 is not the published one.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint directory that exists.")] = False,
) -> None:
    """Convert the published files to safetensors in diffusers' layout, with a manifest.

    Exit codes: 0 written; 1 the files cannot be used, and nothing was written; 2 wrong options; 130 interrupted.
    """
    # Heavy imports, which --help and a misspelt option should not wait for.
    import torch

    from gen3c.presets import get_preset
    from gen3c_export.convert import Sources
    from gen3c_export.convert import convert as run

    manifest = run(
        Sources.find(dit, tokenizer),
        output,
        get_preset(preset),
        dtype=getattr(torch, dtype.value),
        strict=strict,
        force=force,
    )
    size = sum(file.size for file in manifest.outputs)
    typer.echo(f"{output}: {sum(file.tensors for file in manifest.outputs)} tensors, {size / 1e9:.2f} GB")


repository_cli.register(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and turns every failure into a sentence and an exit code."""

    stopped = False

    def stop(*_: object) -> NoReturn:
        nonlocal stopped
        stopped = True
        raise _Stopped

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in a server, whose times a build is to tell
    _log_to_stderr()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell has it for what runs in its background
            signal.signal(number, stop)  # so that what was half written is removed
    try:
        app(args=None if arguments is None else list(arguments), prog_name="gen3c-export")
    except (Exception, _Stopped) as error:
        if stopped:  # whatever came of it: a module that is stopped while it is imported says ImportError
            print("Interrupted; what was not finished is removed.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit(0)


def _sentence(error: BaseException) -> str | None:
    """What is wrong, for the user; None if it is we who are."""
    match error:
        case InvalidInputError():
            return str(error)
        case ModuleNotFoundError():
            return f"the package {error.name} is not installed; `pip install gen3c-triton[serve]`."
        case OSError():
            return f"{error.filename or 'a file'}: {error.strerror or error}."
    return None


def _log_to_stderr() -> None:
    """Our progress and everybody's warnings; exporters tell much that is for their own developers."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for name in ("gen3c", "gen3c_export", "gen3c_server"):
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._inductor"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
