import pytest

from gen3c.errors import InvalidInputError
from gen3c.generator.text import EmptyText
from gen3c.presets import GEN3C_7B


def test_the_empty_prompt_is_zeros_of_the_networks_size():
    text = EmptyText(GEN3C_7B.dit)("")
    assert text.shape == (1, 512, 1024)
    assert not text.any()


def test_a_prompt_is_refused_rather_than_ignored():
    with pytest.raises(InvalidInputError, match="'a red barn', but this deployment has no text encoder"):
        EmptyText(GEN3C_7B.dit)("a red barn")
