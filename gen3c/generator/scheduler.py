"""Noise levels and preconditioning of EDM ("Elucidating the Design Space of Diffusion-Based Generative Models", 2022).

These few lines stand for diffusers' `EDMEulerScheduler`: it keeps the step index as state, which would tie a scheduler
object to one request, and has no place for the frame that GEN3C holds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError

SIGMA_MIN = 0.0002
SIGMA_MAX = 80.0
SIGMA_DATA = 0.5
RHO = 7.0


def edm_sigmas(steps: int) -> Tensor:
    """Noise levels of an Euler run: [steps+1] float32, falling from 80 to 0.0002, then 0 (paper, equation 5).

    Raises InvalidInputError unless steps >= 1.
    """
    if steps < 1:
        raise InvalidInputError(f"steps is {steps}; legal is 1 or more.", field="steps")
    ramp = torch.linspace(0, 1, steps)  # float32 throughout, as the reference: its rounding is part of the schedule
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    sigmas = (high + ramp * (low - high)) ** RHO
    return torch.cat([sigmas, sigmas.new_zeros(1)])


@dataclass(frozen=True)
class Preconditioning:
    """How the network is used at one noise level: x0 = c_skip * x + c_out * F(c_in * x, c_noise) (paper, table 1).

    Float32 scalars, rounded after every operation as in the reference.
    """

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor
    c_noise: Tensor

    @classmethod
    def at(cls, sigma: Tensor | float) -> "Preconditioning":
        """The coefficients for sigma > 0."""
        sigma = torch.as_tensor(sigma, dtype=torch.float32)
        total = sigma**2 + SIGMA_DATA**2
        return cls(
            c_in=1 / total**0.5,
            c_skip=SIGMA_DATA**2 / total,
            c_out=sigma * SIGMA_DATA / total**0.5,
            c_noise=0.25 * sigma.log(),
        )
