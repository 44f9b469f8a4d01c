"""One file of reference vectors, and the account of what was done with each of its arrays.

A check reads inputs with `input`, compares results with `check`, and touches every array of the file that way: an
array that is left over counts as a failure, so that no vector can be forgotten.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.golden.tolerance import Tolerance, Verdict


@dataclass(frozen=True)
class Part:
    """Entries of an array that share a tolerance."""

    label: str  # shown behind the array's name
    entries: Tensor  # bool, the leading axes of the array, for example [B,F] or [B,F,N] of [B,F,N,C,H,W]
    tolerance: Tolerance


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    name: str  # gen3c/warp/flow, with the part's label in brackets if it has one
    verdict: Verdict
    informative: bool = False  # reported, but does not gate

    @property
    def failed(self) -> bool:
        return not self.verdict.ok and not self.informative


class Vectors:
    """The arrays of one npz file as tensors.

    `check` and `check_parts` add to `results`; `unchecked` names the arrays that nothing has used so far.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError if the file cannot be read as an npz of plain arrays."""
        self.path = path
        self.name = f"{path.parent.name}/{path.stem}"
        self.results: list[Result] = []
        with np.load(path, allow_pickle=False) as file:
            self._arrays = {key: torch.from_numpy(np.array(file[key])) for key in file.files}
        self._fed: set[str] = set()
        self._compared: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """The names of arrays that `pattern` matches as a whole, in the order of the file."""
        return [match for name in self._arrays if (match := re.fullmatch(pattern, name))]

    def input(self, name: str) -> Tensor:
        """An array that our code is fed; counts as used. Raises KeyError if the file lacks it."""
        self._fed.add(name)
        return self._arrays[name]

    def number(self, name: str) -> float:
        """A scalar setting; counts as used."""
        return float(self.input(name))

    def expected(self, name: str) -> Tensor:
        """A reference output that a later stage is fed; does not count as used, it is to be checked as well."""
        return self._arrays[name]

    def beside(self, stem: str) -> "Vectors":
        """Another file of the same folder, to read inputs from; its own check accounts for it."""
        return Vectors(self.path.with_name(f"{stem}.npz"))

    def check(self, name: str, ours: Tensor, tolerance: Tolerance, *, informative: bool = False) -> None:
        """Compare our result with the array `name`."""
        expected = self._start(name, ours)
        if expected is not None:
            self._add(name, tolerance(ours, expected), informative)

    def check_parts(self, name: str, ours: Tensor, parts: Sequence[Part]) -> None:
        """Compare with several tolerances. Parts without entries are left out; an entry in no part is a failure."""
        expected = self._start(name, ours)
        if expected is None:
            return
        entries = torch.stack([part.entries for part in parts])
        if entries.shape[1:] != expected.shape[: entries.ndim - 1] or not entries.any(0).all():
            self._fail(name, "the parts of this check do not cover the array")
            return
        for part in parts:
            if part.entries.any():
                self._add(f"{name} [{part.label}]", part.tolerance(ours[part.entries], expected[part.entries]))

    @property
    def fed(self) -> int:
        """How many arrays served as inputs."""
        return len(self._fed)

    def unchecked(self) -> list[str]:
        """Arrays that were neither fed nor compared."""
        return [name for name in self._arrays if name not in self._fed | self._compared]

    def _start(self, name: str, ours: Tensor) -> Tensor | None:
        """The reference that `ours` may be compared with; None if it cannot, which is then a result."""
        expected = self._arrays[name]
        self._compared.add(name)
        if ours.shape != expected.shape:
            self._fail(name, f"shape {list(ours.shape)}, reference {list(expected.shape)}")
            return None
        if not expected.numel():
            self._fail(name, "the reference is empty")
            return None
        return expected

    def _add(self, label: str, verdict: Verdict, informative: bool = False) -> None:
        self.results.append(Result(f"{self.name}/{label}", verdict, informative))

    def _fail(self, label: str, reason: str) -> None:
        self._add(label, Verdict(math.nan, 0.0, reason, ok=False))


Check = Callable[[Vectors], None]
