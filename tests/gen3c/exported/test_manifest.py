"""manifest.json: what is written is read, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import (
    MANIFEST,
    PROGRAMS,
    Artifact,
    Manifest,
    check_files,
    files_of,
    signature_problem,
    tensors_of,
)
from gen3c.generator.signatures import DIT, VIDEO_DECODER
from gen3c.networks import NETWORKS
from tests.gen3c.exported.samples import artifact, manifest


def edited(folder: Path, *path: str | int, value: Any) -> None:
    """Set one value of the manifest in `folder`."""
    content = json.loads((folder / MANIFEST).read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / MANIFEST).write_text(json.dumps(content))


def said(folder: Path) -> str:
    with pytest.raises(InvalidInputError) as caught:
        Manifest.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for written in (manifest(artifact()), manifest(artifact(kind="aoti", native=True, on_gpu=True), target="cuda")):
        written.write(tmp_path)
        assert Manifest.read(tmp_path) == written


def test_a_build_writes_what_is_read(built: Path) -> None:
    read = Manifest.read(built)
    assert (read.preset, read.target, read.gpu) == ("tiny", "cpu", None)
    assert set(read.artifacts) == set(PROGRAMS)
    for name, made in read.artifacts.items():
        assert signature_problem(made, NETWORKS[name].signature) is None
        assert (made.kind == "pytorch") == (not made.graphs) == bool(made.reason)
        assert all(check.error <= check.tolerance for graph in made.graphs for check in graph.checks)
        assert all(graph.checks for graph in made.graphs)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"manifest"])
def test_what_is_no_json_is_said(tmp_path: Path, text: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    assert f"{tmp_path / MANIFEST} cannot be read as JSON: " in said(tmp_path)


def test_a_manifest_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert said(tmp_path) == f"{tmp_path / MANIFEST} cannot be read: No such file or directory."


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("colour",), "blue", "colour: Extra inputs are not permitted"),
        (("artifacts", "dit", "files"), [{"name": "a", "sha256": "b", "size": 1, "mode": 7}], "artifacts.dit.files.0"),
        (("version",), 2, "version: Input should be 1"),
        (("target",), "tpu", "target: Input should be 'cpu', 'cuda' or 'tensorrt'"),
        (("artifacts", "dit", "kind"), "torchscript", "artifacts.dit.kind: Input should be"),
        (("artifacts",), [], "artifacts: Input should be a valid dictionary"),
    ],
)
def test_what_is_no_manifest_of_this_version_is_said(
    tmp_path: Path, path: tuple[str, ...], value: object, place: str
) -> None:
    manifest(artifact()).write(tmp_path)
    edited(tmp_path, *path, value=value)
    assert f"is not a manifest of this version: {place}" in said(tmp_path)


def test_a_list_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("[]")
    assert "is not a manifest of this version: Input should be" in said(tmp_path)


def with_files(folder: Path, **files: bytes) -> Artifact:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return artifact().model_copy(update={"files": files_of(folder, sorted(files))})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.unlink(), "dit: weights is missing; build the repository again."),
        (lambda path: path.write_bytes(b"123"), "dit: weights has 3 bytes, manifest.json says 5; build"),
        (lambda path: path.write_bytes(b"12346"), "dit: weights is not the file that was built (its SHA-256"),
    ],
)
def test_files_that_changed_are_named(tmp_path: Path, damage: Any, sentence: str) -> None:
    built = with_files(tmp_path, model=b"graph", weights=b"12345")
    check_files(built, tmp_path)
    damage(tmp_path / "weights")
    with pytest.raises(InvalidInputError) as caught:
        check_files(built, tmp_path)
    assert str(caught.value).startswith(sentence)


def test_a_signature_of_another_version_is_told() -> None:
    same = artifact()
    assert signature_problem(same, DIT) is None
    assert signature_problem(same, VIDEO_DECODER) is not None
    wider = same.model_copy(update={"outputs": [same.outputs[0].model_copy(update={"shape": ["batch", 17]})]})
    assert signature_problem(wider, DIT) == "dit has the outputs OUT of another version"


def test_tensors_have_the_types_of_their_device() -> None:
    on_cpu = {tensor.name: tensor.dtype for tensor in tensors_of(DIT.inputs, on_gpu=False)}
    on_gpu = {tensor.name: tensor.dtype for tensor in tensors_of(DIT.inputs, on_gpu=True)}
    assert (on_cpu["LATENT"], on_gpu["LATENT"]) == ("float32", "bfloat16")
    assert on_gpu["TIMESTEP"] == "float32"
