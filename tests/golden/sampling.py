"""The sampler alone, on a network that is a formula, and the whole chain from renderings to video."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gen3c.generator.condition import ChunkCondition, concat_views, seed_video
from gen3c.generator.sampler import augment_noise, sample_chunk
from gen3c.generator.scheduler import edm_sigmas
from gen3c.generator.signatures import DIT, VIDEO_ENCODER
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.program import LocalProgram
from tests.golden.encodings import encode_views
from tests.golden.networks import LATENT, tiny_dit, tiny_vae_beside
from tests.golden.tolerance import Absolute, Bfloat16Steps, Exact, Levels, Relative, RelativeToMax
from tests.golden.vectors import Check, Vectors

ANY_FPS = 24.0  # the formula does not look at it


class Formula:
    """The stand-in network of the vectors' README (note 4), which keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Tensor]] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.calls.append(inputs)
        x, t = inputs["LATENT"], inputs["TIMESTEP"].view(-1, 1, 1, 1, 1)
        pose, text = inputs["CACHE"][:, : x.shape[1]], inputs["TEXT"].mean(dim=(1, 2)).view(-1, 1, 1, 1, 1)
        out = 0.6 * x + 0.2 * torch.tanh(pose) + 0.1 * text + 0.05 * t * x.roll(1, -1) + 0.1 * inputs["CONDITION_MASK"]
        return {"OUT": out}


def check_sampler(v: Vectors) -> None:
    """`sSTEPS_gGUIDANCE_*`, one run each."""
    gt = v.input("gt_latent")
    given = ChunkCondition(gt[:, :, :1], v.input("pose"), v.input("ctx"), v.input("neg_ctx"), ANY_FPS)
    held = given.dit_inputs(conditional=True)["CONDITION_MASK"][:, :, :, :1, :1]
    if not torch.equal(v.input("indicator"), held):
        raise ValueError("the vectors hold other frames than the first, which GEN3C never does")
    drawn = augment_noise(tuple(gt.shape), int(v.number("augment_noise_seed")))
    v.check("augment_noise", drawn, Exact())

    for match in v.matching(r"(s(\d+)_g(\d+(?:\.\d+)?))_sample"):
        case, steps, guidance = match[1], int(match[2]), float(match[3])
        network, states = Formula(), list[Tensor]()
        latent = sample_chunk(
            network,
            given,
            v.input(f"{case}_init_noise"),
            steps=steps,
            guidance=guidance,
            augment_seed=int(v.number(f"{case}_seed")),
            observe=states.append,
        )
        calls = network.calls[:: len(network.calls) // steps]  # the conditional pass of every step comes first
        v.check(f"{case}_sigmas", edm_sigmas(steps), Relative(2e-6))
        v.check(f"{case}_timesteps", torch.cat([call["TIMESTEP"][:, 0] for call in calls]), Absolute(1e-6))
        v.check(f"{case}_net_x", torch.cat([call["LATENT"] for call in calls]), RelativeToMax(1e-5))
        v.check(f"{case}_trajectory", torch.cat(states), RelativeToMax(1e-6))
        v.check(f"{case}_sample", latent, LATENT)


def check_end_to_end(v: Vectors) -> None:
    """Renderings and a first frame to a video, through the tiny networks."""
    state, mask = v.input("condition_state"), v.input("condition_state_mask")
    frames = state.shape[1]
    vae, dit = tiny_vae_beside(v, frames), tiny_dit(v.beside("dit_tiny_weights"))
    encoder, decoder = LocalProgram(VideoEncoder(vae), VIDEO_ENCODER), VideoDecoder(vae)

    cache = concat_views(encode_views(encoder, state, mask))
    v.check("latent_condition", cache, LATENT)
    seed = encoder({"VIDEO": seed_video(v.input("seed_image")[:, :, 0], frames)})["LATENT"]
    v.check("condition_latent", seed.bfloat16().float(), Bfloat16Steps(1, LATENT.limit))  # the reference rounds it

    # One step of bfloat16 in the seed is right, and moves the sample by far more than its tolerance; the sampler
    # therefore starts from the stored seed. Everything after it is ours.
    stored_seed = v.expected("condition_latent")[:, :, :1]
    given = ChunkCondition(stored_seed, cache, v.input("prompt_emb"), v.input("neg_prompt_emb"), v.number("fps"))
    v.check("cond_input_mask", given.dit_inputs(conditional=True)["CONDITION_MASK"], Exact())
    latent = sample_chunk(
        LocalProgram(dit, DIT),
        given,
        v.input("init_noise"),
        steps=int(v.number("num_steps")),
        guidance=v.number("guidance"),
        augment_seed=int(v.number("seed")),
    )
    v.check("sample", latent, Absolute(1e-4))
    v.check("video_float", decoder.decode(latent), Absolute(1e-3))
    v.check("video_uint8", decoder(latent)[0], Levels(1, 1e-3))


CHECKS: dict[str, Check] = {"sampler": check_sampler, "e2e_tiny": check_end_to_end}
