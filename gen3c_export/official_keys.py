"""Names of tensors in the published checkpoints, and diffusers' names for them.

GEN3C-Cosmos-7B names the transformer's tensors `net.*`; Cosmos-Tokenize1-CV8x8x8-720p names the tokenizer's
`encoder.*`, `decoder.*`, `quant_conv.*` and `post_quant_conv.*`.
"""

import re
from collections.abc import Callable, Sequence

Rename = tuple[str, str | Callable[[re.Match[str]], str]]

_DIT: Sequence[Rename] = (
    (r"^x_embedder\.proj\.1", "patch_embed.proj"),
    (r"^t_embedder\.1", "time_embed.t_embedder"),
    (r"^affline_norm", "time_embed.norm"),
    (r"^extra_pos_embedder", "learnable_pos_embed"),
    (r"^final_layer\.linear", "proj_out"),
    (r"^final_layer\.adaLN_modulation\.", "norm_out.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.", r"transformer_blocks.\1."),
    (r"(\d)\.adaLN_modulation\.", lambda m: f"norm{int(m[1]) + 1}.linear_"),
    (r"\.0\.block\.attn", ".attn1"),
    (r"\.1\.block\.attn", ".attn2"),
    (r"\.2\.block\.layer1", ".ff.net.0.proj"),
    (r"\.2\.block\.layer2", ".ff.net.2"),
    (r"to_([qkv])\.0", r"to_\1"),
    (r"to_([qk])\.1", r"norm_\1"),
)

_VAE: Sequence[Rename] = (
    (r"\.conv3d", ""),
    (r"\.down\.(\d)", r".down_blocks.\1"),
    (r"\.up\.(\d)", lambda m: f".up_blocks.{2 - int(m[1])}"),
    (r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m[1]) - 1}"),
    (r"mid\.attn_1\.0", "mid_block.attentions.0"),
    (r"mid\.attn_1\.1", "mid_block.temp_attentions.0"),
    (r"\.([qkv])\.(weight|bias)", r".to_\1.\2"),
    (r"proj_out", "to_out.0"),
    (r"\.block\.", ".resnets."),
    (r"(conv\d|conv_in|conv_out)\.0\.", r"\1.conv_s."),
    (r"(conv\d|conv_in|conv_out)\.1\.", r"\1.conv_t."),
    (r"nin_shortcut", "conv_shortcut"),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
)

_DIT_BACK: Sequence[Rename] = (
    (r"^patch_embed\.proj", "x_embedder.proj.1"),
    (r"^time_embed\.t_embedder", "t_embedder.1"),
    (r"^time_embed\.norm", "affline_norm"),
    (r"^learnable_pos_embed", "extra_pos_embedder"),
    (r"^proj_out", "final_layer.linear"),
    (r"^norm_out\.linear_", "final_layer.adaLN_modulation."),
    (r"^transformer_blocks\.(\d+)\.", r"blocks.block\1.blocks."),
    (r"\.norm(\d)\.linear_", lambda m: f".{int(m[1]) - 1}.adaLN_modulation."),
    (r"\.attn1", ".0.block.attn"),
    (r"\.attn2", ".1.block.attn"),
    (r"\.ff\.net\.0\.proj", ".2.block.layer1"),
    (r"\.ff\.net\.2", ".2.block.layer2"),
    (r"to_([qkv])\.", r"to_\1.0."),
    (r"norm_([qk])\.", r"to_\1.1."),
)

_VAE_BACK: Sequence[Rename] = (
    (r"\.conv_s\.", ".0."),
    (r"\.conv_t\.", ".1."),
    (r"\.down_blocks\.(\d)", r".down.\1"),
    (r"\.up_blocks\.(\d)", lambda m: f".up.{2 - int(m[1])}"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1.0"),
    (r"mid_block\.temp_attentions\.0", "mid.attn_1.1"),
    (r"\.to_([qkv])\.", r".\1."),
    (r"to_out\.0", "proj_out"),
    (r"\.resnets\.", ".block."),
    (r"conv_shortcut", "nin_shortcut"),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"(?<!\.norm)\.(weight|bias)$", r".conv3d.\1"),
)

# Constants that the networks build themselves, and training's leftovers.
_DIT_DROPPED = re.compile(r"^logvar\.|^(net\.)?pos_embedder\.|_extra_state$|^(net\.)?accum_")
_VAE_DROPPED = re.compile(r"(^|\.)(wavelets|_arange|patch_size_buffer)$")


def dit_key(official: str) -> str | None:
    """Diffusers' name of a tensor of the published transformer, with or without `net.`; None: not part of it."""
    return None if _DIT_DROPPED.search(official) else _renamed(official.removeprefix("net."), _DIT)


def vae_key(official: str) -> str | None:
    """Diffusers' name of a tensor of the published tokenizer; None: not part of it."""
    return None if _VAE_DROPPED.search(official) else _renamed(official, _VAE)


def official_dit_key(key: str) -> str:
    """The published name, with `net.`, of a tensor of diffusers' transformer: the inverse of `dit_key`."""
    return f"net.{_renamed(key, _DIT_BACK)}"


def official_vae_key(key: str) -> str:
    """The published name of a tensor of diffusers' tokenizer: the inverse of `vae_key`."""
    return _renamed(key, _VAE_BACK)


def _renamed(key: str, renames: Sequence[Rename]) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
