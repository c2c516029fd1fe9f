"""What would chance give: directions found on labels that hold none of the effect."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.classes import (
    both_classes,
    class_means,
    projections,
    site_first,
)
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import Finder, fit_oriented
from persona_probe.directions.relabelling import (
    balanced_relabellings,
    class_group,
    exchange_units,
    random_halves,
)
from persona_probe.directions.reliability import CHUNK, fits
from persona_probe.directions.separation import auroc
from persona_probe.statistics import Estimate, cluster_index, json_number, permutation_p


@dataclass(frozen=True)
class Chance:
    """What the same finder gives on labels without the effect; ranges are the middle 95 % of draws.

    Attributes:
        auroc: held-out AUROC of directions found on balanced shuffles of the labels.
        cosine: their |cosine| to the true direction.
        p: share of them (the true one included) that separates as well as the true one.
        control_accuracy: balanced accuracy on labels that name families only.
        selectivity: held-out balanced accuracy minus the mean `control_accuracy`, with the interval
            of the former.
    """

    auroc: Estimate
    cosine: Estimate
    p: float
    control_accuracy: Estimate
    selectivity: Estimate

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "auroc": self.auroc.to_json(),
            "cosine": self.cosine.to_json(),
            "p": json_number(self.p),
            "control_accuracy": self.control_accuracy.to_json(),
            "selectivity": self.selectivity.to_json(),
        }


def chance_levels(
    directions: Sequence[Direction],
    accuracies: Sequence[Estimate],
    finder: Finder,
    found_on: ActivationSet,
    held_out: ActivationSet,
    draws: int,
    seed: int,
) -> list[Chance]:
    """Chance at each direction's site.

    Args:
        directions: the true ones, of one contrast.
        accuracies: their held-out balanced accuracies.
        finder: the one that found them.
        found_on: the activations that they were found on.
        held_out: activations of other families.
        draws: of shuffles and of control tasks.
        seed: of both.
    """
    labels = directions[0].positive_label, directions[0].negative_label
    sites = [direction.site for direction in directions]
    found_on, y = both_classes(found_on, *labels)
    held_out, held_out_y = both_classes(held_out, *labels)
    x, held = site_first(found_on, sites), site_first(held_out, sites)
    unit, group = exchange_units(found_on.ids, y)
    rng = np.random.default_rng(seed)
    true_units = torch.stack([direction.unit.double() for direction in directions])
    shuffles = balanced_relabellings(y, unit, group, draws, rng)
    aurocs, cosines = shuffle_null(finder, x, *shuffles, true_units, held, held_out_y.numpy())
    family, _ = cluster_index(found_on.families)
    control = control_accuracy(finder, x, y, unit, family, draws, rng)
    observed = auroc(projections(directions, held_out).numpy(), held_out_y.numpy())
    return [
        Chance(
            auroc=Estimate.of_draws(aurocs[:, i]),
            cosine=Estimate.of_draws(cosines[:, i]),
            p=permutation_p(float(observed[i]), aurocs[:, i]),
            control_accuracy=(by_family := Estimate.of_draws(control[:, i])),
            selectivity=_shifted(accuracy, by_family),
        )
        for i, accuracy in enumerate(accuracies)
    ]


def shuffle_null(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    true_units: Float[Tensor, "site d_model"],
    held_out: Float[Tensor, "site held d_model"],
    held_out_y: Bool[np.ndarray, " held"],
) -> tuple[Float[np.ndarray, "draw site"], Float[np.ndarray, "draw site"]]:
    """Held-out AUROC of directions found on shuffled labels, and their |cosine| to the true ones.

    Args:
        finder: as for the true directions.
        x: activations that the true directions were found on.
        labels: balanced relabellings of them.
        weights: of the relabellings.
        true_units: the true directions.
        held_out: activations of held-out families.
        held_out_y: their true classes.
    """
    aurocs, cosines = [], []
    for units in fits(finder, x, labels, weights):
        scores = torch.einsum("gsd,sed->gse", units, held_out)
        aurocs.append(auroc(scores.numpy(), held_out_y))
        cosines.append(torch.einsum("gsd,sd->gs", units, true_units).abs().numpy())
    return np.concatenate(aurocs), np.concatenate(cosines)


def control_accuracy(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    y: Bool[Tensor, " example"],
    unit: Int[np.ndarray, " example"],
    family: Int[np.ndarray, " example"],
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draw site"]:
    """Balanced accuracy on a control task that can be learnt by remembering families only.

    The labels of whole families are exchanged at random, balanced: which class is called positive
    now depends on nothing but the family. The finder sees half of every family's pairs, and is
    tested on the other half of the same families. A finder that scores well here has the capacity
    to memorise, and its accuracy on the real labels says less. After the control tasks of Hewitt &
    Liang 2019, arXiv:1909.03368. NaN where a draw has no example of some class in some half.
    """
    labels, weights = balanced_relabellings(y, family, class_group(family, y), draws, rng)
    family_of_unit = np.zeros(unit.max() + 1, dtype=np.int64)
    family_of_unit[unit] = family
    seen = torch.from_numpy(random_halves(family_of_unit, draws, rng)[:, unit])
    chunks = [slice(start, start + CHUNK) for start in range(0, draws, CHUNK)]
    accuracies = [_accuracy(finder, x, labels[c], weights[c], seen[c]) for c in chunks]
    return torch.cat(accuracies).numpy()


def _accuracy(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    seen: Bool[Tensor, "draw example"],
) -> Float[Tensor, "draw site"]:
    train, test = weights * seen, weights * ~seen
    along = torch.einsum("gsd,sed->gse", fit_oriented(finder, x, labels, train), x)
    positive, negative = class_means(along, labels, train)
    above = along > ((positive + negative) / 2)[..., None]
    right = (above == labels[:, None]).double()
    hits = class_means(right, labels, test)
    return (hits[0] + hits[1]) / 2


def _shifted(accuracy: Estimate, control: Estimate) -> Estimate:
    """`accuracy` minus the value of `control`."""
    if not (accuracy.defined and control.defined):
        return Estimate.undefined(accuracy.reason or control.reason or "", accuracy.n)
    by = control.value
    return replace(
        accuracy, value=accuracy.value - by, low=accuracy.low - by, high=accuracy.high - by
    )
