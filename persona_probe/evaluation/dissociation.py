"""Is it the persona that moved? Signs, channels, nuisances, and what two vectors do apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from persona_probe.errors import RequestError
from persona_probe.evaluation.profile import Profile
from persona_probe.personas.diagnostic import Channel
from persona_probe.statistics import Estimate, cluster_bootstrap

RESAMPLES = 2000
LEVEL = 0.95
AGREE = 0.3
"""Below this agreement of the channels a result is titled "self-report only"."""
CHANNELS: tuple[Channel, ...] = ("self-report", "behaviour")
Shift = Float[np.ndarray, "draw dimension"]


@dataclass(frozen=True)
class SignAgreement:
    """Does a steered model move each dimension the way finetuning did?

    Attributes:
        share: of the dimensions that finetuning moved, those moved the same way; NaN for none.
        moved: the dimensions whose interval under finetuning excludes 0.
        same: those of them that were moved the same way.
    """

    share: float
    moved: tuple[str, ...]
    same: tuple[str, ...]


@dataclass(frozen=True)
class ChannelAgreement:
    """Do statements and scenarios tell of the same shift?

    Attributes:
        correlation: over dimensions, of the self-report shift with the behavioural one.
        self_report, behaviour: the shift per dimension.
    """

    correlation: Estimate
    self_report: Mapping[str, float]
    behaviour: Mapping[str, float]

    @property
    def title(self) -> str:
        """What a result may be called."""
        agrees = self.correlation.value >= AGREE
        return "self-report and behaviour" if agrees else "self-report only"

    def to_json(self) -> dict[str, Any]:
        return {
            "correlation": self.correlation.to_json(),
            "self_report": dict(self.self_report),
            "behaviour": dict(self.behaviour),
            "title": self.title,
        }


@dataclass(frozen=True)
class DoubleDissociation:
    """The shared vector should move safety and not whose profile it is, the specific one the other.

    Attributes:
        shared_safety, shared_margin: what steering with the part that all personas share does to
            the safe rate, and to the margin of identification.
        specific_safety, specific_margin: the same for the part that is one persona's own.
    """

    shared_safety: Estimate
    shared_margin: Estimate
    specific_safety: Estimate
    specific_margin: Estimate

    @property
    def shown(self) -> bool:
        """Both effects exclude 0 and are larger than the crossed ones, whose intervals hold 0.

        An interval that holds 0 does not show that there is no effect: look at its width.
        """
        moves = self.shared_safety.low > 0 and self.specific_margin.low > 0
        crossed = (self.shared_margin, self.specific_safety)
        still = all(e.defined and not e.excludes(0.0) for e in crossed)
        return bool(moves and still)


def sign_agreement(
    steered: Profile,
    before: Profile,
    finetuned: Profile,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SignAgreement:
    """Compare signs of shifts on the dimensions that finetuning moved beyond chance."""
    _require_same_items([steered, before, finetuned])
    new, target = steered.by_dimension, finetuned.by_dimension
    old = before.by_dimension
    moved = tuple(
        d
        for d, estimate in _shifts(finetuned, before, resamples, seed).items()
        if estimate.excludes(0.0)
    )
    same = tuple(d for d in moved if (new[d] - old[d]) * (target[d] - old[d]) > 0)
    return SignAgreement(len(same) / len(moved) if moved else float("nan"), moved, same)


def channel_agreement(
    after: Profile, before: Profile, resamples: int = RESAMPLES, seed: int = 0
) -> ChannelAgreement:
    """Correlate, over dimensions, what statements say has moved with what scenarios say.

    Undefined unless at least three dimensions have items of both channels. Items are resampled
    within each dimension and channel, which may hold a few items only; the interval is the middle
    of the resamples, widened to hold the value.
    """
    _require_same_items([after, before])
    change = after.scores - before.scores
    of = np.array([item.dimension for item in after.items])
    channel = np.array([item.channel for item in after.items])
    both = [
        d for d in after.dimensions if all(((of == d) & (channel == c)).any() for c in CHANNELS)
    ]
    belongs = [
        np.array([(of == d) & (channel == c) for d in both]).reshape(len(both), len(of))
        for c in CHANNELS
    ]

    def means(weights: Float[np.ndarray, "draw item"]) -> list[Shift]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return [weights @ (b * change).T / (weights @ b.T) for b in belongs]

    n = len(after.items)
    said, done = ({d: float(v) for d, v in zip(both, m[0], strict=True)}
                  for m in means(np.ones((1, n))))  # fmt: skip
    if len(both) < 3:
        reason = f"{len(both)} dimensions have items of both channels, at least 3 are needed"
        return ChannelAgreement(Estimate.undefined(reason, n), said, done)

    value = float(_correlations(*means(np.ones((1, n))))[0])
    strata = [np.flatnonzero(row) for table in belongs for row in table]
    draws = _correlations(*means(_within(strata, n, resamples, seed)))
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return ChannelAgreement(Estimate.undefined("a channel did not move", n, n), said, done)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found = Estimate(value, min(float(low), value), max(float(high), value), n, n, LEVEL)
    return ChannelAgreement(found, said, done)


def _within(
    strata: Sequence[Int[np.ndarray, " member"]], n: int, resamples: int, seed: int
) -> Float[np.ndarray, "draw item"]:
    """How often each item occurs in each resample, when every stratum keeps its size."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, n))
    for members in strata:
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = rng.multinomial(len(members), share, size=resamples)
    return weights


def partial_match(
    after: Profile,
    before: Profile,
    signature: Mapping[str, float],
    nuisances: Sequence[Profile],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Match with a signature once caution, style and the like are taken out.

    What the shift and the signature have in common with the nuisances' shifts (a cautious, terse
    or verbose character in the system line, say) is removed from both by least squares over the
    dimensions; the correlation of what is left is returned.

    Args:
        after: the profile in question.
        before: the profile that all shifts start from.
        signature: expected score of each dimension.
        nuisances: profiles over the same items.
        resamples: bootstrap draws of items.
        seed: of the draws.

    Raises:
        RequestError: the profiles are over other items, or there are too many nuisances for the
            dimensions.
    """
    _require_same_items([after, before, *nuisances])
    if len(nuisances) > len(after.dimensions) - 3:
        raise RequestError(
            f"{len(nuisances)} nuisances leave nothing of {len(after.dimensions)} dimensions"
        )
    expected = np.array([signature[d] for d in after.dimensions], dtype=np.float64)
    of = np.array([item.dimension for item in after.items])
    belongs = of == np.array(after.dimensions)[:, None]
    changes = [p.scores - before.scores for p in (after, *nuisances)]

    def statistic(weights: Float[np.ndarray, "draw item"]) -> np.ndarray:
        counts = weights @ belongs.T
        with np.errstate(divide="ignore", invalid="ignore"):
            shift, *others = (weights @ (belongs * c).T / counts for c in changes)
        found = np.full(len(weights), np.nan)
        for i in np.flatnonzero(np.isfinite(shift).all(axis=1)):
            axes = np.column_stack([np.ones(len(expected)), *(o[i] for o in others)])
            left = [v - axes @ np.linalg.lstsq(axes, v, rcond=None)[0]
                    for v in (shift[i], expected)]  # fmt: skip
            found[i] = _correlations(left[0][None], left[1][None])[0]
        return found

    n = len(after.items)
    return cluster_bootstrap(statistic, n, n, resamples=resamples, seed=seed)[0]


def _shifts(after: Profile, before: Profile, resamples: int, seed: int) -> dict[str, Estimate]:
    """The shift of each dimension, with the interval over its items."""
    of = np.array([item.dimension for item in after.items])
    belongs = of == np.array(after.dimensions)[:, None]
    change = after.scores - before.scores

    def statistic(weights: Float[np.ndarray, "draw item"]) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(weights @ (belongs * change).T / (weights @ belongs.T))

    n = len(after.items)
    found = cluster_bootstrap(statistic, n, n, resamples=resamples, seed=seed)
    return dict(zip(after.dimensions, found, strict=True))


def _correlations(first: Shift, second: Shift) -> Float[np.ndarray, " draw"]:
    """Pearson correlation row by row; NaN where a row does not vary."""
    a = first - first.mean(axis=1, keepdims=True)
    b = second - second.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    defined = lengths > 1e-12
    found: np.ndarray = np.where(
        defined, (a * b).sum(axis=1) / np.where(defined, lengths, 1.0), np.nan
    )
    return found


def _require_same_items(several: Sequence[Profile]) -> None:
    if any(profile.items != several[0].items for profile in several):
        raise RequestError(
            "profiles over different items cannot be compared; score the same diagnostic"
        )
