"""`manifest.json` of a built repository, and the files it speaks of.

<build>/manifest.json
<build>/deployment.yaml                     what the configurations were written from
<build>/model_repository/<model>/1/...      what Triton serves; files of artifacts among it
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gen3c.errors import InvalidInputError
from gen3c.program import Signature, TensorSpec
from gen3c.weight_files import sha256_of

MANIFEST = "manifest.json"
REPOSITORY = "model_repository"
DEPLOYMENT = "deployment.yaml"
VERSION_FOLDER = "1"  # of every model
BUILT = "built"  # the parameter in a configuration that says that its model belongs to a build

Target = Literal["cpu", "cuda", "tensorrt"]
TARGETS: tuple[Target, ...] = ("cpu", "cuda", "tensorrt")
Kind = Literal["onnx", "aoti", "tensorrt", "pytorch"]
Platform = Literal["python", "torch_aoti", "tensorrt_plan"]


PROGRAMS = ("dit", "video_encoder", "video_decoder", "vggt")  # that every server needs


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file of an artifact."""

    name: str  # without folders
    sha256: str
    size: int  # bytes


class Range(_Strict):
    """Legal sizes of a dimension that a graph leaves open."""

    least: int
    usual: int  # what it is made fast for
    most: int


class Check(_Strict):
    """A graph beside its PyTorch twin of the same type and on the same device, on fresh random inputs."""

    sizes: dict[str, int]  # of all symbols of the inputs
    error: float  # |graph - twin| / |twin|, Euclidean, of the worst output
    tolerance: float
    seconds: float  # of one call, median
    eager_seconds: float  # of the twin, measured in turns with it
    # In bfloat16 a network is itself some way from what it is in float32; both distances, where that was computed.
    float32_error: float | None = None  # of the graph
    eager_float32_error: float | None = None  # of the twin

    @property
    def ok(self) -> bool:
        """Within tolerance of the twin; or no farther from the network in float32 than the twin is."""
        if self.error <= self.tolerance:
            return True
        ours, theirs = self.float32_error, self.eager_float32_error
        return ours is not None and theirs is not None and ours <= max(theirs, self.tolerance)


class Graph(_Strict):
    """One compiled form of a program; the fixed sizes tell which calls it takes."""

    file: str  # among the artifact's
    sizes: dict[str, int]  # symbols of the signature that are fixed
    dynamic: dict[str, Range]  # those that are open
    checks: list[Check]  # none: it cannot be run where it was made


class Tensors(_Strict):
    """A tensor of a program as it crosses a model's border."""

    name: str
    shape: list[int | str]
    dtype: str  # torch's name for it: "float32"
    wire: str  # the name that the backend dictates; elsewhere the same as `name`


class Artifact(_Strict):
    """A program as it is served."""

    program: str
    kind: Kind
    dtype: str  # of the weights: "float32", "bfloat16"; what VGGT keeps in float32 stays so
    quantised: Literal["no", "fp8"] = "no"
    platform: Platform = "python"  # who runs it in Triton
    key: str  # digest of all that it was made from
    weights: str  # where they came from
    inputs: list[Tensors]
    outputs: list[Tensors]
    graphs: list[Graph]  # none for "pytorch", which is built from the checkpoint when the server starts
    files: list[File]
    packages: dict[str, str]  # versions of those that made it
    build_seconds: float
    reason: str = ""  # why it is of this kind, where another was expected


class Gpu(_Strict):
    """What GPU code was made for."""

    name: str
    capability: str  # "9.0"


class Manifest(_Strict):
    """What manifest.json holds."""

    version: Literal[1] = 1
    preset: str
    target: Target
    gpu: Gpu | None  # None for a CPU
    gen3c: str  # version of this package
    code: str  # digest of its networks' code (gen3c.exported.machine)
    artifacts: dict[str, Artifact]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        lacking = [name for name in PROGRAMS if name not in self.artifacts]
        if lacking:
            raise ValueError(f"artifacts lack {', '.join(lacking)}")
        for name, artifact in self.artifacts.items():
            files = {file.name for file in artifact.files}
            absent = [graph.file for graph in artifact.graphs if graph.file not in files]
            if artifact.program != name or absent or any(Path(file).name != file for file in files):
                raise ValueError(f"artifact {name} is of {artifact.program}, with files {sorted(files)}")
        return self

    def write(self, folder: Path) -> None:
        """Write manifest.json into `folder`."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """That of the build in `folder`. Raises InvalidInputError if there is none, or it is not one."""
        path = folder / MANIFEST
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read: {error.strerror}.", field="manifest") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
            raise InvalidInputError(
                f"{path} is not a manifest of this version: {place}{first['msg']}.", field="manifest"
            ) from None
        except ValueError as error:  # not UTF-8, not JSON
            raise InvalidInputError(f"{path} cannot be read as JSON: {error}.", field="manifest") from None


def tensors_of(specs: tuple[TensorSpec, ...], *, on_gpu: bool, wire: Mapping[str, str] | None = None) -> list[Tensors]:
    """The manifest's description of a signature's tensors; `wire` names those that are called otherwise in Triton."""
    return [
        Tensors(
            name=spec.name,
            shape=list(spec.shape),
            dtype=str(spec.gpu_dtype if on_gpu else spec.cpu_dtype).removeprefix("torch."),
            wire=(wire or {}).get(spec.name, spec.name),
        )
        for spec in specs
    ]


def signature_problem(artifact: Artifact, signature: Signature) -> str | None:
    """What distinguishes an artifact's tensors from those of the program in this version of the code; None: nothing."""
    for kind, listed, specs in (
        ("inputs", artifact.inputs, signature.inputs),
        ("outputs", artifact.outputs, signature.outputs),
    ):
        found = [(tensor.name, tuple(tensor.shape)) for tensor in listed]
        if found != [(spec.name, spec.shape) for spec in specs]:
            return f"{artifact.program} has the {kind} {', '.join(name for name, _ in found)} of another version"
    return None


def files_of(folder: Path, names: list[str]) -> list[File]:
    """The entries of files that lie in `folder`."""
    return [File(name=name, sha256=sha256_of(folder / name), size=(folder / name).stat().st_size) for name in names]


def check_files(artifact: Artifact, folder: Path) -> None:
    """Read all files of an artifact; raises InvalidInputError naming the first that is missing, cut off or altered."""
    again = "build the repository again"
    for file in artifact.files:
        path = folder / file.name
        if not path.is_file():
            raise InvalidInputError(f"{artifact.program}: {file.name} is missing; {again}.", field="artifact")
        size = path.stat().st_size
        if size != file.size:
            raise InvalidInputError(
                f"{artifact.program}: {file.name} has {size} bytes, {MANIFEST} says {file.size}; {again}.",
                field="artifact",
            )
        if sha256_of(path) != file.sha256:
            raise InvalidInputError(
                f"{artifact.program}: {file.name} is not the file that was built (its SHA-256 differs from that in "
                f"{MANIFEST}); {again}.",
                field="artifact",
            )
