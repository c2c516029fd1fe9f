"""Does the diagnostic measure what it should, on this model? What answers owe to their form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.evaluation.profile import Profile
from persona_probe.evaluation.rating import LEAST_MASS
from persona_probe.personas.diagnostic import SCENARIO
from persona_probe.statistics import (
    Estimate,
    cluster_bootstrap,
    correlation_interval,
    mean_interval,
)

FEWEST_SHIFTS = 4
RESAMPLES = 2000


@dataclass(frozen=True)
class Instrument:
    """What one arm's answers owe to form rather than content.

    Attributes:
        option_mass: mean probability that an answer is any of the options.
        flagged: items on which that is below one half. items: all but scenarios.
        in_words: statements that were read from the options' words for want of label mass.
        acquiescence: mean agreement over the positive and the negative statements alike, in
            [-1, 1]; a model that answers by content is at 0.
        order_effect: mean agreement when the first label agrees most, minus when it agrees least.
        label_effect: mean agreement under digits minus under letters (in the scale's order).
        format_error: standard deviation of a statement's agreement between forms. Probabilities
            are read and nothing is sampled, so no sampling variance has to be taken off.
    """

    option_mass: float
    flagged: int
    items: int
    in_words: int
    acquiescence: Estimate
    order_effect: Estimate
    label_effect: Estimate
    format_error: float

    def to_json(self) -> dict[str, Any]:
        return {
            name: value.to_json() if isinstance(value, Estimate) else _plain(value)
            for name, value in vars(self).items()
        }


def check_instrument(profile: Profile, resamples: int = RESAMPLES, seed: int = 0) -> Instrument:
    """Measure what the form does to one arm's answers; items are resampled."""
    options = {"resamples": resamples, "seed": seed}
    words = profile.in_words
    # The replies of scenarios are given, so there is no option to be outside of.
    mass = profile.option_mass[[item.format != SCENARIO for item in profile.items]]
    return Instrument(
        option_mass=float(mass.mean()) if len(mass) else float("nan"),
        flagged=int((mass < LEAST_MASS).sum()),
        items=len(mass),
        in_words=0 if words is None else int(words.sum()),
        acquiescence=_acquiescence(profile, options),
        order_effect=_difference(profile, [not f.descending for f in profile.forms], options),
        label_effect=_difference(profile, _first_labels(profile), options),
        format_error=_format_error(profile),
    )


def reverse_consistency(after: Sequence[Profile], before: Profile) -> dict[str, Estimate]:
    """Do positively and negatively keyed statements of a dimension move together?

    Per dimension the correlation, over the arms in `after`, of the shift of its positive half with
    that of its negative half. One deterministic model has no variance of its own, so arms (models,
    seeds, strengths) take the place of persons; below four of them there is no value. Scenarios do
    not enter: they have one key.
    """
    return {dimension: _over_arms(after, before, dimension) for dimension in before.dimensions}


def half_shifts(
    after: Sequence[Profile], before: Profile, dimension: str
) -> Float[np.ndarray, "2 arm"] | None:
    """How far each arm moved a dimension's positive and its negative half, keyed alike.

    `None` where the dimension has statements of one key only.
    """
    halves = [_half(before, dimension, key) for key in (1, -1)]
    if not all(half.any() for half in halves):
        return None
    change = np.array([p.scores - before.scores for p in after]).reshape(len(after), -1)
    return np.array([change[:, half].mean(axis=1) for half in halves])


def _over_arms(after: Sequence[Profile], before: Profile, dimension: str) -> Estimate:
    n = len(after)
    shifts = half_shifts(after, before, dimension)
    if shifts is None:
        return Estimate.undefined("statements of one key only", n)
    if n < FEWEST_SHIFTS:
        return Estimate.undefined(f"{n} arms, a correlation needs {FEWEST_SHIFTS}", n)
    if (shifts.std(axis=1) < 1e-9).any():
        return Estimate.undefined("one half did not move", n)

    return correlation_interval(shifts[0], shifts[1], resamples=RESAMPLES)


def _half(profile: Profile, dimension: str, key: int) -> Bool[np.ndarray, " item"]:
    return np.array(
        [
            item.dimension == dimension and item.key == key and item.channel == "self-report"
            for item in profile.items
        ],
        dtype=bool,
    )


def _acquiescence(profile: Profile, options: dict[str, int]) -> Estimate:
    said = np.array([item.channel == "self-report" for item in profile.items], dtype=bool)
    keys = np.array([item.key for item in profile.items])
    halves = [said & (keys == key) for key in (1, -1)]
    if not all(half.any() for half in halves):
        return Estimate.undefined("statements of one key only", int(said.sum()))
    agreement = profile.agreement

    def statistic(weights: Float[np.ndarray, "draw item"]) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [weights @ (half * agreement) / (weights @ half) for half in halves]
        return np.asarray(sum(means) / 2)

    n = len(profile.items)
    found = cluster_bootstrap(statistic, int(said.sum()), n, **options)  # type: ignore[arg-type]
    return found[0]


def _difference(profile: Profile, first: list[bool], options: dict[str, int]) -> Estimate:
    """Mean agreement in some forms minus that in the others; statements are the clusters."""
    chosen = np.array(first, dtype=bool)
    if profile.by_form is None or not chosen.any() or chosen.all():
        return Estimate.undefined("the items have one form only")
    rated = ~np.isnan(profile.by_form).any(axis=1)
    table = profile.by_form[rated]
    values = table[:, chosen].mean(axis=1) - table[:, ~chosen].mean(axis=1)
    names = [item.id for item, kept in zip(profile.items, rated, strict=True) if kept]
    return mean_interval(values, names, **options)


def _first_labels(profile: Profile) -> list[bool]:
    kinds = list(dict.fromkeys(form.labels for form in profile.forms))
    return [form.labels == kinds[0] for form in profile.forms]


def _format_error(profile: Profile) -> float:
    if profile.by_form is None or len(profile.forms) < 2:
        return float("nan")
    rated = ~np.isnan(profile.by_form).any(axis=1)
    return float(np.sqrt(profile.by_form[rated].var(axis=1, ddof=1).mean()))


def _plain(value: float | int) -> float | int | None:
    return None if value != value else value
