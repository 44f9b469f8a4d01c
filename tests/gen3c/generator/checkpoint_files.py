"""Checkpoint directories as the tests want them: right, and wrong in one way."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from gen3c.generator.checkpoint import (
    CONFIG,
    INDEX,
    STATISTICS,
    WEIGHTS,
    statistics_config,
    transformer_config,
    vae_config,
)
from gen3c.presets import Preset


def save_transformer(directory: Path, preset: Preset, state: Mapping[str, Tensor], shards: int = 1) -> Path:
    """Write DIR/transformer; returns that folder."""
    folder = directory / "transformer"
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(transformer_config(preset.dit)))
    if shards == 1:
        save_file(dict(state), folder / WEIGHTS)
        return folder
    names = [WEIGHTS.replace(".", f"-{i + 1:05}-of-{shards:05}.", 1) for i in range(shards)]
    weight_map = {key: names[i % shards] for i, key in enumerate(state)}
    for name in names:
        save_file({key: tensor for key, tensor in state.items() if weight_map[key] == name}, folder / name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def save_vae(directory: Path, preset: Preset, state: Mapping[str, Tensor]) -> Path:
    """Write DIR/vae from the state of a `Vae`, statistics and all; returns that folder."""
    folder = directory / "vae"
    folder.mkdir(parents=True)
    statistics = statistics_config(*(state[key] for key in STATISTICS))
    (folder / CONFIG).write_text(json.dumps(vae_config(preset.vae) | statistics))
    save_file({key: tensor for key, tensor in state.items() if key not in STATISTICS}, folder / WEIGHTS)
    return folder


def change_config(folder: Path, **entries: object) -> None:
    """Put other entries into a config.json."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | entries))
