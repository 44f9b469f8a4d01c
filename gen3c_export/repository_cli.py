"""The commands of `gen3c-export` that make and look after built repositories."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from gen3c.errors import InvalidInputError

Checkpoints = Annotated[
    Path | None,
    typer.Option(file_okay=False, exists=True, envvar="GEN3C_CHECKPOINTS", help="Folder of the preset's checkpoints."),
]
VggtWeights = Annotated[
    Path | None,
    typer.Option(exists=True, envvar="GEN3C_VGGT", help="VGGT's weights; default: vggt/ of --checkpoints."),
]
Out = Annotated[Path, typer.Option(file_okay=False, help="Folder that builds and their artifacts are kept in.")]
Build = Annotated[Path, typer.Argument(file_okay=False, exists=True, help="A built repository: OUT/PRESET-TARGET.")]


def build(
    preset: Annotated[str, typer.Option(help="Sizes and weights.")] = "tiny",
    target: Annotated[str, typer.Option(help="cpu, cuda or tensorrt, the last two on the GPU that serves.")] = "cpu",
    checkpoints: Checkpoints = None,
    vggt: VggtWeights = None,
    out: Out = Path("build"),
    deployment: Annotated[
        Path | None, typer.Option(dir_okay=False, exists=True, help="Deployment file for the configurations.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Serve a program otherwise than usual, e.g. vggt=onnx or dit=pytorch; again for each."),
    ] = None,
    fp8: Annotated[bool, typer.Option("--fp8", help="The transformer's linear layers in float8; target cuda.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the repository's folder; default: PRESET-TARGET.")] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Packages for Triton's own PyTorch backend (26.03 on); target cuda.")
    ] = False,
) -> None:
    """Export every network and assemble the repository OUT/PRESET-TARGET. What did not change is not built again.

    Exit codes: 0 built; 1 it cannot be built, and an earlier build is as it was; 2 wrong options; 130 interrupted.
    """
    # Heavy imports, which --help and a misspelt option should not wait for.
    from gen3c.networks import WeightSource
    from gen3c.presets import get_preset
    from gen3c_export.build import BuildOptions, check_target, parse_kinds
    from gen3c_export.build import build as run

    options = BuildOptions(
        WeightSource(get_preset(preset), checkpoints, vggt),
        check_target(target),
        out,
        deployment,
        parse_kinds(kind or []),
        fp8,
        native,
        name=name,
    )
    typer.echo(run(options))


def onnx(
    preset: Annotated[str, typer.Option(help="Sizes and weights.")] = "tiny",
    checkpoints: Checkpoints = None,
    vggt: VggtWeights = None,
    out: Out = Path("build"),
) -> None:
    """Write what TensorRT makes plans of to OUT/PRESET-tensorrt-onnx: an ONNX graph of every network. Needs no GPU.

    For looking at, or for another builder: graphs.json there has a trtexec command for each. `build --target tensorrt`
    makes the same graphs and the plans, on the GPU that serves, and the repository.

    Exit codes: 0 written; 1 it cannot be, and there is no graphs.json; 2 wrong options; 130 interrupted.
    """
    from gen3c.networks import WeightSource
    from gen3c.presets import get_preset
    from gen3c_export.tensorrt_graphs import export_graphs

    typer.echo(export_graphs(WeightSource(get_preset(preset), checkpoints, vggt), out))


def verify(
    repository: Build,
    checkpoints: Checkpoints = None,
    vggt: VggtWeights = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the random inputs; default: fresh ones.")] = None,
) -> None:
    """Compare every artifact with its PyTorch twin, made from the same weights, on fresh random inputs.

    Exit codes: 0 all within tolerance; 1 one is not, or the repository cannot be used; 2 wrong options.
    """
    from gen3c.exported.manifest import Manifest
    from gen3c.networks import WeightSource
    from gen3c.presets import get_preset
    from gen3c_export.verify import verify as run

    source = WeightSource(get_preset(Manifest.read(repository).preset), checkpoints, vggt)
    failed = 0
    for verdict in run(repository, source, secrets.randbelow(2**31) if seed is None else seed):
        typer.echo(str(verdict))
        failed += not verdict.ok
    if failed:
        raise InvalidInputError(f"{failed} comparison(s) failed.", field="artifact")


def inspect(
    repository: Build,
    files: Annotated[bool, typer.Option("--files", help="Also read all files and compare their hashes.")] = False,
) -> None:
    """Print what a built repository holds, and whether this machine can serve it.

    Exit codes: 0 it can; 1 it cannot, or a file is not the one that was built; 2 wrong options.
    """
    from gen3c.exported.machine import Machine, check_fits
    from gen3c.exported.manifest import Manifest
    from gen3c_export.inspect import check_all_files, lines

    manifest = Manifest.read(repository)
    for line in lines(manifest):
        typer.echo(line)
    if files:
        check_all_files(manifest, repository)
        typer.echo("All files are as they were built.")
    else:
        typer.echo("The files were not read; --files does so.")
    check_fits(manifest, Machine.here())
    typer.echo("This machine can serve it.")


def clean(
    out: Out = Path("build"),
    everything: Annotated[bool, typer.Option("--all", help="Remove the built repositories as well.")] = False,
) -> None:
    """Remove artifacts that no built repository uses, and what interrupted builds left."""
    from gen3c_export.inspect import remove_unused

    removed = remove_unused(out, everything=everything)
    typer.echo(f"{out}: {len(removed)} folder(s) removed.")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (build, onnx, verify, inspect, clean):
        app.command()(command)
