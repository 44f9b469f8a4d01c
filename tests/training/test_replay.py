"""The ring of samples."""

import pytest
import torch

from training.replay import Replay


def test_the_oldest_samples_make_place() -> None:
    ring = Replay(5)
    for first in range(0, 9, 3):
        ring.add({"x": torch.arange(first, first + 3), "y": torch.arange(first, first + 3).float()[:, None] * 2})
    assert len(ring) == 5
    drawn = ring.sample(500, torch.Generator().manual_seed(0))
    assert set(drawn["x"].tolist()) == {4, 5, 6, 7, 8}
    assert torch.equal(drawn["y"][:, 0], drawn["x"] * 2.0)


def test_what_does_not_fit_is_refused() -> None:
    ring = Replay(2)
    with pytest.raises(ValueError, match="empty"):
        ring.sample(1, torch.Generator())
    with pytest.raises(ValueError, match="3 samples"):
        ring.add({"x": torch.zeros(3)})
    ring.add({"x": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"\['y'\]"):
        ring.add({"y": torch.zeros(1)})
