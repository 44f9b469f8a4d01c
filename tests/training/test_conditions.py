"""The batched twins of training against the product, and the errors of disturbed geometry."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from gen3c.cache3d import cache_view, render
from gen3c.cameras import camera_path, unproject
from gen3c.conditioning import Cameras, ConditionOptions, ViewConditioner, pool_views
from gen3c.fit import Fit
from gen3c.fusion import FUSION_MODES, Pool, ViewLatents, choose_views, fold
from gen3c.generator.condition import encode_seed
from gen3c.generator.light_vae import LightVae
from gen3c.generator.light_vae import initialise as initialise_vae
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.geometry.types import Frames, Watch
from gen3c.geometry.vggt.model import Vggt, VggtProgram
from gen3c.geometry.vggt.provider import VggtOptions
from gen3c.geometry.vggt.provider import estimate as serve
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import VGGT_TINY, LightVaeConfig
from gen3c.program import LocalProgram
from gen3c.scene import SourceView, build_scene
from training import conditions
from training.conditions import (
    MODE_SHARES,
    VIEWS,
    SampleMaker,
    cached,
    choose_two,
    draw_caches,
    draw_subsets,
    pooled,
    warp_views,
)
from training.footage import Footage, mirrored, relative
from training.motion import unsteadiness
from training.noisy_geometry import Severity, ViewGeometry, disturbed, rotation_matrix
from training.run import WEIGHTS, Followed
from training.scenes import as_float
from training.served_geometry import estimate, resample
from training.vggt import initialise as initialise_vggt

SIZE = (24, 40)
LATENT = (4, 3, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def geometry(b=2, v=3, size=SIZE, seed=0):
    """A ramp with a step in it, seen by cameras side by side."""
    h, w = size
    depth = 1 + 0.5 * torch.rand(b, v, 1, 1, generator=generator(seed)) + torch.linspace(0, 1, w).expand(b, v, h, w)
    depth[..., w // 3 : w // 2] -= 0.6
    w2c = torch.eye(4).repeat(b, v, 1, 1)
    w2c[:, :, 0, 3] = -0.1 * torch.arange(v)
    K = torch.tensor([[35.0, 0, (w - 1) / 2], [0, 35.0, (h - 1) / 2], [0, 0, 1]]).expand(b, v, 3, 3)
    return ViewGeometry(depth, torch.ones_like(depth), w2c, K)


def footage(b=2, v=3, f=2, size=SIZE):
    """Noise on that ramp; the first target is view 0."""
    truth = geometry(b, v, size)
    rgb = torch.randint(256, (b, v + f, *size, 3), generator=generator(1), dtype=torch.uint8)
    rgb[:, v] = rgb[:, 0]
    path = camera_path("left", f, torch.eye(4)).expand(b, f, 4, 4)
    return Footage(rgb[:, :v], rgb[:, v:], truth, truth.depth[:, :1].expand(b, f, *size), path)


def test_cache_and_warp_are_those_of_the_product():
    seen = footage()
    doubtful = torch.where(torch.rand(seen.truth.depth.shape, generator=generator(2)) < 0.2, 0.05, 0.9)
    shown = replace(seen.truth, confidence=doubtful)
    all_views = cached(seen.views, shown, 1)
    warp = warp_views(all_views, seen.target_w2c[1], shown.K[1, 0])
    for i in range(3):
        image = seen.views[1, i].permute(2, 0, 1) / 127.5 - 1
        view = cache_view(image, shown.depth[1, i], doubtful[1, i], shown.w2c[1, i], shown.K[1, i], min_confidence=0.1)
        assert torch.equal(all_views.mask[i], view.mask)
        torch.testing.assert_close(all_views.points[i], view.points)
        expected = render(view, seen.target_w2c[1], shown.K[1, :1].expand(2, 3, 3), SIZE)
        pictures = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(warp.image[pictures], expected.image)
        assert torch.equal(warp.coverage[pictures], expected.coverage)


def test_a_sample_holds_the_conditions_of_a_job():
    vae = LightVae(LightVaeConfig((8, 8), (1, 1), (8, 8), (1, 1)), 2)
    initialise_vae(vae, generator())
    with torch.no_grad():
        vae.encoder.head.weight.normal_(generator=generator())
    seen = footage(b=1, v=VIEWS, f=9, size=(16, 24))
    truth = seen.truth
    maker = SampleMaker(VideoEncoder(vae), VideoDecoder(vae), None, torch.device("cpu"), size=(16, 24))
    sample = maker.sample(seen, truth, 0, generator())
    views = [
        SourceView(image, truth.depth[0, i], truth.confidence[0, i], truth.w2c[0, i], truth.K[0, i])
        for i, image in enumerate(as_float(seen.views[0]))
    ]
    encoder = LocalProgram(VideoEncoder(vae), VIDEO_ENCODER)
    cameras = Cameras(seen.target_w2c[0], truth.K[0, :1].expand(9, 3, 3))
    for mode in FUSION_MODES:
        job = pool_views(
            views, cameras, ViewConditioner(encoder), Pool.empty((2, 2, 3)), ConditionOptions(mode), Watch()
        ).cache[0]
        if mode == "topk_concat":
            found = sample["whole"][0]
        else:
            everything = torch.ones(1, VIEWS, dtype=torch.bool)
            parts = (sample[name][None] for name in ("views", "coverage", "nearness"))
            found = pooled(*parts, everything, mode)[0]
        torch.testing.assert_close(found, job, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        sample["seed"][0], encode_seed(encoder, views[0].image[None], 1)[0], atol=1e-4, rtol=1e-4
    )
    assert sample["target"].shape == (16, 2, 2, 3)


@pytest.mark.parametrize("flip", [False, True])
def test_a_sample_with_pixels_knows_how_they_move_in_a_mirror_too(flip):
    """A wall before a camera that moves by two pixels a frame."""
    vae = LightVae(LightVaeConfig((8, 8), (1, 1), (8, 8), (1, 1)), 2)
    initialise_vae(vae, generator())
    h, w, frames = 16, 24, 9
    wall = torch.randint(256, (h, w + 2 * frames, 3), generator=generator(4), dtype=torch.uint8)
    targets = torch.stack([wall[:, 2 * i : 2 * i + w] for i in range(frames)])[None]
    w2c = torch.eye(4).repeat(1, frames, 1, 1)
    w2c[0, :, 0, 3] = -torch.arange(frames) * 2 * 2.0 / 30
    depth = torch.full((1, VIEWS, h, w), 2.0)
    K = torch.tensor([[30.0, 0, (w - 1) / 2], [0, 30.0, (h - 1) / 2], [0, 0, 1]]).expand(1, VIEWS, 3, 3)
    truth = ViewGeometry(depth, torch.ones_like(depth), torch.eye(4).repeat(1, VIEWS, 1, 1), K)
    scene = Footage(targets[:, :1].expand(-1, VIEWS, -1, -1, -1), targets, truth, depth[:, :1].expand(1, 9, h, w), w2c)
    scene = mirrored(scene, torch.tensor([flip]))
    maker = SampleMaker(VideoEncoder(vae), VideoDecoder(vae), None, torch.device("cpu"), size=(h, w), with_pixels=True)
    sample = maker.sample(scene, scene.truth, 0, generator())
    assert torch.equal(sample["rgb"], scene.targets[0])
    video = sample["rgb"].movedim(-1, 0)[None].float() / 255
    assert float(unsteadiness(video, sample["shift"][None])) < 2e-3  # shifts are kept in float16
    assert float(unsteadiness(video, -sample["shift"][None])) > 0.1


@pytest.mark.parametrize("mode", ["vector_max", "coverage_max", "ranked_concat"])
def test_scenes_pooled_together_are_those_pooled_alone(mode):
    n = 5
    views = torch.randn(n, VIEWS, 32, *LATENT, generator=generator())
    views[:, 3] = views[:, 2]  # ties
    coverage = torch.randint(5, (n, VIEWS, *LATENT), generator=generator(1)) / 4
    nearness = torch.randint(1, 4, (n, VIEWS, LATENT[0], 1, 1), generator=generator(3)) / 4
    included = draw_subsets(n, generator(2), torch.device("cpu"))
    together = pooled(views, coverage, nearness, included, mode)
    for i in range(n):
        pool = Pool.empty(LATENT)
        for j in included[i].nonzero()[:, 0].tolist():
            near = nearness[i, j].expand(LATENT)
            pool = fold(pool, ViewLatents(views[i, j], coverage[i, j], near), mode)
        assert torch.equal(together[i], pool.condition()[0])


def test_the_two_views_of_topk_are_chosen_as_in_the_product():
    frames = (torch.rand(VIEWS, 9, generator=generator()) * 4).round() / 4  # many ties, many nearly full
    included = torch.cat((draw_subsets(40, generator(1), torch.device("cpu")), torch.eye(VIEWS).bool()[:2]))
    views, keep = choose_two(frames, included)
    for i, given in enumerate(included):
        index = given.nonzero()[:, 0]
        expected = choose_views(frames[index])
        found = len(expected.views)
        assert views[i, :found].tolist() == index[list(expected.views)].tolist()
        assert torch.equal(keep[i, :found], expected.keep)
        assert not keep[i, found:].any()


def test_view_0_is_in_every_subset_and_all_counts_occur():
    subsets = draw_subsets(2000, generator(), torch.device("cpu"))
    assert subsets[:, 0].all()
    counts = subsets.sum(1).bincount(minlength=VIEWS + 1) / 2000
    assert counts[0] == 0
    assert (counts[1:] > 0.03).all()
    assert counts[VIEWS] == pytest.approx(0.4, abs=0.05)
    assert counts[1] == pytest.approx(0.2, abs=0.05)


def test_half_of_the_caches_are_ranked_the_rest_by_the_other_modes():
    n = 12
    batch = {
        "target": torch.zeros(n, 16, *LATENT),
        "views": torch.randn(n, VIEWS, 32, *LATENT, generator=generator()).bfloat16(),
        "coverage": torch.ones(n, VIEWS, *LATENT).half(),
        "nearness": torch.ones(n, VIEWS, LATENT[0], 1, 1),
        "whole": torch.full((n, 2, 64, *LATENT), 7.0).bfloat16(),
    }
    caches = draw_caches(batch, generator())
    assert caches.shape == (n, 64, *LATENT)
    assert caches.isfinite().all()
    assert (caches[:4, 32:] == 0).all()  # the modes of one buffer, two each
    ranked = caches[4:10, 32:].flatten(1).any(1)  # of several views the second buffer has one
    assert 1 <= ranked.sum() <= 6
    assert (caches[4:10] != 7).any(1).all()
    assert (caches[10:] == 7).all()  # topk_concat
    assert sum(MODE_SHARES.values()) == pytest.approx(1)
    assert set(MODE_SHARES) == set(FUSION_MODES)


def test_depth_is_resampled_as_served():
    depth = 1 + torch.rand(2, 21, 35, generator=generator())
    depth[:, 5:9] = 0
    confidence = (torch.rand(2, 21, 35, generator=generator(1)) - 0.1).clamp(min=0)
    fit = Fit((21, 35), SIZE, (0, 0, 35, 21), (0, 0, 40, 24))
    found = resample(depth, confidence, SIZE)
    for i in range(2):
        for got, expected in zip(found, fit.depth(depth[i], confidence[i]), strict=True):
            torch.testing.assert_close(got[i], expected)


def test_estimated_geometry_is_the_served_one():
    size = (48, 80)
    config = replace(VGGT_TINY, image_side=70)  # 42x70 px
    model = Vggt(config, points=False)
    initialise_vggt(model, generator())
    model.eval().requires_grad_(False)
    pictures = torch.randint(256, (3, *size, 3), generator=generator(), dtype=torch.uint8)
    found, usable = estimate(model, pictures[None])
    assert usable.all()
    frames = Frames(pictures, torch.tensor([size] * 3, dtype=torch.int32), ("a", "b", "c"))
    served = serve(frames, LocalProgram(VggtProgram(model), VGGT), config, options=VggtOptions())
    scene = build_scene(frames, served, size, "crop", "reference")
    # Antialiased resizing on the CPU and on a GPU round a few bytes differently.
    for i, view in enumerate(scene.views):
        torch.testing.assert_close(found.K[0, i], view.K, atol=0, rtol=1e-3)
        torch.testing.assert_close(found.w2c[0, i], view.w2c, atol=1e-3, rtol=0)
        assert (found.depth[0, i] - view.depth).abs().median() < 1e-3 * view.depth.median()
        assert ((found.confidence[0, i] > 0) == (view.confidence > 0)).float().mean() > 0.98


def test_cameras_relative_to_view_0_are_those_of_a_scene():
    w2c = camera_path("clockwise", 5, torch.eye(4), distance=0.5)[1:]
    moved = relative(w2c[None], torch.tensor([2.0]))[0]
    expected = w2c.double() @ torch.linalg.inv(w2c[0].double())
    expected[:, :3, 3] /= 2
    torch.testing.assert_close(moved, expected.float())
    torch.testing.assert_close(moved[0], torch.eye(4))


def test_a_mirrored_scene_is_a_scene():
    seen = footage(b=2)
    turned = replace(seen, truth=replace(seen.truth, w2c=_turned(seen.truth.w2c)))
    twice = mirrored(mirrored(turned, torch.tensor([True, True])), torch.tensor([True, True]))
    torch.testing.assert_close(twice.truth.w2c, turned.truth.w2c)
    flipped = mirrored(turned, torch.tensor([True, False]))
    assert torch.equal(flipped.views[1], turned.views[1])
    points = [unproject(x.truth.depth[0], x.truth.w2c[0], x.truth.K[0]) for x in (turned, flipped)]
    mirror = torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(points[1], points[0].flip(2) * mirror, atol=1e-5, rtol=1e-5)


def _turned(w2c):
    return w2c @ torch.block_diag(
        torch.linalg.matrix_exp(torch.tensor([[0, -0.2, 0.1], [0.2, 0, 0.3], [-0.1, -0.3, 0]])), torch.ones(1, 1)
    )


def test_rotations_by_vectors():
    turn = torch.randn(5, 3, generator=generator())
    turn[0] = 0
    x, y, z = turn.double().unbind(-1)
    skew = torch.stack([x * 0, -z, y, z, x * 0, -x, -y, x, x * 0], -1).view(5, 3, 3)
    torch.testing.assert_close(rotation_matrix(turn), torch.linalg.matrix_exp(skew).float())


def test_no_disturbance_is_the_truth():
    truth = geometry()
    same = disturbed(truth, generator(), amount=torch.zeros(2))
    torch.testing.assert_close(same.depth, truth.depth)
    torch.testing.assert_close(same.w2c, truth.w2c)
    torch.testing.assert_close(same.K, truth.K)
    assert (same.confidence > 0).float().mean() > 0.99


def test_mild_errors_are_smaller_than_any(monkeypatch):
    """With MILD_SHARE alone every scene is disturbed, and less than without it."""
    seen = footage(b=16)
    errors = []
    for mild in (1.0, 0.0):
        for name, share in {"EXACT_SHARE": 0.0, "MILD_SHARE": mild}.items():
            monkeypatch.setattr(conditions, name, share)
        found = conditions.choose_geometry(seen, None, generator())
        moved = (found.w2c - seen.truth.w2c)[:, 1:].abs().amax((1, 2, 3))
        errors.append(moved)
    assert (errors[0] > 0).all()
    assert errors[0].mean() < 0.3 * errors[1].mean()


def test_other_weights_of_vggt_are_taken(tmp_path):
    model = Vggt(VGGT_TINY, points=False)
    initialise_vggt(model, generator())
    save_file({key: x.half().contiguous() for key, x in model.state_dict().items()}, tmp_path / WEIGHTS)
    followed = Followed(tmp_path, every=0)
    assert followed.newer() is None
    served = Vggt(VGGT_TINY, points=False).narrow(torch.bfloat16)
    os.utime(tmp_path / WEIGHTS, ns=(0, 1))
    weights = followed.newer()
    assert followed.newer() is None
    maker = SimpleNamespace(vggt=served)
    conditions.SampleMaker.exchange_vggt(maker, weights)
    kept = served.state_dict()
    for key, x in weights.items():
        assert torch.equal(kept[key], x.to(kept[key].dtype)), key
    assert {x.dtype for x in kept.values()} == {torch.float32, torch.bfloat16}


def test_disturbances_grow_and_leave_view_0_in_place():
    truth = geometry(b=16, size=(56, 84))
    errors = []
    for amount in (0.1, 1.0):
        found = disturbed(truth, generator(), amount=torch.full((16,), amount))
        assert torch.equal(found.w2c[:, 0], truth.w2c[:, 0])
        assert (found.depth > 0).all()
        assert found.depth.isfinite().all()
        R = found.w2c[..., :3, :3]
        torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
        ratio = (found.depth / truth.depth).log().abs().median()
        errors.append((float(ratio), float((found.w2c - truth.w2c).abs().mean())))
        assert (found.confidence == 0).float().mean() < Severity().dropped
    assert errors[1][0] > 3 * errors[0][0]
    assert errors[1][1] > 3 * errors[0][1]
