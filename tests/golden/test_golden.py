"""The vectors beside this checkout pass; and the harness notices what is wrong, which needs no vectors."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden.__main__ import main
from tests.golden.registry import CHECKS
from tests.golden.tolerance import (
    Absolute,
    Bfloat16Steps,
    Exact,
    Levels,
    MaxAndMean,
    OnShare,
    Relative,
    RelativeToMax,
    Tolerance,
)
from tests.golden.vectors import Check, Part, Vectors

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "golden"
X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """Writes gen3c/case.npz with the arrays of a correct case, changed as said, and gives the folder."""

    def write(**changes: np.ndarray | None) -> Path:
        arrays = {"x": X, "doubled": X * 2, "rough": X * 3} | changes
        (tmp_path / "gen3c").mkdir(exist_ok=True)
        kept = {name: array for name, array in arrays.items() if array is not None}
        np.savez(tmp_path / "gen3c" / "case.npz", **kept)
        return tmp_path

    return write


def check_case(v: Vectors) -> None:
    x = v.input("x")
    v.check("doubled", x * 2, Absolute(1e-6))
    v.check("rough", x * 3, Absolute(1e-6), informative=True)


def run(folder: Path, check: Check = check_case, checks: Mapping[str, Check] | None = None) -> int:
    return main([str(folder)], checks={"gen3c/case": check} if checks is None else checks)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the reference vectors are not next to this checkout")
def test_every_reference_vector_passes(capsys) -> None:
    assert main([str(VECTORS)]) == 0, capsys.readouterr().out


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the reference vectors are not next to this checkout")
def test_every_file_of_gen3c_has_a_check() -> None:
    assert {f"gen3c/{path.stem}" for path in (VECTORS / "gen3c").glob("*.npz")} <= set(CHECKS)


def test_a_correct_folder_passes_and_each_array_has_its_line(folder, capsys) -> None:
    assert run(folder()) == 0
    out = capsys.readouterr().out
    assert "gen3c/case/doubled  0  1e-06  ok\n" in out
    assert "gen3c/case/rough  0  1e-06  informative\n" in out
    assert "1 files, 2 comparisons (1 informative), all ok" in out


def test_an_altered_array_fails(folder, capsys) -> None:
    altered = X * 2
    altered[1, 2, 3] += 1e-5
    assert run(folder(doubled=altered)) == 1
    assert "gen3c/case/doubled  1e-05  1e-06  FAILED" in capsys.readouterr().out


def test_an_informative_array_never_gates(folder, capsys) -> None:
    assert run(folder(rough=X * 4)) == 0
    assert "gen3c/case/rough  1  1e-06  informative" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("tolerance", [Absolute(1e9), Relative(1e9), OnShare(1e9, 1.0), Exact(), MaxAndMean(1e9, 1e9)])
def test_a_number_that_is_none_fails_whatever_the_tolerance(folder, value: float, tolerance: Tolerance) -> None:
    def check(v: Vectors) -> None:
        ours = v.input("x") * 2
        ours[0, 1, 2] = value
        v.check("doubled", ours, tolerance)
        v.input("rough")

    assert run(folder(), check) == 1


def test_an_array_that_nobody_touches_fails(folder, capsys) -> None:
    assert run(folder(extra=X)) == 1
    assert "gen3c/case/extra  was neither fed nor compared  FAILED" in capsys.readouterr().out


def test_a_missing_array_fails_and_the_rest_is_still_reported(folder, capsys) -> None:
    assert run(folder(rough=None)) == 1
    out = capsys.readouterr().out
    assert "gen3c/case/doubled  0  1e-06  ok" in out
    assert "KeyError: 'rough'" in out


@pytest.mark.parametrize("shape", [(2, 12), (2, 3, 5)])
def test_another_shape_fails(folder, capsys, shape: tuple[int, ...]) -> None:
    def check(v: Vectors) -> None:
        v.check("doubled", torch.zeros(shape), Absolute(1e9))
        v.input("x"), v.input("rough")

    assert run(folder(), check) == 1
    assert f"shape {list(shape)}, reference [2, 3, 4]" in capsys.readouterr().out


def test_one_failing_file_does_not_hide_the_others(folder, capsys) -> None:
    root = folder()
    np.savez(root / "gen3c" / "afore.npz", x=X)

    def broken(v: Vectors) -> None:
        raise RuntimeError(f"no such network in {v.name}")

    assert run(root, checks={"gen3c/afore": broken, "gen3c/case": check_case}) == 1
    out = capsys.readouterr().out
    assert "no such network in gen3c/afore" in out
    assert "gen3c/case/doubled  0  1e-06  ok" in out


def test_files_without_checks_are_listed_and_do_not_gate(folder, capsys) -> None:
    root = folder()
    (root / "vggt").mkdir()
    np.savez(root / "vggt" / "head.npz", x=X)
    assert run(root) == 0
    assert "no checks: vggt/head\n" in capsys.readouterr().out


def test_folders_without_anything_to_check_are_errors(folder, tmp_path, capsys) -> None:
    assert run(tmp_path / "nowhere") == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 2
    assert run(folder(), checks={"gen3c/other": check_case}) == 2
    assert "holds no file to check (1 npz files" in capsys.readouterr().err


def test_a_folder_of_files_that_have_no_checks_yet_says_so(folder, capsys) -> None:
    root = folder()
    (root / "gen3c").rename(root / "vggt")
    assert run(root) == 2
    assert "so nothing was checked. vggt has no checks yet." in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_damaged_file_fails(folder, capsys, content: bytes) -> None:
    root = folder()
    (root / "gen3c" / "case.npz").write_bytes(content)
    assert run(root) == 1
    assert "gen3c/case  cannot be read" in capsys.readouterr().out


def test_pickled_arrays_are_not_loaded(folder, capsys) -> None:
    assert run(folder(rough=np.array([{"x": 1}], dtype=object))) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_a_file_without_arrays_fails(folder) -> None:
    assert run(folder(x=None, doubled=None, rough=None), lambda v: None) == 1


@pytest.mark.parametrize(("off", "code"), [(0, 0), (1, 1)])
def test_parts_have_their_own_tolerances(folder, off: int, code: int) -> None:
    """An entry that is off by 0.5 is right in the part that allows 1, wrong in the other."""

    def check(v: Vectors) -> None:
        parts = [
            Part("loose", torch.tensor([True, False]), Absolute(1.0)),
            Part("tight", torch.tensor([False, True]), Absolute(1e-6)),
        ]
        v.check_parts("doubled", v.input("x") * 2, parts)
        v.input("rough")

    altered = X * 2
    altered[off] += 0.5
    assert run(folder(doubled=altered), check) == code


def test_an_entry_in_no_part_fails(folder, capsys) -> None:
    def check(v: Vectors) -> None:
        v.check_parts("doubled", v.input("x") * 2, [Part("one", torch.tensor([True, False]), Absolute(1.0))])
        v.input("rough")

    assert run(folder(), check) == 1
    assert "do not cover the array" in capsys.readouterr().out


def picture(wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """100 pixels of 3 channels, `wrong` of them off by 1 in one channel."""
    expected = torch.zeros(3, 10, 10)
    ours = expected.clone()
    ours[1].view(-1)[:wrong] = 1
    return ours, expected


@pytest.mark.parametrize(("wrong", "ok"), [(0, True), (5, True), (6, False)])
def test_a_share_of_pixels_counts_a_pixel_once(wrong: int, ok: bool) -> None:
    verdict = OnShare(1e-4, 0.95)(*picture(wrong))
    assert verdict.ok == ok
    assert verdict.error == pytest.approx(wrong / 100)


def test_relative_errors_are_relative_to_each_value_or_to_the_largest_of_its_step() -> None:
    expected = torch.tensor([[100.0, 0.1], [1.0, 0.5]])
    ours = expected + torch.tensor([[0.0, 0.001], [0.0, 0.0]])
    assert Relative(1.0)(ours, expected).error == pytest.approx(0.01, rel=1e-3)
    assert RelativeToMax(1.0)(ours, expected).error == pytest.approx(1e-5, rel=1e-3)
    assert not Relative(1.0)(torch.tensor([1e-30]), torch.tensor([0.0])).ok


def test_bfloat16_steps_count_neighbours_and_ask_for_rounded_values() -> None:
    expected = torch.tensor([1.0, -1.0, 0.0, 3e-3]).bfloat16().float()
    up = torch.nextafter(expected.bfloat16(), torch.full((4,), 9.0).bfloat16()).float()
    assert Bfloat16Steps(1, 1e-5)(up, expected).error == 1
    assert not Bfloat16Steps(0, 1e-5)(up, expected).ok
    assert Bfloat16Steps(0, 1e-5)(torch.tensor([-0.0]), torch.tensor([0.0])).ok
    assert not Bfloat16Steps(1, 1e-5)(expected + 1e-4, expected).ok


def test_bfloat16_steps_finer_than_the_numbers_before_rounding_do_not_count() -> None:
    """7e-6 and 3e-6 are over a hundred neighbours apart, and what a latent within 1e-5 may round to."""
    tiny = torch.tensor([7e-6, 3e-6]).bfloat16().float()
    assert Bfloat16Steps(1, 1e-5)(tiny[:1], tiny[1:]).ok
    assert not Bfloat16Steps(1, 1e-6)(tiny[:1], tiny[1:]).ok
    two_apart = torch.tensor([0.5]), torch.tensor([0.5078125])
    assert not Bfloat16Steps(1, 1e-5)(*two_apart).ok


def test_levels_bound_the_size_and_the_share() -> None:
    expected = torch.zeros(10, 10, 3, dtype=torch.uint8)
    ours = expected.clone()
    ours[0, 0] = 1
    assert Levels(1, 0.01)(ours, expected).ok
    assert not Levels(1, 0.009)(ours, expected).ok
    ours[0, 0, 0] = 2
    assert not Levels(1, 0.01)(ours, expected).ok


def test_what_is_not_finite_must_be_the_same_on_both_sides() -> None:
    expected = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0])
    assert Absolute(0.0)(expected.clone(), expected).ok
    for changed in (torch.tensor([-torch.inf, -torch.inf, torch.nan, 1.0]), torch.zeros(4)):
        assert not Absolute(1e9)(changed, expected).ok
