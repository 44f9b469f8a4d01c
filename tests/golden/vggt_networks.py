"""VGGT's networks, whole and in parts. Weights travel in each file as `w:<name>`, sizes as JSON."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gen3c.geometry.vggt.aggregator import Aggregator
from gen3c.geometry.vggt.camera_head import ITERATIONS, CameraHead
from gen3c.geometry.vggt.dense_head import DenseHead, depth_of, points_of, position_codes, position_grid
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.pose import decode_pose
from gen3c.geometry.vggt.rope import patch_positions, rope_tables, rotate
from gen3c.geometry.vggt.vision_transformer import VisionTransformer, positional_embedding
from gen3c.presets import VggtConfig
from tests.golden.tolerance import Absolute, Close, Exact
from tests.golden.vectors import Check, Vectors

OUTPUT = Close(2e-5, 2e-5)
EXTRINSIC = Absolute(1e-4)
INTRINSIC = Close(1e-3, 1e-4)
ROPE_BASE = 100.0  # of the vectors that do not name another

Module = TypeVar("Module", bound=nn.Module)


def config_of(v: Vectors) -> dict[str, Any]:
    """The sizes of a file."""
    sizes: dict[str, Any] = json.loads(bytes(v.input("config_json").numpy()))
    return sizes


def check_full_model(v: Vectors) -> None:
    """`caseN:images` to every output; the camera after every iteration, too."""
    model = loaded(Vggt(_vggt_config(config_of(v))), v)
    patch = model.config.patch
    for match in v.matching(r"(case\d+):images"):
        case, images = match[1], v.input(match[0])
        size = (images.shape[3], images.shape[4])
        prediction = model(images)
        # All frames of the dense heads at once, or a few at a time: the same.
        for at_once in (None, 1):
            other = model(images, frames_at_once=at_once)
            torch.testing.assert_close(other.depth, prediction.depth, rtol=1e-5, atol=1e-5)
        tokens = model.aggregator(images)[-1]
        v.check(f"{case}:pose_enc_list", model.camera_head(tokens), OUTPUT)
        v.check(f"{case}:pose_enc", prediction.pose, OUTPUT)
        v.check(f"{case}:depth", prediction.depth[..., None], OUTPUT)
        v.check(f"{case}:depth_conf", prediction.depth_confidence, OUTPUT)
        v.check(f"{case}:world_points", prediction.points, OUTPUT)
        v.check(f"{case}:world_points_conf", prediction.points_confidence, OUTPUT)
        w2c, K = decode_pose(prediction.pose, size)
        v.check(f"{case}:extrinsic", w2c[..., :3, :], EXTRINSIC)
        v.check(f"{case}:intrinsic", K, INTRINSIC)
        assert size[0] % patch == size[1] % patch == 0


def check_aggregator(v: Vectors) -> None:
    """Every level, kept for once."""
    sizes = config_of(v)
    config = _vggt_config(sizes | {"layers": range(sizes["depth"])})
    aggregator = loaded(Aggregator(config), v)
    patches: list[Tensor] = []
    aggregator.patch_embed.register_forward_hook(
        lambda _module, _inputs, out: patches.append(out[:, 1 + config.registers :])
    )
    for match in v.matching(r"(case\d+):images"):
        tokens = aggregator(v.input(match[0]))
        v.check(f"{match[1]}:tokens", torch.stack(tokens), OUTPUT)
        v.check(f"{match[1]}:patch_tokens", patches.pop(), OUTPUT)
        v.check(f"{match[1]}:patch_start_idx", torch.tensor(config.special_tokens), Exact())


def check_patch_embed(v: Vectors) -> None:
    """DINOv2 alone, and its position table at other sizes."""
    sizes = config_of(v)
    registers = v.input("w:register_tokens").shape[1]
    vit = loaded(
        VisionTransformer(
            sizes["dim"],
            sizes["vit_depth"],
            sizes["vit_heads"],
            image_side=sizes["img_size"],
            patch=sizes["patch_size"],
            registers=registers,
        ),
        v,
    )
    for match in v.matching(r"(case\d+):images"):
        case, images = match[1], v.input(match[0])
        tokens = vit(images)
        v.check(f"{case}:x_norm_clstoken", tokens[:, 0], OUTPUT)
        v.check(f"{case}:x_norm_regtokens", tokens[:, 1 : 1 + registers], OUTPUT)
        v.check(f"{case}:x_norm_patchtokens", tokens[:, 1 + registers :], OUTPUT)
        table = positional_embedding(vit.pos_embed, images.shape[2], images.shape[3], vit.patch)
        v.check(f"{case}:pos_embed_interp", table, OUTPUT)
    for match in v.matching(r"(\w+):interp_(\d+)x(\d+)"):
        table = v.input(f"{match[1]}:pos_embed")
        v.check(match[0], positional_embedding(table, int(match[2]), int(match[3]), sizes["patch_size"]), OUTPUT)


def check_camera_head(v: Vectors) -> None:
    """`caseN:out_iterM`: M iterations."""
    sizes = config_of(v)
    head = loaded(CameraHead(sizes["dim_in"], sizes["trunk_depth"], sizes["cam_heads"], _mlp_ratio(v, "trunk.0.")), v)
    for match in v.matching(r"(case\d+):out_iter(\d+)"):
        v.check(match[0], head(v.input(f"{match[1]}:tokens"), int(match[2])), OUTPUT)
    assert ITERATIONS == 4


def check_dpt_head(v: Vectors) -> None:
    """Both dense heads, their positional maps and their residual unit."""
    sizes = config_of(v)
    heads = nn.ModuleDict(
        {
            name: DenseHead(sizes["dim_in"], sizes["features"], sizes["out_channels"], out, sizes["patch_size"])
            for name, out in (("depth_head", 2), ("point_head", 4))
        }
    )
    loaded(heads, v)
    for match in v.matching(r"(case\d+):image_hw"):
        height, width = (int(x) for x in v.input(match[0]))
        levels = [v.input(f"{match[1]}:tokens_layer{layer}") for layer in sizes["layers"]]
        b, s, tokens = levels[0].shape[:3]
        special = tokens - (height // sizes["patch_size"]) * (width // sizes["patch_size"])
        for name, activate in (("depth_head", depth_of), ("point_head", points_of)):
            logits = heads[name]([x.flatten(0, 1) for x in levels], (height, width), special)
            values, confidence = (x.unflatten(0, (b, s)) for x in activate(logits))
            v.check(f"{match[1]}:{name}:logits", logits, OUTPUT)
            v.check(f"{match[1]}:{name}:pred", values[..., None] if values.ndim == 4 else values, OUTPUT)
            v.check(f"{match[1]}:{name}:conf", confidence, OUTPUT)
    for match in v.matching(r"uv:(\d+)x(\d+):aspect"):
        width, height, aspect = int(match[1]), int(match[2]), v.number(match[0])
        place = f"uv:{width}x{height}"
        x, y = position_grid(width, height, aspect)
        grid = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), dim=-1)
        v.check(f"{place}:grid", grid, Absolute(1e-6))
        channels = v.expected(f"{place}:embed").shape[-1]
        columns, rows = position_codes(width, height, aspect, channels)
        code = torch.cat((columns.T.expand(height, -1, -1), rows.T[:, None].expand(-1, width, -1)), dim=-1)
        v.check(f"{place}:embed", code, Absolute(2e-5))
    unit = heads["depth_head"].scratch.refinenet1.resConfUnit1
    v.check("rcu:output", unit(v.input("rcu:input")), OUTPUT)


def check_rope(v: Vectors) -> None:
    """Positions of any kind; where they are those of a frame, ours are the same."""
    config_of(v)
    for match in v.matching(r"(case\d+):out"):
        case = match[1]
        tokens, positions = v.input(f"{case}:tokens"), v.input(f"{case}:positions")
        rows, columns = (int(x) for x in v.input(f"{case}:grid_hw"))
        special = positions.shape[1] - rows * columns
        if special > 0 and not positions[0, :special].any():
            torch.testing.assert_close(patch_positions(rows, columns, special), positions[0], rtol=0, atol=0)
        cos, sin = rope_tables(positions, tokens.shape[-1], ROPE_BASE)
        v.check(match[0], rotate(tokens, (cos[:, None], sin[:, None])), OUTPUT)


def loaded(module: Module, v: Vectors) -> Module:
    """`module` with the file's weights, every one of them and no other."""
    weights = {match[1]: v.input(match[0]) for match in v.matching(r"w:(.*)")}
    module.load_state_dict(weights, strict=True)
    return module.eval()


def _mlp_ratio(v: Vectors, block: str) -> int:
    hidden, width = v.input(f"w:{block}mlp.fc1.weight").shape
    return int(hidden // width)


def _vggt_config(sizes: Mapping[str, Any]) -> VggtConfig:
    heads = sizes.get("cam_heads", 1)
    return VggtConfig(
        name="VGGT-tiny",
        image_side=sizes["img_size"],
        width=sizes["dim"],
        heads=sizes["heads"],
        depth=sizes["depth"],
        levels=tuple(sizes["layers"]),
        vit_depth=sizes["vit_depth"],
        vit_heads=sizes["vit_heads"],
        camera_depth=sizes.get("trunk_depth", 0),
        camera_heads=heads,
        features=sizes.get("features", 0),
        out_channels=tuple(sizes.get("out_channels", ())),
        patch=sizes["patch_size"],
        registers=sizes["num_register_tokens"],
        mlp_ratio=sizes.get("mlp_ratio", 4),
        rope_base=float(sizes["rope_frequency"]),
    )


CHECKS: dict[str, Check] = {
    "full_model": check_full_model,
    "aggregator": check_aggregator,
    "patch_embed": check_patch_embed,
    "camera_head": check_camera_head,
    "dpt_head": check_dpt_head,
    "rope2d": check_rope,
}
