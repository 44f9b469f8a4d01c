"""Whether a build fits a machine: one sentence, which names both sides."""

import pytest

from gen3c.errors import InvalidInputError
from gen3c.exported.machine import Machine, check_fits
from gen3c.exported.manifest import Gpu, Manifest
from tests.gen3c.exported.samples import H100, VERSIONS, artifact, manifest

A100 = Gpu(name="NVIDIA A100", capability="8.0")
H200 = Gpu(name="NVIDIA H200", capability="9.0")

CPU_BUILD = manifest(artifact(), artifact("vggt", "pytorch"))
GPU_BUILD = manifest(artifact(kind="aoti", on_gpu=True), target="cuda")


def machine(gpu: Gpu | None = None, **packages: str | None) -> Machine:
    found = {"gen3c-triton": "0.1.0", **VERSIONS, **{name.replace("_", "-"): v for name, v in packages.items()}}
    return Machine(gpu, {name: version for name, version in found.items() if version is not None})


def refused(built: Manifest, here: Machine, preset: str | None = None) -> str:
    with pytest.raises(InvalidInputError) as caught:
        check_fits(built, here, preset)
    sentence = str(caught.value)
    assert sentence.startswith("The repository cannot be served here: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("built", "here"),
    [
        (CPU_BUILD, machine()),
        (CPU_BUILD, machine(H100)),  # a GPU that is not used does no harm
        (CPU_BUILD, machine(onnxruntime="1.21.0")),  # reads what older ones wrote
        (CPU_BUILD, machine(onnxruntime="1.20.0")),  # nor does a patch level change what is read
        (CPU_BUILD, machine(torch="2.10.0")),  # no compiled code
        (GPU_BUILD, machine(H100)),
        (GPU_BUILD, machine(H200)),  # of the same compute capability
        (GPU_BUILD, machine(H100, onnxruntime=None)),
        (manifest(artifact(kind="aoti", native=True), target="cuda"), machine(H100, torch="2.10.0")),  # Triton's torch
    ],
)
def test_what_fits_is_taken(built: Manifest, here: Machine) -> None:
    check_fits(built, here, "tiny")
    check_fits(built, here)


@pytest.mark.parametrize(
    ("built", "here", "both"),
    [
        (GPU_BUILD, machine(A100), ("NVIDIA H100 (compute capability 9.0)", "NVIDIA A100 (compute capability 8.0)")),
        (GPU_BUILD, machine(), ("NVIDIA H100 (compute capability 9.0)", "there is no GPU here")),
        (CPU_BUILD, machine(gen3c_triton="0.2.0"), ("built by gen3c-triton 0.1.0", "this is 0.2.0")),
        (GPU_BUILD, machine(H100, torch="2.10.0"), ("dit was compiled with torch 2.9.1", "this is 2.10.0")),
        (CPU_BUILD, machine(onnxruntime="1.19.2"), ("dit was made for onnxruntime 1.20.1", "this is 1.19.2")),
        (CPU_BUILD, machine(onnxruntime="1.9.0"), ("1.20.1", "1.9.0")),  # numbers, not letters
        (CPU_BUILD, machine(onnxruntime=None), ("dit needs onnxruntime", "which is not installed")),
    ],
)
def test_what_does_not_fit_is_told_with_both_sides(built: Manifest, here: Machine, both: tuple[str, str]) -> None:
    sentence = refused(built, here)
    assert all(side in sentence for side in both), sentence


def test_another_preset_is_told() -> None:
    sentence = refused(CPU_BUILD, machine(), "gen3c-7b")
    assert "it was built for preset tiny, and gen3c-7b is asked for" in sentence


def test_a_changed_signature_is_told() -> None:
    old = artifact()
    old = old.model_copy(update={"inputs": old.inputs[:-1]})
    assert "dit has the inputs LATENT, TIMESTEP" in refused(manifest(old), machine())


def test_a_build_by_other_code_of_this_version_is_told() -> None:
    sentence = refused(manifest(artifact(), code="0" * 64), machine())
    assert "it was built by other code of gen3c-triton 0.1.0; build it again" in sentence


def test_an_unknown_program_is_told() -> None:
    other = artifact().model_copy(update={"program": "upsampler"})
    sentence = refused(manifest(other), machine())
    assert "it holds 'upsampler', which this version does not know; legal: dit, " in sentence


def test_this_machine_has_what_the_tests_run_with() -> None:
    here = Machine.here()
    assert {"gen3c-triton", "torch"} <= set(here.packages)
