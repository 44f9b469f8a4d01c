"""Embeddings of texts that were encoded before, as files: the text encoder is as large as the network it serves."""

import hashlib
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gen3c.presets import DitConfig

logger = logging.getLogger(__name__)

_TENSOR = "embedding"
_TOKENS = "tokens"  # metadata: how many the whole text has


@dataclass(frozen=True)
class Embedding:
    """What a text encoder made of a text."""

    rows: Tensor  # [n,text_dim] bfloat16, one for each token that was read
    tokens: int  # of the whole text; more than n if its end was cut off


class TextCache:
    """A folder with one safetensors file for each text that one encoder has read.

    The file's name is the SHA-256 of the encoder's identity, the number of tokens that are read, and the text; the
    text itself is not kept. Files of another encoder are in another folder. Any file may be deleted at any time.
    """

    def __init__(self, folder: Path, identity: str, config: DitConfig) -> None:
        self._folder = folder / identity
        self._identity = identity
        self._config = config

    def path(self, text: str) -> Path:
        """Where the embedding of `text` is, or would be."""
        key = f"{self._identity}\n{self._config.text_tokens}\n{text}"
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def load(self, text: str) -> Embedding | None:
        """The embedding of `text`; None if there is none, or the file is damaged: it can be made again."""
        path = self.path(text)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                embedding = Embedding(file.get_tensor(_TENSOR), int((file.metadata() or {})[_TOKENS]))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            logger.warning("The cached embedding %s cannot be read and is ignored: %s", path.name, error)
            return None
        if not self._fits(embedding):
            logger.warning("The cached embedding %s does not fit the network and is ignored.", path.name)
            return None
        return embedding

    def save(self, text: str, embedding: Embedding) -> None:
        """Keep it. The file appears whole or not at all; a folder that cannot be written to costs a warning only."""
        path = self.path(text)
        content = save({_TENSOR: embedding.rows.contiguous()}, metadata={_TOKENS: str(embedding.tokens)})
        try:
            write_whole(path, content)
        except OSError as error:
            logger.warning("The embedding %s is not kept: %s", path.name, error)

    def _fits(self, embedding: Embedding) -> bool:
        rows = embedding.rows
        return (
            rows.dtype == torch.bfloat16
            and rows.ndim == 2
            and rows.shape[1] == self._config.text_dim
            and len(rows) == min(embedding.tokens, self._config.text_tokens) > 0
            and bool(rows.isfinite().all())
        )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, which appears whole or not at all, and its folder; raises OSError."""
    unfinished = path.with_suffix(f".{secrets.token_hex(8)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def cached_identities(folder: Path) -> list[str]:
    """The encoders whose embeddings are in a folder."""
    return sorted({path.parent.name for path in folder.glob("*/*.safetensors")})
