"""Where points fall does not depend on how this CPU's BLAS rounds: on the border of two pixels a bit decides."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch

from gen3c.cameras import inverse, transform

# Two rectified cameras: every row of points falls on a row of pixels, above or below its middle by a rounding error.
PROJECTION = """
import hashlib, torch
from gen3c.cameras import unproject
from gen3c.splat import project
K = torch.tensor([[[37.3, 0, 19.7], [0, 36.9, 11.3], [0, 0, 1]]])
w2c = torch.eye(4)
w2c[0, 0], w2c[0, 2], w2c[2, 0], w2c[2, 2] = 0.96, -0.28, 0.28, 0.96
w2c[:3, 3] = torch.tensor([0.3, -0.2, 0.5])
other = w2c.clone()
other[0, 3] += 0.13
depth = 2 + torch.rand(1, 24, 40, generator=torch.Generator().manual_seed(3))
pixels, z = project(unproject(depth, w2c[None], K), other[None], K)
print(hashlib.sha256(pixels.numpy().tobytes() + z.numpy().tobytes()).hexdigest())
"""


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the paths of another BLAS cannot be chosen")
def test_points_fall_on_the_same_places_on_every_path_of_the_blas() -> None:
    digests = set()
    for path in ("COMPATIBLE", "AVX2", "AVX512"):
        done = subprocess.run(
            [sys.executable, "-c", PROJECTION],
            env={**os.environ, "MKL_CBWR": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == hashlib.sha256().digest_size * 2


def test_inverses_are_those_of_double_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(50, 4, 4, generator=generator) + 3 * torch.eye(4)
    matrices[0] = torch.eye(4)[[2, 0, 3, 1]]  # zeros on the diagonal: only a pivot gets past them
    expected = torch.linalg.inv(matrices.double())
    # An elimination errs by a few roundings times the condition number.
    allowed = 1e-6 * torch.linalg.cond(matrices.double())[:, None, None] * expected.abs().amax((1, 2), keepdim=True)
    assert ((inverse(matrices).double() - expected).abs() <= allowed).all()


def test_transform_multiplies_each_point_by_its_batch_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices, points = torch.randn(2, 3, 3, generator=generator), torch.randn(2, 5, 7, 3, generator=generator)
    expected = torch.einsum("bij,bhwj->bhwi", matrices.double(), points.double())
    torch.testing.assert_close(transform(matrices, points).double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(transform(matrices, points[:1])[1], transform(matrices[1:], points[:1])[0])
