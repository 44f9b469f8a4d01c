"""The network: what its frames, scenes, levels and types may and may not change, and its released size."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.geometry.vggt.aggregator import Aggregator
from gen3c.geometry.vggt.model import Prediction, Vggt, VggtProgram
from gen3c.geometry.vggt.official import tracker_shapes
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import VGGT_1B, VGGT_TINY, VggtConfig
from gen3c.program import LocalProgram

# Outputs are of order 1; sums over other numbers of frames run in another order: 2e-6 were seen.
ROUNDING = 1e-5


def outputs(prediction: Prediction) -> list[Tensor]:
    """All of them, each [b,s,...]."""
    assert prediction.points is not None
    assert prediction.points_confidence is not None
    return [
        prediction.pose,
        prediction.depth,
        prediction.depth_confidence,
        prediction.points,
        prediction.points_confidence,
    ]


def assert_same(ours: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=ROUNDING, atol=ROUNDING)


def largest_differences(ours: list[Tensor], other: list[Tensor]) -> list[float]:
    return [float((a - b).abs().max()) for a, b in zip(ours, other, strict=True)]


def counts(state: dict[str, Tensor], prefix: str = "") -> tuple[int, int]:
    """Tensors and parameters whose names begin so."""
    sizes = [tensor.numel() for name, tensor in state.items() if name.startswith(prefix)]
    return len(sizes), sum(sizes)


def test_every_weight_but_the_mask_token_has_a_say(vggt: Vggt, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        ((x * torch.randn(x.shape, generator=generator)).mean() for x in outputs(vggt.requires_grad_()(images))),
        torch.zeros(()),
    )
    gradients = torch.autograd.grad(loss, list(vggt.parameters()), allow_unused=True)
    # The smallest that was seen is 4e-4; of a weight that cancels out, such as a bias before a norm, rounding is left.
    named = zip(dict(vggt.named_parameters()), gradients, strict=True)
    mute = {name for name, gradient in named if gradient is None or float(gradient.norm()) < 1e-5}
    assert mute == {"aggregator.patch_embed.mask_token"}


def test_frames_after_the_first_may_come_in_any_order(vggt: Vggt, images: Tensor) -> None:
    expected = outputs(vggt(images))
    assert_same(outputs(vggt(images[:, [0, 2, 1]])), [x[:, [0, 2, 1]] for x in expected])
    # Views that are as good as equal would hide an order.
    assert min(largest_differences([x[:, 1] for x in expected], [x[:, 2] for x in expected])) > 0.02


def test_another_first_frame_is_another_world(vggt: Vggt, images: Tensor) -> None:
    other = outputs(vggt(images[:, [1, 0, 2]]))
    moved = [x[:, [1, 0, 2]] for x in outputs(vggt(images))]
    assert min(largest_differences(other, moved)) > 0.1  # 0.2 and more were seen


def test_a_single_frame_is_a_first_frame(vggt: Vggt, images: Tensor) -> None:
    single = outputs(vggt(images[:, :1]))
    assert [tuple(x.shape) for x in single] == [
        (2, 1, 9),
        (2, 1, 42, 70),
        (2, 1, 42, 70),
        (2, 1, 42, 70, 3),
        (2, 1, 42, 70),
    ]
    # What all the others begin with does not reach it.
    vggt.aggregator.camera_token[:, 1] = 5.0
    vggt.aggregator.register_token[:, 1] = -5.0
    assert all(torch.equal(a, b) for a, b in zip(outputs(vggt(images[:, :1])), single, strict=True))
    vggt.aggregator.camera_token[:, 0] = 5.0
    assert min(largest_differences(outputs(vggt(images[:, :1])), single)) > 0.1


def test_depth_and_confidence_are_in_their_ranges(vggt: Vggt, images: Tensor) -> None:
    prediction = vggt(images)
    assert (prediction.depth > 0).all()
    assert (prediction.depth_confidence > 1).all()
    assert (prediction.points_confidence > 1).all()
    assert (prediction.pose[..., 7:] > 0).all()
    vggt.camera_head.pose_branch.fc2.bias[7:] = -1.0
    assert (vggt(images).pose[..., 7:] == 0).all()  # cut off, not mirrored


def test_scenes_of_a_batch_do_not_know_of_each_other(vggt: Vggt, images: Tensor) -> None:
    together = outputs(vggt(images))
    for i in range(2):
        assert_same(outputs(vggt(images[i : i + 1])), [x[i : i + 1] for x in together])
    assert min(largest_differences([x[0] for x in together], [x[1] for x in together])) > 0.02


@pytest.mark.parametrize(("at_once", "parts"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (None, [6])])
def test_the_dense_heads_may_take_a_few_frames_at_a_time(
    vggt: Vggt, images: Tensor, at_once: int | None, parts: list[int]
) -> None:
    expected = outputs(vggt(images))
    seen: list[int] = []
    vggt.depth_head.register_forward_hook(lambda _module, _inputs, out: seen.append(len(out)))
    assert_same(outputs(vggt(images, frames_at_once=at_once)), expected)
    assert seen == parts


def test_only_the_levels_of_the_config_are_returned(vggt: Vggt, config: VggtConfig, images: Tensor) -> None:
    def levels(which: tuple[int, ...]) -> list[Tensor]:
        aggregator = Aggregator(replace(config, levels=which))
        aggregator.load_state_dict(vggt.aggregator.state_dict())
        with torch.no_grad():
            tokens: list[Tensor] = aggregator(images)
        return tokens

    every = levels(tuple(range(config.depth)))
    assert [tuple(x.shape) for x in every] == [(2, 3, 5 + 3 * 5, 2 * config.width)] * config.depth
    assert min(float((a - b).abs().max()) for a, b in itertools.pairwise(every)) > 0.1
    for which in (config.levels, (4,), (3, 0)):
        assert all(torch.equal(a, every[i]) for a, i in zip(levels(which), which, strict=True))


def test_the_last_level_makes_the_camera_and_each_level_the_maps(vggt: Vggt, images: Tensor) -> None:
    expected = vggt(images)
    for level in range(4):

        def replaced(_module: nn.Module, _inputs: object, tokens: list[Tensor], at: int = level) -> list[Tensor]:
            return [x.flip(-1) if i == at else x for i, x in enumerate(tokens)]

        with vggt.aggregator.register_forward_hook(replaced):
            prediction = vggt(images)
        assert torch.equal(prediction.pose, expected.pose) == (level < 3)
        assert float((prediction.depth - expected.depth).abs().max()) > 0.01


def test_the_camera_head_reads_the_first_token_of_each_frame_alone(vggt: Vggt, config: VggtConfig) -> None:
    tokens = torch.randn(2, 3, 8, 2 * config.width, generator=torch.Generator().manual_seed(4))
    refined = vggt.camera_head(tokens)
    assert refined.shape == (4, 2, 3, 9)
    assert float((refined[1:] - refined[:-1]).abs().amax((1, 2, 3)).min()) > 0.01  # every iteration adds something
    assert torch.equal(vggt.camera_head(tokens[:, :, :1]), refined)
    assert torch.equal(vggt.camera_head(tokens, 2), refined[:2])
    tokens[:, 2, 0] = 0
    moved = (vggt.camera_head(tokens) - refined).abs().amax((0, 3))  # [2,3]
    assert float(moved.min()) > 1e-3  # through attention, the other frames' cameras too


def test_narrow_makes_the_linear_layers_of_the_aggregator_narrow_and_nothing_else(vggt: Vggt) -> None:
    narrow = vggt.narrow(torch.bfloat16)
    assert narrow is vggt
    expected = {
        f"aggregator.{name}.{kind}"
        for name, module in vggt.aggregator.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        for kind in ("weight", "bias")
    }
    assert len(expected) == 2 * (1 + 4 * (1 + 5 + 5))  # the patches' convolution; four layers a block
    types = {name: tensor.dtype for name, tensor in vggt.state_dict().items()}
    assert {name for name, dtype in types.items() if dtype == torch.bfloat16} == expected
    assert {dtype for name, dtype in types.items() if name not in expected} == {torch.float32}


def test_a_narrow_network_says_nearly_the_same(vggt: Vggt, images: Tensor) -> None:
    expected = outputs(vggt(images))
    narrow = outputs(copy.deepcopy(vggt).narrow(torch.bfloat16)(images))
    for ours, wide in zip(narrow, expected, strict=True):
        assert ours.dtype == torch.float32
        # Of what varies, not of the mean. 8 bits are 0.2 % a rounding, of which each of 11 blocks has a few: up to 1 %
        # were seen, and 0.6 % by autocast in the released code.
        error = float((ours - wide).norm() / (wide - wide.mean()).norm())
        assert 1e-4 < error < 0.02


def test_the_released_network_has_the_published_size() -> None:
    with torch.device("meta"):
        state = Vggt(VGGT_1B).state_dict()
    tracker = tracker_shapes(VGGT_1B)
    assert counts(state) == (1403, 1_190_596_120)
    assert (len(state) + len(tracker), counts(state)[1] + sum(math.prod(shape) for shape in tracker.values())) == (
        1797,
        1_256_537_516,
    )
    parts = {
        "aggregator.": 909_112_320,
        "aggregator.patch_embed.": 304_372_736,
        "camera_head.": 216_174_610,
        "point_head.": 32_654_628,
        "depth_head.": 32_654_562,
    }
    assert {prefix: counts(state, prefix)[1] for prefix in parts} == parts
    assert counts(state, "point_head.")[0] == counts(state, "depth_head.")[0] == 62
    assert sum(math.prod(shape) for shape in tracker.values()) == 65_941_396
    assert not set(tracker) & set(state)


def test_tensors_of_the_released_network_have_the_published_names() -> None:
    """A few of each kind, from shared/reference/vggt.md, section 10."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Vggt(VGGT_1B).state_dict().items()}
    shapes |= tracker_shapes(VGGT_1B)
    published = {
        "aggregator.register_token": (1, 2, 4, 1024),
        "aggregator.patch_embed.pos_embed": (1, 1370, 1024),
        "aggregator.patch_embed.patch_embed.proj.weight": (1024, 3, 14, 14),
        "aggregator.patch_embed.blocks.23.ls2.gamma": (1024,),
        "aggregator.global_blocks.23.attn.k_norm.bias": (64,),
        "camera_head.poseLN_modulation.1.weight": (6144, 2048),
        "camera_head.pose_branch.fc2.weight": (9, 1024),
        "camera_head.trunk.3.mlp.fc1.weight": (8192, 2048),
        "point_head.projects.1.weight": (512, 2048, 1, 1),
        "depth_head.resize_layers.3.weight": (1024, 1024, 3, 3),
        "depth_head.scratch.refinenet4.resConfUnit2.conv2.bias": (256,),
        "point_head.scratch.output_conv2.2.weight": (4, 32, 1, 1),
        "depth_head.scratch.output_conv2.2.weight": (2, 32, 1, 1),
        "track_head.feature_extractor.resize_layers.0.bias": (256,),
        "track_head.feature_extractor.scratch.layer3_rn.weight": (128, 1024, 3, 3),
        "track_head.tracker.query_ref_token": (1, 2, 388),
        "track_head.tracker.corr_mlp.fc1.weight": (384, 567),
        "track_head.tracker.updateformer.virual_tracks": (1, 64, 1, 384),
        "track_head.tracker.updateformer.space_virtual2point_blocks.5.cross_attn.in_proj_weight": (1152, 384),
        "track_head.tracker.updateformer.space_point2virtual_blocks.0.norm_context.bias": (384,),
        "track_head.tracker.updateformer.time_blocks.5.mlp.fc2.weight": (384, 1536),
    }
    assert {name: shapes.get(name) for name in published} == published
    assert "point_head.scratch.refinenet4.resConfUnit1.conv1.weight" not in shapes
    assert "track_head.feature_extractor.scratch.output_conv2.0.weight" not in shapes


def test_the_tiny_network_is_small_enough_to_ship() -> None:
    with torch.device("meta"):
        state = Vggt(VGGT_TINY, points=False).state_dict()
    assert counts(state)[1] < 5_200_000
    assert counts(state, "point_head.") == (0, 0)


def test_without_its_point_head_the_network_is_the_same(vggt: Vggt, config: VggtConfig, images: Tensor) -> None:
    lesser = Vggt(config, points=False)
    state = {name: tensor for name, tensor in vggt.state_dict().items() if not name.startswith("point_head.")}
    lesser.load_state_dict(state, strict=True)
    with torch.no_grad():
        prediction, expected = lesser(images), vggt(images)
    assert prediction.points is None
    assert prediction.points_confidence is None
    assert torch.equal(prediction.pose, expected.pose)
    assert torch.equal(prediction.depth, expected.depth)


@pytest.mark.parametrize("frames", [1, 3])
def test_the_program_takes_bytes_and_gives_what_its_signature_says(vggt: Vggt, frames: int) -> None:
    pictures = torch.randint(0, 256, (frames, 42, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    given = LocalProgram(VggtProgram(vggt), VGGT)({"IMAGES": pictures})
    expected = vggt(pictures.permute(0, 3, 1, 2).float()[None] / 255)
    for spec, wanted in zip(VGGT.outputs, (expected.pose, expected.depth, expected.depth_confidence), strict=True):
        assert tuple(given[spec.name].shape) == spec.sizes({"s": frames, "H": 42, "W": 70})
        assert given[spec.name].dtype == spec.cpu_dtype
        assert torch.equal(given[spec.name], wanted[0])
    assert list(given) == [spec.name for spec in VGGT.outputs]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 42, 70, 3), r"IMAGES has shape \[0, 42, 70, 3\], every size must be at least 1"),
        ((2, 42, 70, 4), r"IMAGES has shape \[2, 42, 70, 4\], legal is \[s, H, W, 3\]"),
        ((42, 70, 3), r"IMAGES has shape \[42, 70, 3\], legal is \[s, H, W, 3\]"),
        ((2, 43, 70, 3), "70x43 px; legal: sides that are multiples of 14"),
        ((2, 42, 69, 3), "69x42 px; legal: sides that are multiples of 14"),
        ((2, 10, 10, 3), "10x10 px; legal: sides that are multiples of 14"),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_pictures_that_the_program_cannot_take_are_refused(vggt: Vggt, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        LocalProgram(VggtProgram(vggt), VGGT)({"IMAGES": torch.zeros(shape, dtype=torch.uint8)})


@pytest.mark.parametrize("change", [lambda x: x.flip(-1), lambda x: x.flip(-2)], ids=["columns", "rows"])
def test_the_network_knows_where_a_patch_lies(vggt: Vggt, change: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Without codes of place, a mirrored picture of flat patches would give mirrored depth."""
    flat = images[..., ::14, ::14].repeat_interleave(14, -2).repeat_interleave(14, -1)
    vggt.aggregator.patch_embed.pos_embed.zero_()
    tokens = vggt.aggregator(flat)[-1][:, :, 5:].unflatten(2, (3, 5)).movedim(-1, 2)  # [2,3,c,3,5]
    mirrored = vggt.aggregator(change(flat))[-1][:, :, 5:].unflatten(2, (3, 5)).movedim(-1, 2)
    assert float((change(mirrored) - tokens).abs().max()) > 0.05


def test_every_norm_has_the_released_epsilon() -> None:
    """None of them shows in outputs of ordinary weights, all of them count for the released ones."""
    with torch.device("meta"):
        vggt = Vggt(VGGT_1B)
    norms = {name: module for name, module in vggt.named_modules() if isinstance(module, nn.LayerNorm)}
    small = {name for name in norms if name.startswith("aggregator.patch_embed.")} | {"camera_head.adaln_norm"}
    assert len(small) == 2 * 24 + 1 + 1
    assert len(norms) - len(small) == 48 * 4 + 2 + 2 * 4 + 2  # aggregator, camera head and its trunk, dense heads
    for name, norm in norms.items():
        assert norm.eps == (1e-6 if name in small else 1e-5), name
        assert norm.elementwise_affine == (name != "camera_head.adaln_norm")
