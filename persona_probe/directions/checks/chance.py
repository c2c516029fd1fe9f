"""What would chance give: directions found on labels that hold none of the effect."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.checks.relabelling import (
    balanced_relabellings,
    class_group,
    random_halves,
)
from persona_probe.directions.checks.reliability import CHUNK, fits, has_both_classes
from persona_probe.directions.checks.separation import auroc
from persona_probe.directions.classes import class_means
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import Finder, fit_oriented
from persona_probe.statistics import Estimate, cluster_index, json_number, permutation_p

SAME_AXIS = 0.7  # mean |cosine| of shuffles to the true direction
NO_NULL = "shuffled labels give the same axis, so shuffles are no null for this finder"


@dataclass(frozen=True)
class Chance:
    """What the same finder gives on labels without the effect; ranges are the middle 95 % of draws.

    Attributes:
        auroc: held-out AUROC of directions found on balanced shuffles of the labels; undefined
            where `without_labels`.
        cosine: their |cosine| to the true direction.
        p: share of them (the true one included) that separates as well as the true one; NaN where
            `without_labels`.
        control_accuracy: balanced accuracy on labels that name families only.
        selectivity: held-out balanced accuracy minus the mean `control_accuracy`, with the interval
            of the former.
        p_over_sites: as `p`, against the largest AUROC of all sites in each draw (max-T).
    """

    auroc: Estimate
    cosine: Estimate
    p: float
    control_accuracy: Estimate
    selectivity: Estimate
    p_over_sites: float = math.nan

    @property
    def without_labels(self) -> bool:
        """Whether shuffled labels give the same axis, so that shuffles would test only its sign.

        So it is for finders that ask who is paired with whom and not who is in which class: there
        is no relabelling null for them. Pairing prompts anew would not be one either: it adds the
        differences between prompts, which true pairs do not have. What permutes the held-out labels
        and leaves the direction alone (`ValidationRow.p`) is valid for them as for any other.
        """
        return self.cosine.value > SAME_AXIS

    def without_null(self) -> "Chance":
        """The same without what only a null would give, and with the reason."""
        none = Estimate.undefined(NO_NULL, self.auroc.n)
        return replace(self, auroc=none, p=math.nan, p_over_sites=math.nan)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "auroc": self.auroc.to_json(),
            "cosine": self.cosine.to_json(),
            "p": json_number(self.p),
            "p_over_sites": json_number(self.p_over_sites),
            "control_accuracy": self.control_accuracy.to_json(),
            "selectivity": self.selectivity.to_json(),
        }


def chance_levels(
    directions: Sequence[Direction],
    accuracies: Sequence[Estimate],
    finder: Finder,
    found_on: Labelled,
    held_out: Labelled,
    draws: int,
    seed: int,
) -> list[Chance]:
    """Chance at each direction's site.

    Args:
        directions: the true ones, of one contrast.
        accuracies: their held-out balanced accuracies.
        finder: the one that found them.
        found_on: what they were found on, at their sites.
        held_out: examples of other families, at their sites.
        draws: of shuffles and of control tasks.
        seed: of both.
    """
    unit, group = found_on.exchangeable()
    rng = np.random.default_rng(seed)
    true_units = torch.stack([direction.unit.double() for direction in directions])
    shuffles = balanced_relabellings(found_on.y, unit, group, draws, rng)
    aurocs, cosines = shuffle_null(finder, found_on, *shuffles, true_units, held_out)
    control = control_accuracy(finder, found_on, draws, rng)
    along = torch.einsum("sed,sd->se", held_out.x, true_units).numpy()
    observed, largest = auroc(along, held_out.y.numpy()), aurocs.max(axis=1)
    levels = [
        Chance(
            auroc=Estimate.of_draws(aurocs[:, i]),
            cosine=Estimate.of_draws(cosines[:, i]),
            p=permutation_p(float(observed[i]), aurocs[:, i]),
            control_accuracy=(by_family := Estimate.of_draws(control[:, i])),
            selectivity=_shifted(accuracy, by_family),
            p_over_sites=permutation_p(float(observed[i]), largest),
        )
        for i, accuracy in enumerate(accuracies)
    ]
    return [level.without_null() if level.without_labels else level for level in levels]


def shuffle_null(
    finder: Finder,
    found_on: Labelled,
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    true_units: Float[Tensor, "site d_model"],
    held_out: Labelled,
) -> tuple[Float[np.ndarray, "draw site"], Float[np.ndarray, "draw site"]]:
    """Held-out AUROC of directions found on shuffled labels, and their |cosine| to the true ones.

    Args:
        finder: as for the true directions.
        found_on: what the true directions were found on.
        labels: balanced relabellings of it.
        weights: of the relabellings.
        true_units: the true directions.
        held_out: examples of held-out families.
    """
    aurocs, cosines = [], []
    for units in fits(finder, found_on.x, labels, weights, found_on.design):
        scores = torch.einsum("gsd,sed->gse", units, held_out.x)
        aurocs.append(auroc(scores.numpy(), held_out.y.numpy()))
        cosines.append(torch.einsum("gsd,sd->gs", units, true_units).abs().numpy())
    return np.concatenate(aurocs), np.concatenate(cosines)


def control_accuracy(
    finder: Finder, data: Labelled, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "draw site"]:
    """Balanced accuracy on a control task that can be learnt by remembering families only.

    The labels of whole families are exchanged at random, balanced: which class is called positive
    now depends on nothing but the family. The finder sees half of every family's pairs, and is
    tested on the other half of the same families. A finder that scores well here has the capacity
    to memorise, and its accuracy on the real labels says less. After the control tasks of Hewitt &
    Liang 2019, arXiv:1909.03368. NaN where a draw has no example of some class in some half.
    """
    unit, _ = data.exchangeable()
    family, _ = cluster_index(data.families)
    group = class_group(family, data.y)
    labels, weights = balanced_relabellings(data.y, family, group, draws, rng)
    family_of_unit = np.zeros(unit.max() + 1, dtype=np.int64)
    family_of_unit[unit] = family
    seen = torch.from_numpy(random_halves(family_of_unit, draws, rng)[:, unit])
    chunks = [slice(start, start + CHUNK) for start in range(0, draws, CHUNK)]
    accuracies = [_accuracy(finder, data, labels[c], weights[c], seen[c]) for c in chunks]
    return torch.cat(accuracies).numpy()


def _accuracy(
    finder: Finder,
    data: Labelled,
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    seen: Bool[Tensor, "draw example"],
) -> Float[Tensor, "draw site"]:
    accuracies = torch.full((len(labels), len(data.x)), math.nan, dtype=torch.float64)
    train, test = weights * seen, weights * ~seen
    usable = has_both_classes(labels, train)
    labels, train, test = labels[usable], train[usable], test[usable]
    raw = fit_oriented(finder, data.x, labels, train, data.design)
    along = torch.einsum("gsd,sed->gse", raw, data.x)
    positive, negative = class_means(along, labels, train)
    above = along > ((positive + negative) / 2)[..., None]
    hits = class_means((above == labels[:, None]).double(), labels, test)
    accuracies[usable] = (hits[0] + hits[1]) / 2
    return accuracies


def _shifted(accuracy: Estimate, control: Estimate) -> Estimate:
    """`accuracy` minus the value of `control`."""
    if not (accuracy.defined and control.defined):
        return Estimate.undefined(accuracy.reason or control.reason or "", accuracy.n)
    by = control.value
    return replace(
        accuracy, value=accuracy.value - by, low=accuracy.low - by, high=accuracy.high - by
    )
