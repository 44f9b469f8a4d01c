import pytest
import torch
from diffusers import EDMEulerScheduler

from gen3c.errors import InvalidInputError
from gen3c.generator.scheduler import Preconditioning, edm_sigmas


@pytest.mark.parametrize("steps", [1, 2, 6, 35])
def test_levels_equal_diffusers(steps):
    scheduler = EDMEulerScheduler(sigma_min=0.0002, sigma_max=80.0, sigma_data=0.5, final_sigmas_type="zero")
    scheduler.set_timesteps(steps)
    # diffusers computes in float64 and rounds once; we compute in float32 as the reference did.
    torch.testing.assert_close(edm_sigmas(steps), scheduler.sigmas.float(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("sigma", [80.0, 0.7, 0.0002])
def test_coefficients_equal_diffusers(sigma):
    scheduler = EDMEulerScheduler(sigma_data=0.5)
    x, out = torch.tensor([2.0]), torch.tensor([3.0])
    at = Preconditioning.at(sigma)
    torch.testing.assert_close(x * at.c_in, scheduler.precondition_inputs(x, sigma))
    torch.testing.assert_close(at.c_skip * x + at.c_out * out, scheduler.precondition_outputs(x, out, sigma))
    torch.testing.assert_close(torch.tensor([at.c_noise]), scheduler.precondition_noise(sigma))


def test_no_steps_are_refused():
    with pytest.raises(InvalidInputError, match="steps is 0; legal is 1 or more"):
        edm_sigmas(0)
