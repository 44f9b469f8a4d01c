"""What is asked for, and whether it holds. What was not measured does not hold."""

from typing import Any

from benchmarks.quality_composite import BLEND, CLIP_RANKINGS, RANKINGS
from benchmarks.quality_results import Results, form, mean, median
from benchmarks.quality_rows import EIGHT_VIEWS

GAIN = 1.5  # dB over the composite
NOT_MEASURED = "**missed**, not measured"


def must_hold(results: Results, clip: dict[str, Any] | None = None) -> str:
    """The list: value, limit, and whether it holds. `clip` is what benchmarks.quality_clip found, None before."""
    vae, linear = results.of_vae("psnr"), results.of_vae("linear_psnr")
    ahead = None if vae is None or linear is None else vae - linear
    refusing = {seed for seed, group, _ in results.refused if group == EIGHT_VIEWS}
    # What is asked for does not say whose points; both readings are listed.
    everywhere, own = (results.mean(f"views_{results.mode}", name) for name in ("flicker", "flicker_on_warps"))
    holes, warps = (results.of_warps("warps", name) for name in ("flicker_with_holes", "flicker"))
    lines = [
        at_least("VAE, reconstruction of the true videos", vae, 28.0, "dB"),
        at_least("VAE, over the linear code of 16 numbers", ahead, 3.0, "dB"),
        below("VGGT, AbsRel after scale alignment, all pixels", mean(results.of_geometry("abs_rel")), 0.04, ""),
        below("VGGT, median rotation error", median(results.of_geometry("rotation")), 2.0, "degrees"),
        *_gains(results),
        at_least("Pixels that no view shows, median scene", 100 * results.unseen, 15.0, "%"),
        below("Flicker on static points, against that of the raw warps with their holes", everywhere, holes, "", ".5f"),
        below("Flicker on static points that raw warps cover in both frames, against theirs", own, warps, "", ".5f"),
        below("Scenes whose eight views the pipeline refuses", len(refusing), 1, "", "d"),
        *clip_bars(clip),
    ]
    blended = form(results.gain(f"views_{results.mode}", f"composite_{BLEND}", "psnr_all"), "+.2f")
    return "\n".join(lines) + f"\n\nAgainst the blend of views, which is no ranking: {blended} dB.\n"


def _gains(results: Results) -> list[str]:
    """Of the best fusion mode over the best composite and over one view. Autoencoded, the composite counts if worse."""
    result, composite = f"views_{results.mode}", f"composite_{results.ranking}"
    one = results.best(("one", "one_shared"), "{}") or "one"
    over, over_vae = (results.gain(result, row, "psnr_all") for row in (composite, f"{composite}_vae"))
    change = results.gain(f"{composite}_vae", composite, "psnr_all")
    what, what_vae = "8 views + DiT over the best composite", "8 views + DiT over that composite through the VAE"
    if change is not None and change < 0:
        first = f"- {what}: {form(over, '.2f')} dB, at least {GAIN:g}: the next line counts in its place"
        second = f"{at_least(what_vae, over_vae, GAIN, 'dB')}; applicable, as the VAE costs {-change:.2f} dB"
    else:
        first = at_least(what, over, GAIN, "dB")
        why = "" if change is None else f", as the VAE costs the composite nothing ({change:+.2f} dB)"
        second = f"- {what_vae}: {form(over_vae, '.2f')} dB, at least {GAIN:g}: not applicable{why}"
    over_one, unseen = results.gain(result, one, "psnr_all"), results.gain(result, composite, "psnr_unseen")
    return [
        first,
        second,
        at_least("8 views + DiT over 1 view + DiT, the better of its rows", over_one, 2.0, "dB"),
        at_least("8 views + DiT over the inpainted composite, disoccluded pixels", unseen, GAIN, "dB"),
    ]


def clip_bars(clip: dict[str, Any] | None) -> list[str]:
    """Of the real clip, one for each ranking that it is measured against."""
    what = "Real clip against the composite of all views, {}, covered pixels"
    values = {} if clip is None else clip["psnr_covered"]
    return [at_least(what.format(RANKINGS[name]), values.get(name), 20.0, "dB") for name in CLIP_RANKINGS]


def at_least(what: str, value: float | None, limit: float, unit: str) -> str:
    """A line of the list for what must not be smaller."""
    verdict = NOT_MEASURED if value is None else "holds" if value >= limit else "**missed**"
    return f"- {what}: {form(value, '.2f')} {unit}, at least {limit:g}: {verdict}".replace(" ,", ",")


def below(what: str, value: float | None, limit: float | None, unit: str, spec: str = ".3f") -> str:
    """A line of the list for what must be smaller."""
    verdict = NOT_MEASURED if value is None or limit is None else "holds" if value < limit else "**missed**"
    return f"- {what}: {form(value, spec)} {unit}, below {form(limit, spec)}: {verdict}".replace(" ,", ",")
