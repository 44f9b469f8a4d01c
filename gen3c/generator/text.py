"""Text conditions."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.presets import DitConfig

Warn = Callable[[str], None]  # takes a sentence for whoever wrote the prompt


class TextEncoder(Protocol):
    """A prompt to its embedding, [1,tokens,text_dim] float32 on the CPU."""

    @property
    def source(self) -> str:
        """What makes the embeddings, for provenance."""

    @property
    def default_negative_prompt(self) -> str:
        """What the unconditional pass reads unless a job says otherwise."""

    def check(self, prompt: str, field: str = "spec.prompt") -> None:
        """Refuse what cannot be encoded, without a run of any network; raises InvalidInputError naming `field`."""

    def __call__(self, prompt: str, warn: Warn | None = None, field: str = "spec.prompt") -> Tensor:
        """The embedding; raises what `check` does. `warn` is told of a prompt whose end the network does not read.

        Both name `field`.
        """


class EmptyText:
    """The condition of a deployment without a text encoder: zeros, as the reference does with its encoder disabled."""

    source = "zeros"
    default_negative_prompt = ""

    def __init__(self, config: DitConfig) -> None:
        self._shape = (1, config.text_tokens, config.text_dim)

    def check(self, prompt: str, field: str = "spec.prompt") -> None:
        """Raises InvalidInputError for any prompt but the empty one."""
        if prompt.strip():
            name = field.rpartition(".")[2]
            raise InvalidInputError(
                f"{name} is {prompt!r}, but this deployment has no text encoder; legal is an empty {name}.",
                field=field,
            )

    def __call__(
        self,
        prompt: str,
        warn: Warn | None = None,  # noqa: ARG002 (nothing is ever cut off)
        field: str = "spec.prompt",
    ) -> Tensor:
        """Zeros [1,tokens,text_dim] for the empty prompt; raises InvalidInputError for any other."""
        self.check(prompt, field)
        return torch.zeros(self._shape)
