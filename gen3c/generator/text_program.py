"""The program `text_encoder`: T5's encoder, from the tokens of a text to their last hidden states.

The layers are transformers' own. What is around them is written here, so that a graph of it takes any number of tokens:
positions enter by integers alone, where transformers has a logarithm, whose last bit (which may decide for another
bucket) differs between runtimes.
"""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.generator.t5_folder import CACHE_FOLDER, HASHES_FILE, NETWORK_FOLDER, UNREADABLE, T5Folder, open_folder
from gen3c.presets import Preset
from gen3c.program import Signature, TensorSpec
from gen3c.weight_files import PACKAGED, Provenance

if TYPE_CHECKING:
    from transformers import T5EncoderModel

# `tokens` are those of the text, its end token among them, and no padding: all are read.
TEXT_ENCODER = Signature(
    "text_encoder",
    inputs=(TensorSpec("TOKENS", ("batch", "tokens"), torch.int64, torch.int64),),
    outputs=(TensorSpec("STATES", ("batch", "tokens", "text_dim")),),
)


class TextProgram(nn.Module):
    """The program `text_encoder`. `t5` has transformers' state dict, which is the layout of checkpoints."""

    def __init__(self, t5: "T5EncoderModel") -> None:
        super().__init__()
        self.t5 = t5
        config = t5.config
        self._side = config.relative_attention_num_buckets // 2  # buckets of keys on one side of the query
        self._near = self._side // 2
        self._far = far_starts(self._side, config.relative_attention_max_distance)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [b,n] int64 -> states [b,n,text_dim] in the weights' type.

        A token that is not in the vocabulary makes the states of its row NaN: looked up on a GPU, it would end the
        process.
        """
        embedding, encoder = self.t5.shared, self.t5.encoder
        known = tokens.clamp(0, embedding.num_embeddings - 1)
        states = embedding(known).masked_fill((known != tokens)[..., None], torch.nan)
        bias = self._position_bias(tokens)
        for block in encoder.block:
            states = block(states, None, bias)[0]
        result: Tensor = encoder.final_layer_norm(states)
        return result

    def _position_bias(self, tokens: Tensor) -> Tensor:
        """What each head adds to its scores by where a key lies from the query, [1,heads,n,n]."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        offset = position[None, :] - position[:, None]  # [n,n] of queries and keys
        distance = offset.abs()
        bucket = distance.clamp(max=self._near) + self._side * (offset > 0)
        for start in self._far:
            bucket = bucket + (distance >= start)
        bias: Tensor = self.t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias(bucket)
        return bias.permute(2, 0, 1)[None]


def far_starts(buckets: int, reach: int) -> list[int]:
    """The distances at which T5's wider buckets begin, after the first of them; the last has all from there on.

    Of the `buckets` of one side the first half are one token wide. The others divide the logarithm of what is left up
    to `reach` evenly: number k of `wide` begins at near * (reach / near)^(k / wide), rounded up.
    """
    near = buckets // 2
    wide = buckets - near
    return [next(d for d in count(near) if d**wide >= near ** (wide - k) * reach**k) for k in range(1, wide)]


def find_text_encoder(preset: Preset, directory: Path | None = None) -> T5Folder | None:
    """The encoder of a checkpoint directory (None: of the package), None where it has none; no weight is read.

    Raises InvalidInputError as `open_folder` does.
    """
    folder = _root(preset, directory) / NETWORK_FOLDER
    return open_folder(folder, preset.dit.text_dim) if folder.is_dir() else None


def text_encoder_provenance(preset: Preset, directory: Path | None = None) -> Provenance | None:
    """What `load_text_encoder` would read, None for a deployment without.

    The hash reads the weights once, and is kept beside the embeddings. Raises InvalidInputError as `open_folder` does.
    """
    found = find_text_encoder(preset, directory)
    if found is None:
        return None
    known = _root(preset, directory) / CACHE_FOLDER / HASHES_FILE
    return Provenance(NETWORK_FOLDER, found.digest(known))


def load_text_encoder(
    preset: Preset,
    directory: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TextProgram:
    """The network of a checkpoint directory (None: of the package), in eval mode and without gradients.

    Raises InvalidInputError where there is none (`find_text_encoder` tells), or with what is wrong with it.
    """
    found = find_text_encoder(preset, directory)
    if found is None:
        raise InvalidInputError(
            f"There is no {NETWORK_FOLDER} in {_root(preset, directory)}; legal is a directory that holds a T5 encoder "
            f"of width {preset.dit.text_dim} there.",
            field="checkpoint",
        )
    return read_network(found.folder, device=device, dtype=dtype)


def read_network(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> TextProgram:
    """The network of a folder in transformers' layout, read whole in main memory first.

    Raises InvalidInputError with what is wrong with it. No code of the folder is run.
    """
    from transformers import T5EncoderModel

    try:
        model, report = T5EncoderModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=dtype, output_loading_info=True
        )
    except UNREADABLE as error:
        raise InvalidInputError(f"{folder} cannot be loaded: {error}", field="checkpoint") from error
    # What a file lacks is drawn at random by transformers, with a warning. Its decoder is not ours to miss.
    if report["missing_keys"]:
        listing = "".join(f"\n  {key} is missing" for key in sorted(report["missing_keys"]))
        raise InvalidInputError(f"{folder} does not hold the whole network:{listing}", field="checkpoint")
    return TextProgram(model).eval().requires_grad_(False).to(device)


def _root(preset: Preset, directory: Path | None) -> Path:
    return directory or PACKAGED / preset.name
