"""Weights into the package: what a server loads is what was trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gen3c.generator.dit import Dit
from gen3c.generator.light_vae import LightVae
from gen3c.generator.weights import load_dit, load_vae
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.weights import find_vggt, load_vggt
from gen3c.presets import TINY, VGGT_TINY, LightVaeConfig
from gen3c.weight_files import PACKAGED
from training import package as packaging
from training.run import WEIGHTS


def _runs(folder: Path) -> dict[str, Path]:
    """Three runs of networks with random weights, as `Run.save` leaves them."""
    assert isinstance(TINY.vae, LightVaeConfig)
    networks: dict[str, nn.Module] = {
        "vae": LightVae(TINY.vae, TINY.latent_shape[0]),
        "vggt": Vggt(VGGT_TINY, points=False),
        "dit": Dit(TINY.dit),
    }
    generator = torch.Generator().manual_seed(0)
    for name, network in networks.items():
        state = {key: torch.rand(x.shape, generator=generator).half() for key, x in network.state_dict().items()}
        (folder / name).mkdir()
        save_file(state, folder / name / WEIGHTS)
    return {name: folder / name for name in networks}


def test_what_a_server_loads_is_what_was_trained(tmp_path: Path) -> None:
    runs = _runs(tmp_path)
    target = tmp_path / "checkpoints"
    size = packaging.package(**runs, target=target)
    assert size < packaging.LIMIT
    for name, loaded in (
        ("vae", load_vae(TINY, target)[0]),
        ("dit", load_dit(TINY, target)[0]),
        ("vggt", load_vggt(find_vggt(None, target))),
    ):
        expected = packaging.load_weights(runs[name])
        found = loaded.state_dict()
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key


def test_too_many_weights_are_refused_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "checkpoints"
    (target / "vae").mkdir(parents=True)
    (target / "vae" / "old").touch()
    monkeypatch.setattr(packaging, "LIMIT", 1_000)
    with pytest.raises(ValueError, match="legal are 1000"):
        packaging.package(**_runs(tmp_path), target=target)
    assert [path.name for path in (target / "vae").iterdir()] == ["old"]


def test_the_weights_that_ship_are_small_and_finite() -> None:
    root = PACKAGED / TINY.name
    size = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
    assert 0 < size <= packaging.LIMIT
    assert json.loads((root / "vae" / "config.json").read_text())["_class_name"] == "LightVae"
    load_vae(TINY), load_dit(TINY)  # which look for what is not finite
    assert load_vggt(find_vggt()).aggregator.camera_token.isfinite().all()
