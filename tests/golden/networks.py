"""The reference's tiny networks, and the vectors of each alone."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gen3c.generator.dit import Dit
from gen3c.generator.rope import BASE_FPS, RotaryAngles
from gen3c.generator.signatures import LATENT_CHANNELS
from gen3c.generator.vae import Vae, VideoDecoder, VideoEncoder
from gen3c.presets import DitConfig, VaeConfig
from gen3c_export.official_keys import dit_key, vae_key
from tests.golden.tolerance import Absolute
from tests.golden.vectors import Check, Vectors

LATENT = Absolute(1e-5)
VIDEO = Absolute(1e-4)
DIT_OUTPUT = Absolute(1e-4)
ANGLE = Absolute(1e-4)
DIT_FPS = 24.0  # of the network vectors whose name does not say another, if they have one latent frame


def tiny_dit(weights: Vectors) -> Dit:
    """The transformer of dit_tiny_weights, in our own class and strictly loaded."""
    sizes = {match[1]: weights.number(match[0]) for match in weights.matching(r"cfg_(\w+)")}
    count = {name: int(size) for name, size in sizes.items()}
    dit = Dit(
        DitConfig(
            layers=count["num_blocks"],
            heads=count["num_heads"],
            head_dim=count["model_channels"] // count["num_heads"],
            adaln_lora_dim=count["adaln_lora_dim"],
            text_dim=count["crossattn_emb_channels"],
            max_size=(count["max_frames"], count["max_img_h"], count["max_img_w"]),
        )
    )
    patch_size = (count["patch_temporal"], count["patch_spatial"], count["patch_spatial"])
    dit.transformer.rope = RotaryAngles(
        dit.config.head_dim,
        patch_size=patch_size,
        scale=(
            sizes["rope_t_extrapolation_ratio"],
            sizes["rope_h_extrapolation_ratio"],
            sizes["rope_w_extrapolation_ratio"],
        ),
    )
    # A network of other channels or patches fails here: the shapes of its first and last layer differ.
    dit.transformer.load_state_dict(_renamed(weights, dit_key))
    return dit.eval().requires_grad_(False)


def tiny_vae(weights: Vectors, mean: Tensor, std: Tensor) -> Vae:
    """The tokenizer of vae_tiny_weights with latent statistics, [16,latent frames] each."""
    base = int(weights.number("cfg_channels"))
    vae = Vae(VaeConfig((base, 2 * base, 4 * base, 4 * base), (2 * base, 4 * base, 4 * base, 4 * base)), mean.shape[1])
    vae.load_state_dict(_renamed(weights, vae_key) | {"latents_mean": mean, "latents_std": std})
    return vae.eval().requires_grad_(False)


def tiny_vae_beside(v: Vectors, frames: int) -> Vae:
    """The tokenizer of the files beside `v`, for chunks of `frames` frames."""
    wrapper, latent_frames = v.beside("vae_wrapper"), frames // 8 + 1
    mean, std = (wrapper.input(f"{name}_flat").view(LATENT_CHANNELS, -1) for name in ("mean", "std"))
    return tiny_vae(v.beside("vae_tiny_weights"), mean[:, :latent_frames], std[:, :latent_frames])


def check_dit(v: Vectors) -> None:
    """The network's outputs, and within the one called `out` every stage."""
    dit = tiny_dit(v.beside("dit_tiny_weights"))
    x, timesteps, text = v.input("x"), v.input("timesteps"), v.input("crossattn_emb")
    mask, cache = v.input("condition_video_input_mask"), v.input("condition_video_pose")
    padding, random_padding = v.input("padding_mask"), v.input("padding_mask_random")
    base_fps = frame_rate(v, _grid(dit, x))

    def run(fps: float = base_fps, padding_mask: Tensor = padding, keep: float = 1.0) -> Tensor:
        rates = torch.full((len(x), 1), fps)
        out: Tensor = dit(x, timesteps[:, None], mask, cache * keep, text * keep, rates, padding_mask)
        return out

    seen = _outputs(dit.transformer)
    v.check("out", run(), DIT_OUTPUT)
    intermediates = _intermediates(dit, dict(seen), x, base_fps)
    for match in v.matching(r"mid_(\w+)"):
        ours = intermediates[match[1]]
        # Blocks run on flat tokens: the same numbers in the same order.
        v.check(match[0], ours.reshape(v.expected(match[0]).shape), DIT_OUTPUT)
    for match in v.matching(r"out_fps(\d+(?:\.\d+)?)"):
        v.check(match[0], run(fps=float(match[1])), DIT_OUTPUT)
    v.check("out_randpad", run(padding_mask=random_padding), DIT_OUTPUT)
    v.check("out_uncond", run(keep=0.0), DIT_OUTPUT)


def frame_rate(v: Vectors, grid: tuple[int, int, int]) -> float:
    """Frames per second of `out`: the first channel of the angles turns by 24/fps rad from one latent frame on."""
    t, h, w = grid
    if t < 2 or "mid_rope_angles" not in v:
        return DIT_FPS
    return BASE_FPS / float(v.expected("mid_rope_angles").reshape(t, h * w, -1)[1, 0, 0])


def check_vae(v: Vectors) -> None:
    """Both halves of the tokenizer, not normalised; `_T9` is the first 9 frames."""
    weights = v.beside("vae_tiny_weights")
    vae = tiny_vae(weights, torch.zeros(LATENT_CHANNELS, 1), torch.ones(LATENT_CHANNELS, 1))
    video = v.input("video")

    def encode(frames: int) -> Tensor:
        latent: Tensor = vae.quant_conv(vae.encoder(video[:, :, :frames]))
        return latent

    def decode(latent: Tensor) -> Tensor:
        decoded: Tensor = vae.decoder(vae.post_quant_conv(latent))
        return decoded

    v.check("patched", vae.encoder.patch_embed(video), LATENT)
    v.check("encoder_pre_quant", vae.encoder(video), LATENT)
    v.check("latent", encode(video.shape[2]), LATENT)
    v.check("recon", decode(v.expected("latent")), VIDEO)
    for match in v.matching(r"latent_T(\d+)"):
        v.check(match[0], encode(int(match[1])), LATENT)
    for match in v.matching(r"recon_T(\d+)"):
        v.check(match[0], decode(v.expected(f"latent_T{match[1]}")), VIDEO)
    for match in v.matching(r"recon_first(\d+)latents"):
        v.check(match[0], decode(v.expected("latent")[:, :, : int(match[1])]), VIDEO)


def check_vae_wrapper(v: Vectors) -> None:
    """Normalised latents, which our programs scale by sigma_data besides.

    GEN3C never encodes a single picture, so our tokenizer has one table of statistics; a picture's replaces it here.
    """
    video, chunk = v.input("video"), int(v.number("pixel_chunk"))
    v.input("mean_flat"), v.input("std_flat")  # read through tiny_vae_beside
    whole = tiny_vae_beside(v, chunk)
    encoder, decoder = VideoEncoder(whole), VideoDecoder(whole)
    v.check("latent", encoder(video) / 0.5, LATENT)
    v.check("recon", decoder.decode(v.expected("latent") * 0.5), VIDEO)
    chunks = torch.split(torch.cat([video, video.flip(2)], dim=2), chunk, dim=2)
    v.check("latent_two_chunks", torch.cat([encoder(part) for part in chunks], dim=2) / 0.5, LATENT)

    mean, std = (v.input(f"image_{name}")[:, None] for name in ("mean", "std"))
    still = tiny_vae(v.beside("vae_tiny_weights"), mean, std)
    v.check("latent_image", VideoEncoder(still)(video[:, :, :1]) / 0.5, LATENT)
    v.check("recon_image", VideoDecoder(still).decode(v.expected("latent_image") * 0.5), VIDEO)


def check_rope_angles(v: Vectors) -> None:
    """Angles per position of the full-size network; those in bfloat16 are informative."""
    fps = v.number("fps")
    (t, dim_t), (h, dim_h), (w, dim_w) = (v.expected(f"{axis}_fp32").shape for axis in "thw")
    grid, head_dim = (t, h, w), 2 * (dim_t + dim_h + dim_w)
    exact = RotaryAngles(head_dim).axes(grid, fps)
    rounded = RotaryAngles(head_dim, precision="bfloat16").axes(grid, fps)
    for i, axis in enumerate("thw"):
        v.check(f"{axis}_fp32", exact[i], ANGLE)
        v.check(f"{axis}_bf16", rounded[i], ANGLE, informative=True)


def check_dit_weights(v: Vectors) -> None:
    """All names and shapes fit our network, none missing and none left."""
    tiny_dit(v)


def check_vae_weights(v: Vectors) -> None:
    """All names and shapes fit our tokenizer, none missing and none left."""
    tiny_vae(v, torch.zeros(LATENT_CHANNELS, 1), torch.ones(LATENT_CHANNELS, 1))


def _renamed(weights: Vectors, name: Callable[[str], str | None]) -> dict[str, Tensor]:
    """The tensors under diffusers' names; constants that the networks build themselves are read and dropped."""
    tensors = {match[0]: weights.input(match[0]) for match in weights.matching(r"(?!cfg_).*")}
    return {key: tensor for original, tensor in tensors.items() if (key := name(original))}


def _outputs(transformer: nn.Module) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
    """Fills, when the network runs, with the outputs of its stages by module name."""
    seen: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
    stages = re.compile(r"patch_embed|learnable_pos_embed|time_embed|time_embed\.time_proj|transformer_blocks\.\d+")
    for name, module in transformer.named_modules():
        if stages.fullmatch(name):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    return seen


def _grid(dit: Dit, x: Tensor) -> tuple[int, int, int]:
    """Patches along time, height and width of x [b,c,t,h,w]."""
    t, h, w = (size // patch for size, patch in zip(x.shape[2:], dit.transformer.rope.patch_size, strict=True))
    return t, h, w


def _intermediates(
    dit: Dit, seen: dict[str, Tensor | tuple[Tensor, Tensor]], x: Tensor, fps: float
) -> dict[str, Tensor]:
    """The stages under the reference's names."""
    stages = {
        "x_embed": seen["patch_embed"],
        "extra_pos": seen["learnable_pos_embed"],
        "rope_angles": dit.transformer.rope.angles(_grid(dit, x), fps),
        "t_sincos": seen["time_embed.time_proj"],
        "adaln_lora": seen["time_embed"][0],
        "affline_emb": seen["time_embed"][1],
    }
    blocks = {f"block{name.rpartition('.')[2]}": out for name, out in seen.items() if name.startswith("transformer_")}
    return stages | blocks


CHECKS: dict[str, Check] = {
    "dit_tiny": check_dit,
    "dit_tiny_weights": check_dit_weights,
    "vae_tiny": check_vae,
    "vae_tiny_weights": check_vae_weights,
    "vae_wrapper": check_vae_wrapper,
    "rope_angles": check_rope_angles,
}
