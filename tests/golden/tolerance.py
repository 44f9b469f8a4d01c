"""How far an array may be from its reference, and how far it is.

Every tolerance gives the error in the unit that it judges by, so a reader can compare the two numbers of a line. A NaN
equals a NaN and an infinity the same infinity; anything else that is not finite is infinitely wrong.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """One comparison."""

    error: float
    allowed: float
    measure: str  # what both are, for example "max abs"
    ok: bool

    @property
    def use(self) -> float:
        """The part of the tolerance that is used up; 1 is all of it."""
        if math.isnan(self.error):
            return math.inf
        if not self.error:
            return 0.0
        return self.error / self.allowed if self.allowed else math.inf


class Tolerance(Protocol):
    """Judges an array against its reference; both have the same shape, which is not empty."""

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict: ...


@dataclass(frozen=True)
class Absolute:
    """Every value within `limit`."""

    limit: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        error = float(difference(ours, expected).max())
        return Verdict(error, self.limit, "max abs", error <= self.limit)


@dataclass(frozen=True)
class MaxAndMean:
    """Every value within `limit`, and the mean of the differences within `mean`."""

    limit: float
    mean: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        off = difference(ours, expected)
        error, mean = float(off.max()), float(off.mean())
        ok = error <= self.limit and mean <= self.mean
        return Verdict(error, self.limit, f"max abs; mean {mean:.2g} of {self.mean:g}", ok)


@dataclass(frozen=True)
class Relative:
    """Every value within `limit` of its reference's size; a reference of 0 must be met exactly."""

    limit: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        error = float(_ratio(difference(ours, expected), expected.double().abs()).max())
        return Verdict(error, self.limit, "relative", error <= self.limit)


@dataclass(frozen=True)
class Close:
    """Every value within `absolute` plus `relative` times its reference's size."""

    absolute: float
    relative: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        allowed = self.absolute + self.relative * torch.nan_to_num(expected.double().abs(), posinf=0.0)
        error = float(_ratio(difference(ours, expected), allowed).max())
        return Verdict(error, 1.0, f"of {self.absolute:g} + {self.relative:g}|x|", error <= 1)


@dataclass(frozen=True)
class RelativeToMax:
    """Every value within `limit` of the largest absolute reference value of its own entry along axis 0."""

    limit: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        largest = expected.double().abs().flatten(1).amax(1)
        error = float(_ratio(difference(ours, expected).flatten(1).amax(1), largest).max())
        return Verdict(error, self.limit, "of its step's maximum", error <= self.limit)


@dataclass(frozen=True)
class OnShare:
    """At least `share` of the pixels within `limit`. A pixel is off if any of its channels is."""

    limit: float
    share: float
    channels: int | None = -3  # axis of the channels; None: the array has none

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        off = ~(difference(ours, expected) <= self.limit)
        if self.channels is not None:
            off = off.any(dim=self.channels)
        error = float(off.double().mean())
        allowed = 1 - self.share
        # The count decides, so that a share such as 0.95 of 960 pixels does not hang on the last bit of a float.
        ok = int(off.sum()) <= math.floor(allowed * off.numel() + 1e-6)
        return Verdict(error, allowed, f"share of pixels off by > {self.limit:g}", ok)


@dataclass(frozen=True)
class Exact:
    """At least `share` of the values equal."""

    share: float = 1.0

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        off = ~(difference(ours, expected) == 0)
        error, allowed = float(off.double().mean()), 1 - self.share
        ok = int(off.sum()) <= math.floor(allowed * off.numel() + 1e-6)
        return Verdict(error, allowed, "share that differs", ok)


@dataclass(frozen=True)
class Bfloat16Steps:
    """Every value within `steps` neighbours on the grid of bfloat16; both sides are on that grid.

    Towards 0 neighbours come arbitrarily close, so float32 noise from before the rounding crosses many of them.
    Neighbours closer than `finest`, which is what those numbers may differ by themselves, therefore count as one step.
    """

    steps: int
    finest: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        neighbours = (_rank(ours) - _rank(expected)).abs().double()
        counted = torch.minimum(neighbours, difference(ours, expected) / self.finest)
        on_grid = torch.equal(ours.float().bfloat16().float(), ours.float())
        error = float(counted.max()) if on_grid else math.inf
        return Verdict(error, self.steps, "bfloat16 steps", error <= self.steps)


@dataclass(frozen=True)
class Levels:
    """Every value within `levels`, and at most `share` of the pixels off at all. The last axis holds the channels."""

    levels: int
    share: float

    def __call__(self, ours: Tensor, expected: Tensor) -> Verdict:
        off = difference(ours, expected)
        error, share = float(off.max()), float((off != 0).any(dim=-1).double().mean())
        ok = error <= self.levels and share <= self.share
        return Verdict(error, self.levels, f"levels; {share:.3%} of {self.share:.3%} of pixels off", ok)


def difference(ours: Tensor, expected: Tensor) -> Tensor:
    """Absolute differences in float64; 0 where both are the same, NaN and infinity included, else infinite there."""
    a, b = ours.detach().cpu().double(), expected.double()
    same = (a == b) | (a.isnan() & b.isnan())
    off = torch.nan_to_num((a - b).abs(), nan=math.inf, posinf=math.inf)
    return torch.where(same, 0.0, off)


def _ratio(off: Tensor, size: Tensor) -> Tensor:
    """off / size, 0 where both are 0."""
    return torch.where(off == 0, 0.0, off / size)


def _rank(x: Tensor) -> Tensor:
    """The place of each value in the order of all bfloat16 numbers; -0 and 0 share one."""
    bits = x.detach().cpu().bfloat16().view(torch.int16).long()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
