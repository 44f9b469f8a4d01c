"""Manifests as a build writes them, without the build."""

from collections.abc import Mapping

from gen3c.exported.machine import code_digest
from gen3c.exported.manifest import (
    PROGRAMS,
    Artifact,
    Check,
    File,
    Gpu,
    Graph,
    Kind,
    Manifest,
    Range,
    Target,
    tensors_of,
)
from gen3c.networks import NETWORKS

H100 = Gpu(name="NVIDIA H100", capability="9.0")
VERSIONS = {"onnxruntime": "1.20.1", "torch": "2.9.1"}
ENDINGS: Mapping[Kind, str] = {"onnx": ".onnx", "aoti": ".pt2", "tensorrt": ".plan"}
BATCH = Range(least=1, usual=1, most=8)


def artifact(program: str = "dit", kind: Kind = "onnx", *, native: bool = False, on_gpu: bool = False) -> Artifact:
    """Of a program; `native` has Triton's own backend run it."""
    signature = NETWORKS[program].signature
    inputs = {spec.name: f"INPUT__{i}" for i, spec in enumerate(signature.inputs)}
    outputs = {spec.name: f"OUTPUT__{i}" for i, spec in enumerate(signature.outputs)}
    graphs = []
    if kind != "pytorch":
        check = Check(sizes={"t": 4, "batch": 1}, error=1e-6, tolerance=1e-4, seconds=0.1, eager_seconds=0.2)
        graphs = [Graph(file=f"model{ENDINGS[kind]}", sizes={"t": 4}, dynamic={"batch": BATCH}, checks=[check])]
    return Artifact(
        program=program,
        kind=kind,
        dtype="bfloat16" if on_gpu else "float32",
        platform="tensorrt_plan" if kind == "tensorrt" else "torch_aoti" if native else "python",
        key="0" * 64,
        weights="untrained weights (seed 0)",
        inputs=tensors_of(signature.inputs, on_gpu=on_gpu, wire=inputs if native else None),
        outputs=tensors_of(signature.outputs, on_gpu=on_gpu, wire=outputs if native else None),
        graphs=graphs,
        files=[File(name=graph.file, sha256="0" * 64, size=1) for graph in graphs],
        packages=VERSIONS,
        build_seconds=1.0,
    )


def manifest(*artifacts: Artifact, target: Target = "cpu", version: str = "0.1.0", code: str | None = None) -> Manifest:
    """Of the preset `tiny`, for an H100 unless it is for a CPU; programs that are not given run in PyTorch."""
    on_gpu = target != "cpu"
    others = [
        artifact(name, "pytorch", on_gpu=on_gpu) for name in PROGRAMS if name not in {a.program for a in artifacts}
    ]
    return Manifest(
        preset="tiny",
        target=target,
        gpu=H100 if on_gpu else None,
        gen3c=version,
        code=code or code_digest(),
        artifacts={artifact.program: artifact for artifact in (*artifacts, *others)},
    )
