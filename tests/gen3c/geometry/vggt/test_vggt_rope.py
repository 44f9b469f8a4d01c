"""Rotary codes of rows and columns: what they do, said with complex numbers."""

import itertools

import pytest
import torch
from torch import Tensor

from gen3c.geometry.vggt.block import Block
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.rope import Tables, patch_positions, rope_tables, rotate

BASE = 100.0


def turned(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Queries [...,n,d] at (row, column) [n,2], turned in double precision.

    The first half of the channels is for the row, the other for the column. In each, channel j and the one a half
    further are the real and imaginary part of a number that turns by position * base^(-2j/(d/2)).
    """
    halves = []
    for half, place in zip(x.double().chunk(2, dim=-1), positions.double().unbind(-1), strict=True):
        size = half.shape[-1] // 2
        speed = base ** (-2 * torch.arange(size, dtype=torch.float64) / half.shape[-1])
        spun = torch.complex(*half.chunk(2, dim=-1)) * torch.exp(1j * place[:, None] * speed)
        halves += [spun.real, spun.imag]
    return torch.cat(halves, dim=-1)


def queries(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_patches_are_counted_from_one_in_rows_after_the_special_tokens() -> None:
    assert patch_positions(2, 3, 2).tolist() == [[0, 0], [0, 0], [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]
    assert patch_positions(1, 1, 0).tolist() == [[1, 1]]


@pytest.mark.parametrize("head_dim", [64, 24, 16, 4])
@pytest.mark.parametrize("base", [100.0, 7.0])
def test_pairs_of_channels_turn_like_complex_numbers(head_dim: int, base: float) -> None:
    positions = patch_positions(37, 28, 5)
    x = queries(2, 3, len(positions), head_dim)
    ours = rotate(x, rope_tables(positions, head_dim, base))
    assert ours.dtype == torch.float32
    # An angle of 37 rad is known to 2e-6 in float32, and queries of up to 4.5 turn by it.
    torch.testing.assert_close(ours.double(), turned(x, positions, base), rtol=0, atol=2e-5)


def test_special_tokens_are_not_turned_at_all() -> None:
    positions = patch_positions(3, 4, 5)
    x = queries(2, len(positions), 16)
    ours = rotate(x, rope_tables(positions, 16, BASE))
    assert torch.equal(ours[:, :5], x[:, :5])
    assert ((ours[:, 5:] - x[:, 5:]).abs().amax(-1) > 0.1).all()


def test_a_row_turns_the_first_half_and_a_column_the_other() -> None:
    x = queries(1, 1, 16)
    for place, kept, moved in (((0, 3), slice(0, 8), slice(8, 16)), ((3, 0), slice(8, 16), slice(0, 8))):
        ours = rotate(x, rope_tables(torch.tensor([place]), 16, BASE))
        assert torch.equal(ours[..., kept], x[..., kept])
        assert ((ours[..., moved] - x[..., moved]).abs() > 1e-3).all()


def test_a_product_of_query_and_key_knows_only_how_far_apart_they_are() -> None:
    q, k = queries(200, 64), queries(200, 64, seed=1)

    def product(at: tuple[int, int], other: tuple[int, int]) -> Tensor:
        tables = [rope_tables(torch.tensor([place]), 64, BASE) for place in (at, other)]
        return (rotate(q, tables[0]) * rotate(k, tables[1])).sum(-1)

    near = product((3, 5), (7, 4))
    for row, column in itertools.product((0, 9, 30), (0, 17)):
        # 64 products of order 1, each with the error of its angles.
        torch.testing.assert_close(product((3 + row, 5 + column), (7 + row, 4 + column)), near, rtol=0, atol=1e-4)
    for other in ((8, 4), (7, 5), (4, 7), (-1, 6)):  # further rows, further columns, exchanged, and the other way
        assert float((product((3, 5), other) - near).std()) > 1


def test_lengths_are_kept() -> None:
    positions = patch_positions(9, 9, 0)
    x = queries(len(positions), 64)
    ours = rotate(x, rope_tables(positions, 64, BASE))
    torch.testing.assert_close(ours.norm(dim=-1), x.norm(dim=-1))


def test_narrow_queries_are_turned_in_float32() -> None:
    positions = patch_positions(37, 37, 5)
    tables = rope_tables(positions, 64, BASE)
    assert [table.dtype for table in tables] == [torch.float32, torch.float32]
    x = queries(len(positions), 64).bfloat16()
    ours = rotate(x, tables)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), turned(x, positions, BASE), rtol=0, atol=2e-5)
    # What tables of the queries' type would have made of it: angles of 37 rad on a grid of 0.25.
    angles = (positions[..., None].bfloat16() * (BASE ** -(torch.arange(16) / 16)).bfloat16()).float()
    coarse = rotate(x, (angles.cos(), angles.sin()))
    assert float((coarse - ours).abs().max()) > 0.1


def test_a_narrow_network_has_wide_tables(vggt: Vggt, images: Tensor) -> None:
    seen: list[Tables] = []

    def note(_module: Block, inputs: tuple[Tensor, Tables]) -> None:
        seen.append(inputs[1])

    blocks = (*vggt.aggregator.frame_blocks, *vggt.aggregator.global_blocks)
    for block in blocks:
        block.register_forward_pre_hook(note)
    vggt.narrow(torch.bfloat16)(images)
    assert len(seen) == len(blocks)
    positions = patch_positions(3, 5, 5)
    for tables in seen:
        assert {table.dtype for table in tables} == {torch.float32}
        within = rope_tables(positions, 16, 100.0)
        frames = len(tables[0]) // len(positions)  # 1 within a frame, 3 over all
        assert all(torch.equal(a, b.repeat(frames, 1, 1)) for a, b in zip(tables, within, strict=True))
    assert sorted(len(tables[0]) for tables in seen) == [20] * 5 + [60] * 5
