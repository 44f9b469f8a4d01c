from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.generator.condition import ChunkCondition
from gen3c.generator.sampler import augment_noise, initial_noise, sample_chunk
from gen3c.generator.scheduler import Preconditioning, edm_sigmas
from gen3c.geometry.types import Watch

SETTINGS = {"steps": 6, "guidance": 0.0, "augment_seed": 1}


class Oracle:
    """A program that knows the clean latent: the network output whose denoised latent is `clean` at every level."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean
        self.calls: list[Mapping[str, Tensor]] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.calls.append(inputs)
        sigma = torch.exp(inputs["TIMESTEP"][0].double() * 4).item()
        at = Preconditioning.at(sigma)
        return {"OUT": (self.clean - at.c_skip * inputs["LATENT"] / at.c_in) / at.c_out}


def stub(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stand-in network of the golden vectors."""
    x, t = inputs["LATENT"], inputs["TIMESTEP"].view(-1, 1, 1, 1, 1)
    pose, text = inputs["CACHE"][:, : x.shape[1]], inputs["TEXT"].mean(dim=(1, 2)).view(-1, 1, 1, 1, 1)
    out = 0.6 * x + 0.2 * torch.tanh(pose) + 0.1 * text + 0.05 * t * x.roll(1, -1) + 0.1 * inputs["CONDITION_MASK"]
    return {"OUT": out}


def condition() -> ChunkCondition:
    generator = torch.Generator().manual_seed(0)
    return ChunkCondition(
        seed_latent=torch.randn(1, 4, 1, 4, 6, generator=generator),
        cache=torch.randn(1, 8, 3, 4, 6, generator=generator),
        text=torch.randn(1, 5, 8, generator=generator),
        negative_text=torch.randn(1, 5, 8, generator=generator),
        fps=24.0,
    )


def noise() -> Tensor:
    return initial_noise((1, 4, 3, 4, 6), torch.Generator().manual_seed(3))


def test_a_perfect_network_leads_to_the_clean_latent():
    clean = torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(5))
    latent = sample_chunk(Oracle(clean), condition(), noise(), **SETTINGS)
    # float32 keeps 80 to within 5e-6; c_out near 0 at the last level amplifies nothing, since x0 is formed before.
    torch.testing.assert_close(latent, clean, atol=1e-4, rtol=0)


def test_the_first_frame_is_held_above_the_augment_level_alone():
    oracle, given = Oracle(torch.zeros(1, 4, 3, 4, 6)), condition()
    sample_chunk(oracle, given, noise(), **SETTINGS | {"steps": 35})
    held = given.seed_latent + 0.001 * augment_noise(given.noise_shape, 1)[:, :, :1]
    sigmas = edm_sigmas(35)[:-1].tolist()
    seen = [call["LATENT"][:, :, :1] for call in oracle.calls]
    # The held frame comes with noise of 0.001 and is scaled by c_in for that level, whatever the level of the rest.
    expected = held / (0.001**2 + 0.25) ** 0.5
    equal = [torch.allclose(frame, expected, atol=1e-5) for frame in seen]
    assert equal[:33] == [True] * 33
    assert sigmas[32] > 0.001 >= sigmas[33]
    assert oracle.calls[33]["CONDITION_MASK"][0, 0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert not equal[34]  # free: the oracle has pulled it to zero by one step


def test_no_guidance_skips_the_unconditional_pass_with_the_same_result():
    calls = []

    def counted(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        calls.append(inputs)
        return stub(inputs)

    skipped = sample_chunk(counted, condition(), noise(), **SETTINGS)
    assert len(calls) == 6
    almost = sample_chunk(stub, condition(), noise(), **SETTINGS | {"guidance": 1e-9})
    torch.testing.assert_close(skipped, almost, atol=1e-5, rtol=0)
    assert (sample_chunk(stub, condition(), noise(), **SETTINGS | {"guidance": 1.0}) - skipped).abs().max() > 0.01


def test_the_unconditional_pass_sees_no_cache_and_the_negative_text():
    calls: list[Mapping[str, Tensor]] = []

    def recorded(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        calls.append(inputs)
        return stub(inputs)

    given = condition()
    sample_chunk(recorded, given, noise(), **SETTINGS | {"guidance": 1.0})
    assert len(calls) == 12
    assert not calls[1]["CACHE"].any()
    assert torch.equal(calls[1]["TEXT"], given.negative_text)
    assert torch.equal(calls[1]["CONDITION_MASK"], calls[0]["CONDITION_MASK"])


def test_one_call_of_two_rows_equals_two_calls():
    settings = SETTINGS | {"guidance": 1.5}
    apart = sample_chunk(stub, condition(), noise(), **settings)
    together = sample_chunk(stub, condition(), noise(), **settings, batch_guidance=True)
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)


def test_progress_counts_every_step_and_cancellation_stops_before_the_next():
    seen: list[tuple[str, int, int]] = []
    calls: list[Mapping[str, Tensor]] = []

    def recorded(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        calls.append(inputs)
        return stub(inputs)

    watch = Watch(lambda: len(calls) == 3, lambda *event: seen.append(event))
    with pytest.raises(CancelledError):
        sample_chunk(recorded, condition(), noise(), **SETTINGS, watch=watch)
    assert seen == [("denoise", 0, 6), ("denoise", 1, 6), ("denoise", 2, 6)]
    assert len(calls) == 3
    seen.clear()
    sample_chunk(stub, condition(), noise(), **SETTINGS, watch=Watch(on_progress=lambda *event: seen.append(event)))
    assert [event[1] for event in seen] == list(range(7))


def test_arguments_decide_the_result_bit_for_bit_and_stay_unchanged():
    given, start = condition(), noise()
    before = start.clone()
    first = sample_chunk(stub, given, start, **SETTINGS)
    torch.manual_seed(99)
    assert torch.equal(first, sample_chunk(stub, given, start, **SETTINGS))
    assert torch.equal(before, start)
    assert not torch.equal(first, sample_chunk(stub, given, start, **SETTINGS | {"augment_seed": 2}))


def test_a_network_that_diverges_is_reported():
    def broken(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"OUT": inputs["LATENT"] * torch.nan}

    with pytest.raises(FloatingPointError, match="not finite after 6 steps"):
        sample_chunk(broken, condition(), noise(), **SETTINGS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"guidance": -0.5}, "guidance is -0.5"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"augment_seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_illegal_settings_are_refused(changed, message):
    with pytest.raises(InvalidInputError, match=message):
        sample_chunk(stub, condition(), noise(), **SETTINGS | changed)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(InvalidInputError, match=r"noise has shape \[1, 4, 2, 4, 6\]; legal is \[1, 4, 3, 4, 6\]"):
        sample_chunk(stub, condition(), noise()[:, :, :2], **SETTINGS)
