"""Whose profile is it? Shifts of a profile against signatures and against other profiles.

What counts is dP = P(model) - P(before): most models lean one way already. All intervals resample
items, the same ones for every profile compared; the parametric p-value of a correlation over a
handful of dimensions means nothing and is never computed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from persona_probe.errors import RequestError
from persona_probe.evaluation.match_interval import match_interval
from persona_probe.evaluation.profile import Profile
from persona_probe.statistics import Estimate, cluster_bootstrap, permutation_p

Table: TypeAlias = Float[np.ndarray, "draw dimension"]
Values: TypeAlias = np.ndarray  # [draw], or [draw out] for several outputs
Signature: TypeAlias = Mapping[str, float]
RESAMPLES = 2000


@dataclass(frozen=True)
class SignatureMatch:
    """How well a shift agrees with a signature.

    Attributes:
        pearson: correlation over dimensions (the cosine of the centred vectors).
        spearman: rank correlation over dimensions.
        p: share of signatures with permuted dimensions that match at least as well.
    """

    pearson: Estimate
    spearman: Estimate
    p: float


@dataclass(frozen=True)
class Identification:
    """Which of several signatures a shift fits best.

    Attributes:
        best: name of the best match; `None` when nothing moved.
        matches: name → Pearson correlation of the shift with that signature.
        margin: match with the own signature minus that with the best other.
    """

    own: str
    best: str | None
    matches: Mapping[str, Estimate]
    margin: Estimate

    @property
    def correct(self) -> bool:
        """Whether the best match is the own one."""
        return self.best == self.own


def signature_match(
    after: Profile,
    before: Profile,
    signature: Signature,
    permutations: int = 2000,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SignatureMatch:
    """Correlate the shift from `before` to `after` with a signature over the same dimensions."""
    expected = _vector(signature, after.dimensions)

    def spearman(new: Table, old: Table) -> Values:
        return _correlation(rankdata(new - old, axis=1), rankdata(expected))

    ranks = _estimate(spearman, [after, before], resamples, seed)
    shift = _shift(after, before)
    value = float(_correlation(shift[None], expected)[0])
    items = after.scores - before.scores
    orders = np.tile(expected, (permutations, 1))
    null = _correlation(np.random.default_rng(seed).permuted(orders, axis=1), shift)
    return SignatureMatch(
        pearson=match_interval(value, items, _belongs(after), expected, resamples, seed),
        spearman=ranks,
        p=permutation_p(value, null),
    )


def moved(
    after: Profile,
    before: Profile,
    target: Profile | Signature,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """How far the profile went towards a target: 0 not at all, 1 all the way, no clipping.

    The projection dP·dT / dT·dT of the shift dP on the target's own shift dT = P(target) -
    P(before). What goes sideways does not count; `recovery` punishes it.

    Args:
        after: the profile in question.
        before: the profile that both shifts start from.
        target: another model's profile, or a table of expected scores per dimension.
        resamples: bootstrap draws of items.
        seed: of the draws.
    """
    if isinstance(target, Profile):
        return _estimate(_projection, [after, before, target], resamples, seed)
    goal = _vector(target, after.dimensions)

    def towards_table(new: Table, old: Table) -> Values:
        return _projection(new, old, np.broadcast_to(goal, new.shape))

    return _estimate(towards_table, [after, before], resamples, seed)


def shift_cosine(
    after: Profile, before: Profile, target: Profile, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Cosine between the shift to `after` and the shift to `target`, both from `before`."""

    def cosine(new: Table, old: Table, goal: Table) -> Values:
        a, b = new - old, goal - old
        return _ratio((a * b).sum(axis=1), np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))

    return _estimate(cosine, [after, before, target], resamples, seed)


def recovery(
    steered: Profile,
    before: Profile,
    finetuned: Profile,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """1 - |P(S) - P(F)| / |P(H) - P(F)|: 1 identical to F, 0 no nearer than H, below 0 away."""

    def nearness(s: Table, h: Table, f: Table) -> Values:
        return 1 - _ratio(np.linalg.norm(s - f, axis=1), np.linalg.norm(h - f, axis=1))

    return _estimate(nearness, [steered, before, finetuned], resamples, seed)


def identify(
    after: Profile,
    before: Profile,
    signatures: Mapping[str, Signature],
    own: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Identification:
    """Match the shift with every signature, and `own` against the best of the others.

    Raises:
        RequestError: `own` is not among the signatures, or is the only one.
    """
    if own not in signatures or len(signatures) < 2:
        raise RequestError(
            f"identification needs the signature of {own!r} and at least one other, "
            f"got {', '.join(signatures)}"
        )
    names = [own, *(name for name in signatures if name != own)]
    expected = [_vector(signatures[name], after.dimensions) for name in names]

    def matches(new: Table, old: Table) -> Values:
        return np.column_stack([_correlation(new - old, vector) for vector in expected])

    def margin(new: Table, old: Table) -> Values:
        mine, *others = matches(new, old).T
        return np.asarray(mine - np.max(others, axis=0))

    each = _estimates(matches, [after, before], resamples, seed)
    values = np.array([estimate.value for estimate in each])
    return Identification(
        own=own,
        best=None if np.isnan(values).any() else names[int(values.argmax())],
        matches={name: each[names.index(name)] for name in signatures},
        margin=_estimate(margin, [after, before], resamples, seed),
    )


def advantage(
    after: Profile,
    rivals: Sequence[Profile],
    before: Profile,
    target: Profile | Signature,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """How much more a profile is the target's than the best of its rivals is.

    For a signature the measure is the correlation of `signature_match`, for another model's
    profile the projection of `moved`; the rivals are compared on the same resampled items.

    Args:
        after: the profile in question.
        rivals: profiles that should be further from the target, for instance under other
            directions; the best of them is subtracted.
        before: the profile that all shifts start from.
        target: a table of expected scores, or the profile to be reached.
        resamples: bootstrap draws of items.
        seed: of the draws.
    """
    if not rivals:
        return Estimate.undefined("no rival to compare with")
    goal = target if isinstance(target, Profile) else before
    expected = None if isinstance(target, Profile) else _vector(target, after.dimensions)

    def reach(new: Table, old: Table, wanted: Table) -> np.ndarray:
        return (
            _projection(new, old, wanted) if expected is None else _correlation(new - old, expected)
        )

    def lead(old: Table, wanted: Table, new: Table, *others: Table) -> np.ndarray:
        best = np.max([reach(other, old, wanted) for other in others], axis=0)
        return np.asarray(reach(new, old, wanted) - best)

    return _estimate(lead, [before, goal, after, *rivals], resamples, seed)


def dimension_scores(
    profile: Profile, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """A profile's score on each dimension, with the interval over resampled items."""
    found = _estimates(lambda table: table, [profile], resamples, seed)
    asked = Counter(item.dimension for item in profile.items)
    return {
        dimension: replace(estimate, n=asked[dimension], n_clusters=asked[dimension])
        for dimension, estimate in zip(profile.dimensions, found, strict=True)
    }


def _estimate(
    function: Callable[..., Values], several: Sequence[Profile], resamples: int, seed: int
) -> Estimate:
    return _estimates(function, several, resamples, seed)[0]


def _estimates(
    function: Callable[..., Values], several: Sequence[Profile], resamples: int, seed: int
) -> list[Estimate]:
    """Interval of a function of profiles, [draw dimension] each, over resampled items."""
    first = several[0]
    if any(profile.items != first.items for profile in several):
        raise RequestError(
            "profiles over different items cannot be compared; score the same diagnostic"
        )
    n = len(first.items)
    belongs = _belongs(first)
    if not belongs.any(axis=1).all():
        empty = first.dimensions[int(np.argmin(belongs.any(axis=1)))]
        raise RequestError(f"the dimension {empty!r} has no items, so no profile can be compared")

    def statistic(weights: Float[np.ndarray, "draw item"]) -> Values:
        counts = weights @ belongs.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(*(weights @ (belongs * p.scores).T / counts for p in several))

    return cluster_bootstrap(statistic, n, n, resamples=resamples, seed=seed)


def _belongs(profile: Profile) -> Bool[np.ndarray, "dimension item"]:
    """Which items measure which dimension."""
    of = np.array([item.dimension for item in profile.items])
    return np.asarray(of == np.array(profile.dimensions)[:, None])


def _projection(new: Table, old: Table, goal: Table) -> Float[np.ndarray, " draw"]:
    """dP·dT / dT·dT of each draw."""
    step = goal - old
    return _ratio(((new - old) * step).sum(axis=1), (step**2).sum(axis=1))


def _shift(after: Profile, before: Profile) -> Float[np.ndarray, " dimension"]:
    new, old = after.by_dimension, before.by_dimension
    return np.array([new[d] - old[d] for d in after.dimensions])


def _vector(signature: Signature, dimensions: Sequence[str]) -> Float[np.ndarray, " dimension"]:
    if missing := [d for d in dimensions if d not in signature]:
        raise RequestError(f"the signature has no value for the dimension {missing[0]!r}")
    return np.array([signature[d] for d in dimensions], dtype=np.float64)


def _correlation(
    table: Table, vector: Float[np.ndarray, " dimension"]
) -> Float[np.ndarray, " draw"]:
    """Pearson correlation of each row with the vector; NaN where either does not vary."""
    rows = table - table.mean(axis=1, keepdims=True)
    centred = vector - vector.mean()
    return _ratio(rows @ centred, np.linalg.norm(rows, axis=1) * np.linalg.norm(centred))


def _ratio(
    numerator: Float[np.ndarray, " draw"], denominator: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, " draw"]:
    """Quotient; NaN where the denominator vanishes up to rounding."""
    defined = denominator > 1e-12
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)
