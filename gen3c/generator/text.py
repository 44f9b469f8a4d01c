"""Text conditions."""

from typing import Protocol

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.presets import DitConfig


class TextEncoder(Protocol):
    """A prompt to its embedding, [1,tokens,text_dim] float32."""

    def __call__(self, prompt: str) -> Tensor: ...


class EmptyText:
    """The condition of a deployment without a text encoder: zeros, as the reference does with its encoder disabled."""

    def __init__(self, config: DitConfig) -> None:
        self._shape = (1, config.text_tokens, config.text_dim)

    def __call__(self, prompt: str) -> Tensor:
        """Zeros [1,tokens,text_dim] for the empty prompt; raises InvalidInputError for any other."""
        if prompt.strip():
            raise InvalidInputError(
                f"prompt is {prompt!r}, but this deployment has no text encoder; legal is an empty prompt.",
                field="spec.prompt",
            )
        return torch.zeros(self._shape)
