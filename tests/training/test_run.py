"""Runs: parts continue one another, checkpoints fit where they must, worlds are never repeated or held out."""

import argparse
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from training import run as runs
from training.run import LOG, NETWORKS, SEEDS_A_RUN, STATE, WEIGHTS, Run, first_seed, load_weights
from training.shards import replace
from training.shots import FIRST_TRAINING_SEED, TEST_SEEDS, VALIDATION_SEEDS


def _arguments(
    directory: Path, *, part_minutes: float = 0.02, minutes: float = 0.2, seed: int = 0
) -> argparse.Namespace:
    return argparse.Namespace(directory=directory, minutes=minutes, part_minutes=part_minutes, seed=seed)


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1))


def _train(run: Run) -> None:
    for _ in run.steps():
        x = torch.randn(64, 4, generator=run.generator)
        run.optimise((run.model(x) - x.sum(1, keepdim=True)).square().mean())


def test_a_part_goes_on_where_the_one_before_stopped(tmp_path: Path) -> None:
    first = Run("dit", _network(), _arguments(tmp_path), lr=1e-2)
    seeds = first.seeds(5)
    _train(first)
    second = Run("dit", _network(), _arguments(tmp_path), lr=1e-2)
    assert second.step == first.step > 0
    assert not set(second.seeds(5)) & set(seeds)
    for key, tensor in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[key], tensor)
    for key, parameter in first._trained.items():
        before, after = first._optimiser.state[parameter], second._optimiser.state[second._trained[key]]
        torch.testing.assert_close(after["exp_avg"], before["exp_avg"], rtol=2**-8, atol=0)  # they were bfloat16
        assert float(after["step"]) == float(before["step"])
    _train(second)
    progress = [json.loads(line)["progress"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert progress == sorted(progress)


def test_a_run_ends_when_its_time_is_over(tmp_path: Path) -> None:
    run = Run("dit", _network(), _arguments(tmp_path, minutes=0.02, part_minutes=1), lr=1e-2)
    _train(run)
    assert run.progress == 1
    over = Run("dit", _network(), _arguments(tmp_path, minutes=0.02, part_minutes=1), lr=1e-2)
    _train(over)
    assert over.step == run.step


def test_training_never_sees_a_held_out_world(tmp_path: Path) -> None:
    for seed in (0, 1, 7):
        seeds = Run("dit", _network(), _arguments(tmp_path / str(seed), seed=seed), lr=1e-2).seeds(1000)
        assert min(seeds) >= FIRST_TRAINING_SEED > max(*TEST_SEEDS, *VALIDATION_SEEDS)
    assert not set(TEST_SEEDS) & set(VALIDATION_SEEDS)


def test_no_two_runs_share_a_world(tmp_path: Path) -> None:
    firsts = [first_seed(network, seed) for network in NETWORKS for seed in range(4)]
    assert min(b - a for a, b in pairwise(sorted(firsts))) == SEEDS_A_RUN
    for network in NETWORKS:
        seeds = Run(network, _network(), _arguments(tmp_path / network, seed=3), lr=1e-2).seeds(2)
        assert seeds[0] == first_seed(network, 3)
    with pytest.raises(ValueError, match="'unet'; legal are vae, vggt, dit"):
        first_seed("unet", 0)


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "shards", lambda tensors: [{key: x} for key, x in tensors.items()])  # as if it was large
    run = Run("dit", _network(), _arguments(tmp_path), lr=1e-2)
    _optimise(run, 3)
    run.save()
    weights = {key: x.clone() for key, x in run.model.state_dict().items()}
    averaged = {key: x.clone() for key, x in run.averaged().state_dict().items()}
    _optimise(run, 2)
    written = []

    def killed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        if len(written) == 4:
            path.with_suffix(".new").touch()
            raise KeyboardInterrupt
        written.append(path)
        replace(path, tensors)

    monkeypatch.setattr(runs, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save()
    monkeypatch.setattr(runs, "replace", replace)
    again = Run("dit", _network(), _arguments(tmp_path), lr=1e-2)
    assert again.step == 3
    assert all(torch.equal(again.model.state_dict()[key], x) for key, x in weights.items())
    torch.testing.assert_close(dict(again.averaged().state_dict()), averaged, rtol=2**-10, atol=1e-6)  # were float16
    _optimise(again, 1)
    again.save()
    shards = json.loads((tmp_path / STATE).read_text())["shards"]
    assert {path.name for path in tmp_path.iterdir()} - {LOG} == {*shards, STATE, WEIGHTS}


def _optimise(run: Run, steps: int) -> None:
    for _ in range(steps):
        run.optimise(run.model(torch.randn(8, 4, generator=run.generator)).square().mean())


def test_files_of_a_checkpoint_stay_small(tmp_path: Path) -> None:
    model = nn.ModuleList(nn.Linear(1024, 1024) for _ in range(5))  # 21 MB of weights
    run = Run("dit", model, _arguments(tmp_path), lr=1e-3)
    run.optimise(sum(layer(torch.ones(1, 1024)).square().mean() for layer in model))  # type: ignore[arg-type]
    run.save()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert max(sizes) < 16 << 20
    assert len(json.loads((tmp_path / STATE).read_text())["shards"]) == 4
    assert load_weights(tmp_path)["0.weight"].dtype == torch.float32


def test_one_bad_gradient_does_not_end_a_run(tmp_path: Path) -> None:
    model = _network()
    run = Run("dit", model, _arguments(tmp_path), lr=1e-2)
    run.optimise(model(torch.full((1, 4), torch.nan)).mean())
    assert all(p.isfinite().all() for p in model.parameters())


def test_bad_gradients_are_counted_and_end_a_run_that_has_no_others(tmp_path: Path) -> None:
    run = Run("dit", _network(), _arguments(tmp_path), lr=1e-2)
    bad, good = torch.full((1, 4), torch.nan), torch.ones(1, 4)
    for step in range(50):
        run.optimise(run.model(bad if step < 3 else good).mean())
    assert json.loads((tmp_path / LOG).read_text())["bad_steps"] == 3
    for _ in range(49):
        run.optimise(run.model(bad).mean())
    with pytest.raises(FloatingPointError, match="steps 50 to 99"):
        run.optimise(run.model(bad).mean())


def test_a_bad_gradient_moves_nothing(tmp_path: Path) -> None:
    model = _network()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    run = Run("dit", model, _arguments(tmp_path), lr=1e-2, weight_decay=0)
    out = model(torch.ones(1, 4))
    run.optimise(out.mean() + 0 * model[2].bias.sum() / 0)  # type: ignore[index, operator, union-attr]
    assert all(torch.equal(model.state_dict()[key], x) for key, x in before.items())


def test_frozen_weights_stay_and_are_saved(tmp_path: Path) -> None:
    model = _network()
    model[0].requires_grad_(False)  # type: ignore[index]
    before = model[0].weight.clone()  # type: ignore[index]
    run = Run("dit", model, _arguments(tmp_path), lr=1e-2)
    _train(run)
    torch.testing.assert_close(load_weights(tmp_path)["0.weight"], before, rtol=1e-3, atol=1e-4)
    assert torch.equal(run.averaged()[0].weight, before)  # type: ignore[index]


_TWO = """
import argparse, json, os, torch
from pathlib import Path
from torch import nn
from training.run import Run
torch.manual_seed(int(os.environ["RANK"]))  # they begin apart
model = nn.Linear(3, 1)
run = Run("dit", model, argparse.Namespace(directory=Path("{directory}"), minutes=1, part_minutes=1, seed=0), lr=1e-2)
for _ in range(5):
    run.optimise(model(torch.randn(8, 3, generator=run.generator)).square().mean())
Path("{directory}", str(run.rank)).write_text(json.dumps((run.seeds(3), model.weight.tolist())))
"""


@pytest.mark.timeout(120)
def test_two_processes_train_one_model_on_different_worlds(tmp_path: Path) -> None:
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29613"}
    command = [sys.executable, "-c", _TWO.format(directory=tmp_path)]
    processes = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(100) for process in processes] == [0, 0]
    (seeds0, weights0), (seeds1, weights1) = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert weights0 == weights1
    assert not set(seeds0) & set(seeds1)
