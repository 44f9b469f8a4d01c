"""One held-out scene: what a user would give, and what should come back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.conditioning import Cameras
from gen3c.geometry.types import Frames, Geometry
from gen3c.scene import Scene
from training.scenes import as_float, draw_worlds, render
from training.shots import FIRST_TRAINING_SEED, TEST_SEEDS, draw_shots, seen

SAMPLES = 2  # rays a pixel and axis
LINEAR_FIRST_SEED = FIRST_TRAINING_SEED  # of the clips that the linear code is fitted to


@dataclass(frozen=True)
class Case:
    """v source views and t target frames of one world, exact. Lengths in metres."""

    seed: int
    path: str  # for captions
    views: Tensor  # [v,h,w,3] uint8
    view_depth: Tensor  # [v,h,w]
    view_w2c: Tensor  # [v,4,4]
    truth: Tensor  # [t,h,w,3] uint8
    depth: Tensor  # [t,h,w]
    w2c: Tensor  # [t,4,4]; the first is view 0's
    K: Tensor  # [3,3]
    unit: float  # view 0's centre depth
    seen: Tensor  # [t,h,w] bool: some view shows the surface


def held_out_seeds(scenes: int, shard: tuple[int, int] = (0, 1)) -> list[int]:
    """The seeds of the first `scenes` held-out worlds; of n shards the i-th part, (i,n).

    Raises ValueError for more scenes than are held out.
    """
    if not 1 <= scenes <= len(TEST_SEEDS):
        raise ValueError(f"--scenes is {scenes}; legal: 1 to {len(TEST_SEEDS)}, the worlds that training never sees.")
    index, count = shard
    return list(TEST_SEEDS)[:scenes][index::count]


def draw_cases(seeds: Sequence[int], size: tuple[int, int], device: torch.device) -> Iterator[Case]:
    """Worlds one by one; `size` is height and width."""
    for seed in seeds:
        worlds = draw_worlds([seed], device)
        shots = draw_shots(worlds, [seed], size)
        # Views and targets in one call: one shape for the compiler.
        w2c = torch.cat((shots.views, shots.targets), dim=1)
        drawn = render(worlds, w2c, shots.K, size, samples=SAMPLES)
        v = shots.views.shape[1]
        rgb, depth = drawn.rgb[0], drawn.depth[0]
        visible = seen(depth[None, v:], shots.targets, shots.K, depth[None, :v], shots.views)
        yield Case(
            seed,
            shots.paths[0],
            rgb[:v],
            depth[:v],
            shots.views[0].float(),
            rgb[v:],
            depth[v:],
            shots.targets[0].float(),
            shots.K[0].float(),
            float(shots.unit[0]),
            visible[0].any(1),
        )


def frames_of(case: Case, views: int) -> Frames:
    """The first views as the pictures of a job."""
    pixels = case.views[:views].cpu()
    sizes = torch.tensor([pixels.shape[1:3]] * views, dtype=torch.int32)
    return Frames(pixels, sizes, tuple(f"view {i}" for i in range(views)))


def exact_geometry(case: Case, views: int) -> Geometry:
    """What a perfect provider says: all depth known and trusted, view 0's camera the identity, metres."""
    depth, w2c = case.view_depth[:views].float().cpu(), case.view_w2c[:views].cpu()
    K = case.K.cpu().expand(views, -1, -1)
    relative = w2c.double() @ torch.linalg.inv(w2c[:1].double())
    return Geometry(depth, torch.ones_like(depth), relative.float(), K.clone())


def target_cameras(case: Case, geometry: Geometry, scene: Scene) -> Cameras:
    """The true path from view 0, in a scene's unit and with its view 0's intrinsics, as a user asks for it.

    An estimate's unit is unknown: lengths are scaled by the median ratio of its depth of view 0 to the true one.
    """
    depth, true = geometry.depth[0], case.view_depth[0].cpu()
    known = (depth > 0) & (geometry.confidence[0] > 0)
    ratio = float((depth[known] / true[known]).double().median())
    w2c = case.w2c.cpu().double() @ torch.linalg.inv(case.w2c[:1].cpu().double())
    w2c[:, :3, 3] *= ratio / scene.unit
    w2c[0] = torch.eye(4)
    return Cameras(w2c.float(), scene.views[0].K.expand(len(w2c), -1, -1))


def linear_clips(count: int, size: tuple[int, int], device: torch.device) -> Iterator[Tensor]:
    """Clips [1,3,t,h,w] in [-1,1] of worlds that training may see, to fit the linear code to."""
    for case in draw_cases(range(LINEAR_FIRST_SEED, LINEAR_FIRST_SEED + count), size, device):
        yield as_float(case.truth[None])
