"""Text conditions by a T5 encoder; GEN3C's is that of google-t5/t5-11b.

The network and its tokenizer are read from a folder in transformers' layout, which the optional extra `text` installs.
Nothing is downloaded and no code of a checkpoint is run. What was encoded once is kept (gen3c.generator.text_cache),
so a deployment may also ship embeddings alone.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.t5_folder import (
    CACHE_FOLDER,
    HASHES_FILE,
    NETWORK_FOLDER,
    UNREADABLE,
    open_folder,
    require_transformers,
)
from gen3c.generator.text import EmptyText, TextEncoder, Warn
from gen3c.generator.text_cache import Embedding, TextCache, cached_identities
from gen3c.generator.text_program import TEXT_ENCODER, read_network
from gen3c.presets import DitConfig, Preset
from gen3c.program import LocalProgram, Program
from gen3c.weight_files import PACKAGED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["CACHE_FOLDER", "HASHES_FILE", "NETWORK_FOLDER", "T5Text", "load_text"]

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}  # float16 overflows in T5's feed-forward layers
_KEPT_IN_MEMORY = 16  # embeddings, of 1 MiB at most for the released network


def load_text(
    preset: Preset,
    directory: Path | None = None,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    network: Program | None = None,
) -> TextEncoder:
    """The text encoder of a checkpoint directory (None: of the package), zeros where it has none.

    It has one if there is `text_encoder/` (T5EncoderModel and tokenizer in transformers' layout) or
    `text_embeddings/` (what T5Text kept). `network` is the program TEXT_ENCODER with that very folder's weights in
    `dtype`, None: the folder's is loaded in this process. Raises what T5Text does.
    """
    directory = directory or PACKAGED / preset.name
    folder, cache = directory / NETWORK_FOLDER, directory / CACHE_FOLDER
    if network is None and not folder.is_dir() and not cached_identities(cache):
        return EmptyText(preset.dit)
    return T5Text(preset.dit, folder if folder.is_dir() else None, cache, device=device, dtype=dtype, program=network)


class T5Text:
    """A `TextEncoder`: the last hidden states of T5's encoder, rows past the text's length zero.

    Values are rounded to bfloat16, as the released network was given them. A text of more tokens than the network
    reads is cut off, its end token kept, as in GEN3C. The tokenizer, and the network unless one is given, are loaded
    when a text is first met that is not cached, and stay.
    """

    def __init__(
        self,
        config: DitConfig,
        network: Path | None,  # folder in transformers' layout; None: cached texts alone
        cache: Path,  # folder of embeddings; made when something is kept
        *,
        device: str = "cpu",  # of the network; a prompt takes seconds on a CPU, and 19 GB that a GPU may need
        dtype: torch.dtype = torch.float32,  # of the network's weights; GEN3C's default
        program: Program | None = None,  # the folder's network, which runs somewhere else; None: here, on `device`
    ) -> None:
        """Read the sizes of the network and every file's hash, but do not load it.

        Raises InvalidInputError for a folder that does not hold the whole of a T5 encoder of the width that `config`
        asks for (a truncated file, names or shapes other than its config.json's), another dtype than float32 or
        bfloat16, a program without a folder, or, without a network, embeddings of no or of several encoders. Values
        that are not finite and a tokenizer that does not fit are found when the first text is encoded.
        """
        require_transformers()
        if dtype not in _DTYPES:
            raise InvalidInputError(f"The text encoder's dtype is {dtype}; legal: {', '.join(_DTYPES.values())}.")
        self._config = config
        self._device, self._dtype = device, dtype
        self._folder, self._program = network, program
        if network is None and program is not None:
            raise InvalidInputError(
                f"There is no {NETWORK_FOLDER} in {cache.parent}; the program {TEXT_ENCODER.name} needs the tokenizer "
                "there.",
                field="checkpoint",
            )
        if network is None:
            self.identity = _only_identity(cache)
        else:
            self.identity = open_folder(network, config.text_dim).identity(_DTYPES[dtype], cache / HASHES_FILE)
        self._cache = TextCache(cache, self.identity, config)
        self._recent: OrderedDict[str, Embedding] = OrderedDict()
        self._encoder: _Encoder | None = None
        self._lock = threading.Lock()

    @property
    def source(self) -> str:
        """Which encoder makes the embeddings."""
        return f"{NETWORK_FOLDER if self._folder else CACHE_FOLDER} (sha256 {self.identity})"

    @property
    def default_negative_prompt(self) -> str:
        """Cosmos' own, as in GEN3C."""
        from diffusers.pipelines.cosmos.pipeline_cosmos_video2world import DEFAULT_NEGATIVE_PROMPT

        return str(DEFAULT_NEGATIVE_PROMPT)

    def check(self, prompt: str, field: str = "spec.prompt") -> None:
        """Raises InvalidInputError for a text that is not cached, where there is no network."""
        if self._folder is None:
            with self._lock:
                self._find(prompt, field)

    def __call__(self, prompt: str, warn: Warn | None = None, field: str = "spec.prompt") -> Tensor:
        """The embedding, [1,tokens,text_dim] float32 on the CPU; zero past the text's length.

        Raises InvalidInputError as `check` does, RuntimeError for a network that cannot be loaded or does not fit (the
        prompt's author can do nothing about that), FloatingPointError if the embedding is not finite, and what a given
        program raises. After an error nothing is kept.
        """
        with self._lock:
            embedding = self._find(prompt, field)
        if warn is not None and embedding.tokens > len(embedding.rows):
            name = field.rpartition(".")[2]
            warn(f"{name} has {embedding.tokens} tokens, of which the network reads {len(embedding.rows)}.")
        padded = torch.zeros(1, self._config.text_tokens, self._config.text_dim)
        padded[0, : len(embedding.rows)] = embedding.rows.float()
        return padded

    def _find(self, prompt: str, field: str) -> Embedding:
        """From memory, from the cache, or from the network if there is one."""
        embedding = self._recent.pop(prompt, None) or self._cache.load(prompt)
        if embedding is None:
            if self._folder is None:
                shown = prompt if len(prompt) <= 80 else f"{prompt[:77]}..."
                raise InvalidInputError(
                    f"{field.rpartition('.')[2]} is {shown!r}, but this deployment has no text encoder, only the "
                    "embeddings of certain texts; legal is one of these.",
                    field=field,
                )
            self._encoder = self._encoder or self._load(self._folder)
            embedding = self._encoder.encode(prompt, self._config)
            self._cache.save(prompt, embedding)
        self._recent[prompt] = embedding
        if len(self._recent) > _KEPT_IN_MEMORY:
            self._recent.popitem(last=False)
        return embedding

    def _load(self, folder: Path) -> "_Encoder":
        """Raises RuntimeError with what is wrong with the tokenizer, or with the network if it is to run here."""
        try:
            tokenizer = _load_tokenizer(folder)
            if self._program is not None:
                return _Encoder(tokenizer, self._program)
            network = read_network(folder, device=self._device, dtype=self._dtype)
        except InvalidInputError as error:
            raise RuntimeError(str(error)) from error
        return _Encoder(tokenizer, LocalProgram(network, TEXT_ENCODER))


@dataclass(frozen=True)
class _Encoder:
    tokenizer: "PreTrainedTokenizerBase"
    program: Program

    def encode(self, prompt: str, config: DitConfig) -> Embedding:
        """The embedding of the first tokens that the network reads, the last of which is the end token.

        Only these go through the network: padding, which is masked out in GEN3C, changes nothing but the time.
        """
        tokens, most = self.tokenizer(prompt, truncation=False, verbose=False).input_ids, config.text_tokens
        read = tokens if len(tokens) <= most else [*tokens[: most - 1], tokens[-1]]
        return Embedding(self._rows(torch.tensor([read]), config.text_dim), len(tokens))

    def _rows(self, tokens: Tensor, width: int) -> Tensor:
        """The states of tokens [1,n] in memory of their own, [n,text_dim] bfloat16 on the CPU."""
        try:
            states = self.program({"TOKENS": tokens})["STATES"]
        except InvalidInputError as error:  # of the program's caller, which the prompt's author is not
            raise RuntimeError(f"The text encoder cannot run: {error}") from error
        expected = [1, tokens.shape[1], width]
        if list(states.shape) != expected:
            raise RuntimeError(f"The text encoder gave states of shape {list(states.shape)}; legal is {expected}.")
        if not states.isfinite().all():
            raise FloatingPointError("The embedding of the prompt is not finite.")
        return states[0].to("cpu", torch.bfloat16).clone()


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder in transformers' layout; raises InvalidInputError if it does not fit the network."""
    from transformers import AutoTokenizer, T5Config

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config: Any = T5Config.from_pretrained(folder, local_files_only=True)
        empty = tokenizer("").input_ids
    except UNREADABLE as error:
        raise InvalidInputError(f"{folder} cannot be loaded: {error}", field="checkpoint") from error
    if empty != [config.eos_token_id] or len(tokenizer) > config.vocab_size:
        raise InvalidInputError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens and turns the empty text into {empty}; legal "
            f"are up to {config.vocab_size}, and [{config.eos_token_id}].",
            field="checkpoint",
        )
    return tokenizer


def _only_identity(cache: Path) -> str:
    """The encoder of a folder that holds embeddings alone."""
    identities = cached_identities(cache)
    if len(identities) != 1:
        raise InvalidInputError(
            f"{cache} holds embeddings of {len(identities)} text encoders; legal without {NETWORK_FOLDER} is one.",
            field="checkpoint",
        )
    return identities[0]
