import pytest
import torch
from torch import Tensor

from gen3c.alignment import align_nonrigid, align_rigid, nonrigid_loss
from gen3c.cameras import unproject
from gen3c.errors import InvalidInputError

K = torch.tensor([[60.0, 0, 19.5], [0, 60, 11.5], [0, 0, 1]])
EVERYWHERE = torch.ones(24, 40, dtype=torch.bool)
TURNED = torch.tensor([[0.8, 0.0, 0.6, 0.1], [0.0, 1.0, 0.0, -0.2], [-0.6, 0.0, 0.8, 0.3], [0.0, 0.0, 0.0, 1.0]])


def hills(seed: int = 0) -> Tensor:
    """Smooth depth [24,40] between 1 and 3."""
    coarse = torch.rand(1, 1, 4, 6, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    return torch.nn.functional.interpolate(coarse, (24, 40), mode="bicubic", align_corners=False)[0, 0].clamp(1, 3)


def loss(depth: Tensor, target: Tensor, overlap: Tensor) -> float:
    goal = unproject(target[None], TURNED[None], K[None])[0]
    return float(nonrigid_loss(torch.ones_like(depth), depth, goal, overlap, TURNED, K))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (2.5, 0.1), (0.3, -0.05)])
def test_rigid_alignment_undoes_a_scale_and_shift_of_inverse_depth(scale: float, shift: float, reference: bool) -> None:
    target = hills()
    distorted = scale / (1 / target - shift)  # 1/target = scale/distorted + shift
    overlap = EVERYWHERE.clone()
    overlap[:, 25:] = False  # the fit also holds where there was nothing to compare with
    fitted = align_rigid(distorted, torch.where(overlap, target, 0.0), overlap, reference=reference)
    assert (fitted - target).abs().max() < 1e-5


def test_rigid_alignment_ignores_outliers_beyond_the_inner_quantiles() -> None:
    target = hills()
    spoiled = target.clone()
    spoiled[3:5, 4:20] = 50.0  # 3% of the picture
    assert (align_rigid(2 * target, spoiled, EVERYWHERE) - target).abs().max() < 1e-3


def test_a_flat_wall_tells_a_scale() -> None:
    fitted = align_rigid(torch.full((24, 40), 7.0), torch.full((24, 40), 1.4), EVERYWHERE)
    assert (fitted - 1.4).abs().max() < 1e-6


def test_noise_on_a_flat_wall_makes_no_shift() -> None:
    """What stands out from the wall, where nothing was to compare with, must keep standing out."""
    noise = 1 + 0.005 * torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0))
    depth, target = 3 * noise[0], 1 * noise[1]
    overlap = EVERYWHERE.clone()
    overlap[:, 30:] = False
    depth[:, 30:] = 1.5
    fitted = align_rigid(depth, target, overlap)
    assert (fitted[:, :30] - 1).abs().mean() < 0.01
    assert (fitted[:, 30:] - 0.5).abs().max() < 0.01


def test_unknown_depth_stays_unknown_and_has_no_vote() -> None:
    target = hills()
    distorted = 2 * target
    distorted[:, :18] = 0
    fitted = align_rigid(distorted, target, EVERYWHERE)
    assert (fitted[:, :18] == 0).all()
    assert (fitted - target)[:, 18:].abs().max() < 1e-5


def test_depth_beyond_infinity_is_unknown() -> None:
    target = hills()
    distorted = 1 / (1 / target + 0.2)
    distorted[0, 0] = 100.0  # 1/100 - 0.2 < 0
    fitted = align_rigid(distorted, target, EVERYWHERE)
    assert fitted[0, 0] == 0
    assert (fitted - target).flatten()[1:].abs().max() < 1e-5


def test_nothing_in_common_is_refused() -> None:
    depth, nothing = hills(), torch.zeros(24, 40, dtype=torch.bool)
    with pytest.raises(InvalidInputError, match=r"no pixel in common; legal: views that overlap"):
        align_rigid(depth, depth, nothing)
    with pytest.raises(InvalidInputError, match=r"no pixel in common"):
        align_nonrigid(depth, depth, nothing, TURNED, K)
    with pytest.raises(InvalidInputError, match=r"within their inner 10% to 90%"):
        align_rigid(torch.full_like(depth, 2.0), depth, EVERYWHERE, reference=True)  # nothing strictly inside


def test_far_and_near_exchanged_is_refused() -> None:
    target = hills()
    with pytest.raises(InvalidInputError, match=r"contradicts the cache: its scale in inverse depth is -1"):
        align_rigid(1 / (1.2 - 1 / target), target, EVERYWHERE)


def test_nonrigid_alignment_lowers_its_loss_and_brings_depth_closer() -> None:
    target = hills()
    bent = target * (1 + 0.05 * torch.linspace(-1, 1, 40))  # no scale and shift undo this
    overlap = EVERYWHERE.clone()
    overlap[:4] = False
    fitted = align_nonrigid(bent, target, overlap, TURNED, K)
    assert loss(fitted, target, overlap) < 0.2 * loss(bent, target, overlap)
    assert ((fitted - target) / target).abs()[overlap].mean() < 0.2 * ((bent - target) / target).abs()[overlap].mean()


def test_aligned_depth_is_left_alone() -> None:
    target = hills()
    half = EVERYWHERE.clone()
    half[:, 20:] = False
    fitted = align_nonrigid(target, target, half, TURNED, K)
    # Adam's step of 1e-3 swings about the minimum. The reference counts zeros beyond the rim, which pulls it in.
    assert (fitted / target - 1).abs().max() < 2e-3
    bent = align_nonrigid(target, target, half, TURNED, K, reference=True)
    assert (bent / target - 1)[12, -1].abs() > 0.05


def test_alignment_is_deterministic_and_works_in_inference_mode() -> None:
    target = hills()
    bent = target * (1 + 0.05 * torch.rand(24, 40, generator=torch.Generator().manual_seed(1)))
    first = align_nonrigid(bent, target, EVERYWHERE, TURNED, K)
    with torch.inference_mode():
        again = align_nonrigid(bent.clone(), target.clone(), EVERYWHERE.clone(), TURNED.clone(), K.clone())
    assert torch.equal(first, again)
    assert not first.requires_grad
