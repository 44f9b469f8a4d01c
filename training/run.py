"""What all trainings share: the processes of one run, its time, its optimiser, its checkpoints and its log.

A run is planned in minutes, and may be done in parts, each of which goes on where the one before stopped. Under
`torchrun` every process draws worlds of its own, and gradients are averaged. A checkpoint is a few files of less than
16 MiB, which the state names: weights in float32, AdamW's moments in bfloat16, and the averaged weights in float16.
Beside it lie the averaged weights alone, which are the result.
"""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn

from training.shards import replace, shards
from training.shots import FIRST_TRAINING_SEED

NETWORKS = ("vae", "vggt", "dit")  # each learns from worlds of its own
SEEDS_A_RUN = 1 << 32
WEIGHTS, STATE, LOG = "weights.safetensors", "state.json", "log.jsonl"
_LOG_EVERY, _AGREE_EVERY = 50, 20  # steps
_SAVE_EVERY = 120.0  # seconds
_LOWEST_RATE = 0.02  # of the peak, at the end


def parse(
    doc: str | None, *, minutes: float, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The arguments of a training; `add` appends its own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, required=True, help="the run's checkpoint and log; goes on from there"
    )
    parser.add_argument("--minutes", type=float, default=minutes, help="of the whole run: the schedule's length")
    parser.add_argument("--part-minutes", type=float, default=math.inf, help="stop this part after so many minutes")
    parser.add_argument("--initial", type=Path, help="folder of another run, whose weights this one starts from")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of worlds and noise; with --initial another than that run's, for new worlds",
    )
    if add is not None:
        add(parser)
    return parser.parse_args()


class Run:
    """One training of `model`, one of NETWORKS, which is moved to this process's device."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        args: argparse.Namespace,
        *,
        lr: float,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        warmup: int = 300,  # steps, of every part: the moments of a checkpoint are rounded
        clip: float = 1.0,  # gradient norm
        ema: float = 0.999,
    ) -> None:
        self.name, self.model, self.directory = name, model, Path(args.directory)
        self.rank, self.world, self.device = _join()
        self.step, self.progress = 0, 0.0
        self._lr, self._warmup, self._clip, self._ema_decay = lr, warmup, clip, ema
        self._planned, self._part = 60 * args.minutes, 60 * args.part_minutes
        self._earlier = 0.0
        self._first_seed = first_seed(name, args.seed)
        self._drawn = 0  # worlds, by all processes
        self._sums: dict[str, Tensor] = {}
        self._summed = 0  # steps
        model.to(self.device)
        self._trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
        self._gradient = _one_gradient(list(self._trained.values()))
        self._optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in self._trained.values() if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in self._trained.values() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=betas,
            fused=self.device.type == "cuda",
        )
        self._averaged = {key: p.detach().clone() for key, p in self._trained.items()}
        if (self.directory / STATE).is_file():
            self._load()
        self._resumed = self.step
        seed = args.seed + 7919 * self.rank + 104_729 * self.step
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.cpu_generator = torch.Generator().manual_seed(seed)
        self._start_alike()
        self._began = self._saved = time.monotonic()  # optimisers import a lot when they are made first

    def seeds(self, n: int) -> list[int]:
        """The next n worlds of this process. All processes ask for the same number each time."""
        first = self._first_seed + self._drawn + self.rank * n
        self._drawn += n * self.world
        return list(range(first, first + n))

    def steps(self) -> Iterator[int]:
        """Step numbers until this part's time, or the run's, is over; checkpoints are written on the way and last."""
        while True:
            if self.step % _AGREE_EVERY == 0:
                elapsed = self._agreed(time.monotonic() - self._began)
                self.progress = min(1.0, (self._earlier + elapsed) / self._planned)
                if self.progress >= 1 or elapsed >= self._part:
                    break
                if self.rank == 0 and time.monotonic() - self._saved > _SAVE_EVERY:
                    self.save()
            yield self.step
        self.save()

    def optimise(self, loss: Tensor, **logged: Tensor) -> None:
        """One step of AdamW on the mean of `loss` over all processes. `logged` scalars are averaged in the log.

        A gradient that is not finite counts as 0. Raises FloatingPointError if none was finite between two log lines.
        """
        loss.backward()  # type: ignore[no-untyped-call]
        if self.world > 1:
            distributed.all_reduce(self._gradient)
            self._gradient /= self.world
        norm = self._gradient.norm()
        finite = norm.isfinite()
        self._gradient.nan_to_num_(0.0, 0.0, 0.0)  # one bad sample must not end a run
        self._gradient *= torch.where(finite, (self._clip / (norm + 1e-6)).clamp(max=1), 0)
        for group in self._optimiser.param_groups:
            group["lr"] = self._lr * self._rate()
        self._optimiser.step()
        self._gradient.zero_()
        self.step += 1
        decay = min(self._ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._averaged.values()), list(self._trained.values()), 1 - decay)
        self._note(~finite, loss=loss, norm=norm, **logged)

    def averaged(self) -> nn.Module:
        """A copy of the model with the averaged weights, for inference."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self._averaged, strict=False)
        return model.eval().requires_grad_(False)

    def log(self, **values: float | int | str) -> None:
        """A line in the log, at once."""
        if self.rank == 0:
            minutes = (self._earlier + time.monotonic() - self._began) / 60
            line = {"step": self.step, "minutes": round(minutes, 3), **values}
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / LOG).open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(self.name, json.dumps(line), flush=True)

    def save(self) -> None:
        """The checkpoint, by process 0. The state's file makes it valid; only then is the one before deleted."""
        self._saved = time.monotonic()
        if self.rank != 0:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        weights = {key: x.half() for key, x in {**self.model.state_dict(), **self._averaged}.items()}
        replace(self.directory / WEIGHTS, weights)
        names = []
        for i, shard in enumerate(shards(self._state())):
            names.append(f"state-{self.step}-{i}.safetensors")
            replace(self.directory / names[-1], shard)
        state = {
            "step": self.step,
            "seconds": self._earlier + time.monotonic() - self._began,
            "drawn": self._drawn,
            "processes": self.world,
            "shards": names,
        }
        new = self.directory / f"{STATE}.new"
        new.write_text(json.dumps(state))
        new.replace(self.directory / STATE)
        for path in self.directory.glob("state-*"):  # those before, and what a kill left half-written
            if path.name not in names:
                path.unlink()

    def _rate(self) -> float:
        """The learning rate's share of its peak: a cosine over the planned time."""
        warm = min(1.0, (self.step - self._resumed + 1) / self._warmup)
        return warm * (_LOWEST_RATE + (1 - _LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def _note(self, bad: Tensor, **values: Tensor) -> None:  # bad: [] bool, the step had no finite gradient
        for key, value in {"bad_steps": bad, **values}.items():
            seen = value.detach().float().mean()
            self._sums[key] = self._sums[key] + seen if key in self._sums else seen
        self._summed += 1
        if self.step % _LOG_EVERY == 0:
            bad_steps = round(float(self._sums.pop("bad_steps")))
            means = {key: round(float(x) / self._summed, 5) for key, x in self._sums.items()}
            self._sums.clear()
            self._summed = 0
            rate = round(self._lr * self._rate(), 7)
            self.log(progress=round(self.progress, 4), rate=rate, bad_steps=bad_steps, **means)
            if bad_steps == _LOG_EVERY:
                raise FloatingPointError(
                    f"{self.name} diverged: none of the gradients of steps {self.step - _LOG_EVERY} to "
                    f"{self.step - 1} was finite. Go on from the checkpoint with a lower learning rate."
                )

    def _state(self) -> dict[str, Tensor]:
        tensors = {f"model.{key}": x for key, x in self.model.state_dict().items()}
        tensors |= {f"averaged.{key}": x.half() for key, x in self._averaged.items()}
        for key, p in self._trained.items():
            for name in ("exp_avg", "exp_avg_sq"):
                if name in self._optimiser.state.get(p, {}):
                    tensors[f"{name}.{key}"] = self._optimiser.state[p][name].bfloat16()
        return tensors

    def _load(self) -> None:
        state = json.loads((self.directory / STATE).read_text())
        tensors: dict[str, Tensor] = {}
        for name in state["shards"]:
            tensors |= load_file(self.directory / name, device=str(self.device))
        self.model.load_state_dict({k.removeprefix("model."): x for k, x in tensors.items() if k.startswith("model.")})
        for key, p in self._trained.items():
            self._averaged[key].copy_(tensors[f"averaged.{key}"])
            if f"exp_avg.{key}" in tensors:
                self._optimiser.state[p] = {
                    "step": torch.tensor(float(state["step"]), device=self.device if p.is_cuda else "cpu"),
                    "exp_avg": tensors[f"exp_avg.{key}"].float(),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{key}"].float(),
                }
        self.step, self._earlier, self._drawn = state["step"], state["seconds"], state["drawn"]
        # Another number of processes must not meet the same worlds again.
        self._drawn += -self._drawn % self.world

    def _start_alike(self) -> None:
        """The weights of process 0 everywhere."""
        if self.world > 1:
            for tensor in (*self.model.state_dict().values(), *self._averaged.values()):
                distributed.broadcast(tensor, 0)

    def _agreed(self, seconds: float) -> float:
        """Process 0's value, so that all stop at the same step."""
        if self.world == 1:
            return seconds
        value = torch.tensor(seconds, dtype=torch.float64, device=self.device)
        distributed.broadcast(value, 0)
        return float(value)


def first_seed(network: str, seed: int) -> int:
    """Of the SEEDS_A_RUN worlds of a run with `--seed seed`. Raises ValueError for what is not in NETWORKS."""
    if network not in NETWORKS:
        raise ValueError(f"the run is of {network!r}; legal are {', '.join(NETWORKS)}.")
    return FIRST_TRAINING_SEED + SEEDS_A_RUN * (len(NETWORKS) * seed + NETWORKS.index(network))


def load_weights(directory: Path) -> dict[str, Tensor]:
    """The averaged weights of a run, float32 on the CPU."""
    return {key: x.float() for key, x in load_file(directory / WEIGHTS).items()}


class Followed:
    """The averaged weights of a run that may go on meanwhile."""

    def __init__(self, directory: Path, every: float = 20.0) -> None:
        """Weights as they are now count as known; looks at most once in `every` seconds."""
        self._directory, self._every = directory, every
        self._written, self._looked = self._time_written(), time.monotonic()

    def newer(self) -> dict[str, Tensor] | None:
        """The weights, if they were saved since the last call; float32 on the CPU."""
        if time.monotonic() - self._looked < self._every:
            return None
        self._looked, before = time.monotonic(), self._written
        self._written = self._time_written()
        return None if self._written == before else load_weights(self._directory)

    def _time_written(self) -> int:
        return (self._directory / WEIGHTS).stat().st_mtime_ns


def _join() -> tuple[int, int, torch.device]:
    """Rank, number of processes and device."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        torch._dynamo.config.recompile_limit = 64  # static shapes: one compilation for each
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    return rank, world, device


def _one_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """One tensor that holds the gradients of all parameters: one reduction between processes, one norm."""
    total = sum(p.numel() for p in parameters)
    gradient = torch.zeros(total, device=parameters[0].device)
    start = 0
    for p in parameters:
        p.grad = gradient[start : start + p.numel()].view_as(p)
        start += p.numel()
    return gradient
