"""What the released checkpoints hold beside what we use: the tracker, 394 tensors whose names begin with `track_head.`.

Their shapes are here so that a file can be checked whole.
"""

from collections.abc import Iterator

from gen3c.presets import VggtConfig

FEATURES = 128  # of the tracker's own dense head, and of a track
LEVELS, RADIUS = 7, 4  # of the correlation pyramid
HIDDEN = 384  # of the update transformer
BLOCKS = 6
VIRTUAL_TRACKS = 64
CORRELATIONS = LEVELS * (2 * RADIUS + 1) ** 2
UPDATE_INPUT = 3 * FEATURES + 4  # displacement code, correlations, features; displacement twice

PREFIX = "track_head."
Shape = tuple[int, ...]


def tracker_shapes(config: VggtConfig) -> dict[str, Shape]:
    """Names and shapes of the tracker's tensors."""
    return {PREFIX + name: shape for part in (_features(config), _tracker(config)) for name, shape in part}


def _features(config: VggtConfig) -> Iterator[tuple[str, Shape]]:
    """A dense head without its last convolutions, at half the resolution."""
    root, width, channels = "feature_extractor.", 2 * config.width, config.out_channels
    yield from _norm(root + "norm", width)
    for i, c in enumerate(channels):
        yield from _layer(f"{root}projects.{i}", (c, width, 1, 1))
    for i, kernel in ((0, 4), (1, 2), (3, 3)):
        yield from _layer(f"{root}resize_layers.{i}", (channels[i], channels[i], kernel, kernel))
    scratch = root + "scratch."
    square = (FEATURES, FEATURES, 3, 3)
    for i, c in enumerate(channels, 1):
        yield f"{scratch}layer{i}_rn.weight", (FEATURES, c, 3, 3)
        yield from _layer(f"{scratch}refinenet{i}.out_conv", (FEATURES, FEATURES, 1, 1))
        for unit in (2,) if i == len(channels) else (1, 2):
            for conv in (1, 2):
                yield from _layer(f"{scratch}refinenet{i}.resConfUnit{unit}.conv{conv}", square)
    yield from _layer(scratch + "output_conv1", square)


def _tracker(config: VggtConfig) -> Iterator[tuple[str, Shape]]:
    root = "tracker."
    yield root + "query_ref_token", (1, 2, UPDATE_INPUT)
    yield from _layer(root + "corr_mlp.fc1", (HIDDEN, CORRELATIONS))
    yield from _layer(root + "corr_mlp.fc2", (FEATURES, HIDDEN))
    for name in ("fmap_norm", "ffeat_norm"):
        yield from _norm(root + name, FEATURES)
    yield from _layer(root + "ffeat_updater.0", (FEATURES, FEATURES))
    for name in ("vis_predictor.0", "conf_predictor.0"):
        yield from _layer(root + name, (1, FEATURES))
    former = root + "updateformer."
    yield former + "virual_tracks", (1, VIRTUAL_TRACKS, 1, HIDDEN)  # misspelt in the released code
    yield from _norm(former + "input_norm", UPDATE_INPUT)
    yield from _layer(former + "input_transform", (HIDDEN, UPDATE_INPUT))
    yield from _norm(former + "output_norm", HIDDEN)
    yield from _layer(former + "flow_head", (2 + FEATURES, HIDDEN))
    hidden = config.mlp_ratio * HIDDEN
    for kind in ("time_blocks", "space_virtual_blocks", "space_point2virtual_blocks", "space_virtual2point_blocks"):
        crossed = "2" in kind
        attention = "cross_attn" if crossed else "attn"
        for i in range(BLOCKS):
            block = f"{former}{kind}.{i}."
            for norm in ("norm1", "norm2", *(("norm_context",) if crossed else ())):
                yield from _norm(block + norm, HIDDEN)
            yield f"{block}{attention}.in_proj_weight", (3 * HIDDEN, HIDDEN)
            yield f"{block}{attention}.in_proj_bias", (3 * HIDDEN,)
            yield from _layer(f"{block}{attention}.out_proj", (HIDDEN, HIDDEN))
            yield from _layer(block + "mlp.fc1", (hidden, HIDDEN))
            yield from _layer(block + "mlp.fc2", (HIDDEN, hidden))


def _layer(name: str, weight: Shape) -> Iterator[tuple[str, Shape]]:
    transposed = name.endswith(("resize_layers.0", "resize_layers.1"))
    yield name + ".weight", weight
    yield name + ".bias", (weight[1 if transposed else 0],)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield name + ".weight", (width,)
    yield name + ".bias", (width,)
