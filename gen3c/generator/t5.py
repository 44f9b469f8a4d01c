"""Text conditions by a T5 encoder; GEN3C's is that of google-t5/t5-11b.

The network and its tokenizer are read from a folder in transformers' layout, which the optional extra `text` installs.
Nothing is downloaded and no code of a checkpoint is run. What was encoded once is kept (gen3c.generator.text_cache),
so a deployment may also ship embeddings alone.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.t5_folder import UNREADABLE, open_folder
from gen3c.generator.text import EmptyText, TextEncoder, Warn
from gen3c.generator.text_cache import Embedding, TextCache, cached_identities
from gen3c.presets import DitConfig, Preset
from gen3c.weight_files import PACKAGED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

NETWORK_FOLDER = "text_encoder"  # in a checkpoint directory: T5EncoderModel and tokenizer
CACHE_FOLDER = "text_embeddings"  # in a checkpoint directory
HASHES_FILE = "encoder_hashes.json"  # in the folder of embeddings: what the weights hashed to, when they were read

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}  # float16 overflows in T5's feed-forward layers
_KEPT_IN_MEMORY = 16  # embeddings, of 1 MiB at most for the released network


def load_text(
    preset: Preset, directory: Path | None = None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> TextEncoder:
    """The text encoder of a checkpoint directory (None: of the package), zeros where it has none.

    It has one if there is `text_encoder/` (T5EncoderModel and tokenizer in transformers' layout) or
    `text_embeddings/` (what T5Text kept). Raises what T5Text does.
    """
    directory = directory or PACKAGED / preset.name
    network, cache = directory / NETWORK_FOLDER, directory / CACHE_FOLDER
    if not network.is_dir() and not cached_identities(cache):
        return EmptyText(preset.dit)
    return T5Text(preset.dit, network if network.is_dir() else None, cache, device=device, dtype=dtype)


class T5Text:
    """A `TextEncoder`: the last hidden states of T5's encoder, rows past the text's length zero.

    Values are rounded to bfloat16, as the released network was given them. A text of more tokens than the network
    reads is cut off, its end token kept, as in GEN3C. The network is loaded when a text is first met that is not
    cached, and stays.
    """

    def __init__(
        self,
        config: DitConfig,
        network: Path | None,  # folder in transformers' layout; None: cached texts alone
        cache: Path,  # folder of embeddings; made when something is kept
        *,
        device: str = "cpu",  # of the network; a prompt takes seconds on a CPU, and 19 GB that a GPU may need
        dtype: torch.dtype = torch.float32,  # of the network's weights; GEN3C's default
    ) -> None:
        """Read the sizes of the network and every file's hash, but do not load it.

        Raises InvalidInputError for a folder that does not hold the whole of a T5 encoder of the width that `config`
        asks for (a truncated file, names or shapes other than its config.json's), another dtype than float32 or
        bfloat16, or, without a network, embeddings of no or of several encoders. Values that are not finite and a
        tokenizer that does not fit are found when the first text is encoded.
        """
        if find_spec("transformers") is None:
            raise InvalidInputError(
                "The checkpoints have a text encoder, which needs transformers; install gen3c-triton[text].",
                field="checkpoint",
            )
        if dtype not in _DTYPES:
            raise InvalidInputError(f"The text encoder's dtype is {dtype}; legal: {', '.join(_DTYPES.values())}.")
        self._config = config
        self._device, self._dtype = device, dtype
        self._folder = network
        if network is None:
            self.identity = _only_identity(cache)
        else:
            self.identity = open_folder(network, config.text_dim).identity(_DTYPES[dtype], cache / HASHES_FILE)
        self._cache = TextCache(cache, self.identity, config)
        self._recent: OrderedDict[str, Embedding] = OrderedDict()
        self._network: _Network | None = None
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

        Raises InvalidInputError as `check` does, RuntimeError for a network that cannot be loaded (the prompt's author
        can do nothing about that), and FloatingPointError if the embedding is not finite.
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
            self._network = self._network or _Network.load(self._folder, self._device, self._dtype)
            embedding = self._network.encode(prompt, self._config.text_tokens)
            self._cache.save(prompt, embedding)
        self._recent[prompt] = embedding
        if len(self._recent) > _KEPT_IN_MEMORY:
            self._recent.popitem(last=False)
        return embedding


@dataclass(frozen=True)
class _Network:
    model: "T5EncoderModel"
    tokenizer: "PreTrainedTokenizerBase"

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype) -> "_Network":
        """Read it whole in main memory first; raises RuntimeError with what is wrong with it."""
        from transformers import AutoTokenizer, T5EncoderModel

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, report = T5EncoderModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, dtype=dtype, output_loading_info=True
            )
        except UNREADABLE as error:
            raise RuntimeError(f"{folder} cannot be loaded: {error}") from error
        # What a file lacks is drawn at random by transformers, with a warning. Its decoder is not ours to miss.
        if report["missing_keys"]:
            listing = "".join(f"\n  {key} is missing" for key in sorted(report["missing_keys"]))
            raise RuntimeError(f"{folder} does not hold the whole network:{listing}")
        empty = tokenizer("").input_ids
        if empty != [model.config.eos_token_id] or len(tokenizer) > model.config.vocab_size:
            raise RuntimeError(
                f"The tokenizer in {folder} has {len(tokenizer)} tokens and turns the empty text into {empty}; legal "
                f"are up to {model.config.vocab_size}, and [{model.config.eos_token_id}]."
            )
        return cls(model.eval().requires_grad_(False).to(device), tokenizer)

    @torch.inference_mode()
    def encode(self, prompt: str, max_tokens: int) -> Embedding:
        """The embedding of the first `max_tokens` tokens, the last of which is the end token.

        Only these go through the network: padding, which is masked out in GEN3C, changes nothing but the time.
        """
        tokens = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
        read = tokens if len(tokens) <= max_tokens else [*tokens[: max_tokens - 1], tokens[-1]]
        states = self.model(torch.tensor([read], device=self.model.device)).last_hidden_state[0]
        if not states.isfinite().all():
            raise FloatingPointError("The embedding of the prompt is not finite.")
        return Embedding(states.to("cpu", torch.bfloat16).clone(), len(tokens))


def _only_identity(cache: Path) -> str:
    """The encoder of a folder that holds embeddings alone."""
    identities = cached_identities(cache)
    if len(identities) != 1:
        raise InvalidInputError(
            f"{cache} holds embeddings of {len(identities)} text encoders; legal without {NETWORK_FOLDER} is one.",
            field="checkpoint",
        )
    return identities[0]
