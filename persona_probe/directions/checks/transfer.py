"""Does the direction of one contrast detect another? AUROC of direction c on contrast c'."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.separation import auroc_statistic
from persona_probe.directions.classes import both_classes, projections
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, common_sites
from persona_probe.errors import DegenerateClassesError, RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, cluster_index, cluster_jackknife
from persona_probe.statistics.bootstrap import Statistic, Weights

NO_OTHER = "there is only one persona"


@dataclass(frozen=True)
class TransferMatrix:
    """AUROC of every direction on every contrast at one site; chance is 0.5.

    Attributes:
        site: where.
        directions: names of the rows, whose direction scores.
        contrasts: names of the columns, what is to be told from neutral.
        auroc: row by row. Not symmetric: a direction may detect a persona whose own direction does
            not detect the first.
        dominance: mean of the diagonal minus mean of the rest, on the same families.
        asymmetry: mean |T[a, b] - T[b, a]| over pairs; noise alone makes it positive.
    """

    site: Site
    directions: tuple[str, ...]
    contrasts: tuple[str, ...]
    auroc: tuple[tuple[Estimate, ...], ...]
    dominance: Estimate
    asymmetry: float

    def cell(self, direction: str, contrast: str) -> Estimate:
        """AUROC of one direction on one contrast."""
        return self.auroc[self.directions.index(direction)][self.contrasts.index(contrast)]


def transfer_matrix(directions: DirectionSet, held_out: ActivationSet) -> list[TransferMatrix]:
    """Transfer at every site that all directions have, with intervals over families.

    Args:
        directions: of several personas; each one's labels say what its contrast is.
        held_out: activations with all those labels, of families that no direction was found on.

    Raises:
        SplitLeakError: a direction was found or selected on a held-out family.
        DegenerateClassesError: a label is missing.
    """
    sites, names = common_sites(directions), tuple(directions)
    several = [directions[name][site] for name in names for site in sites]
    for direction in several:
        direction.check_held_out(held_out.families)
    scores = projections(several, held_out).numpy()
    _, n_families = cluster_index(held_out.families)
    columns = [_contrast(directions[name][sites[0]], held_out, scores) for name in names]
    shape = len(names), len(sites), len(names)

    def areas(weights: Weights) -> Float[np.ndarray, "draw row contrast"]:
        """All cells; rows are [direction, site]."""
        return np.stack([column.areas(weights) for column in columns], axis=2)

    def dominance(weights: Weights) -> Float[np.ndarray, "draw site"]:
        table = areas(weights).reshape(len(weights), *shape)
        own = np.einsum("wasa->ws", table) / len(names)
        others = table.sum(axis=(1, 3)) - own * len(names)
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = others / (len(names) * (len(names) - 1))
        return np.asarray(own - rest)

    n = len(held_out)
    dominances = cluster_jackknife(dominance, n, n_families)
    cells = [column.estimates() for column in columns]
    table = np.array(cells, dtype=object).T.reshape(shape)
    return [
        TransferMatrix(
            site=site,
            directions=names,
            contrasts=names,
            auroc=tuple(tuple(row) for row in table[:, i].tolist()),
            dominance=dominances[i] if len(names) > 1 else Estimate.undefined(NO_OTHER, n),
            asymmetry=_asymmetry([[cell.value for cell in row] for row in table[:, i].tolist()]),
        )
        for i, site in enumerate(sites)
    ]


def transfer_on_the_rest(directions: DirectionSet, prompted: ActivationSet) -> list[TransferMatrix]:
    """The same on the families of `prompted` that no direction was found or selected on.

    Directions whose labels do not occur there are left out; without any, the list is empty.

    Raises:
        RequestError: no family is left.
    """
    there = set(prompted.labels)
    known = {
        persona: by_site
        for persona, by_site in directions.items()
        if {d.positive_label for d in by_site.values()} <= there
        and {d.negative_label for d in by_site.values()} <= there
    }
    if not known:
        return []
    used = frozenset[str]().union(*(d.families_used for s in known.values() for d in s.values()))
    rest = set(prompted.families) - used
    if not rest:
        raise RequestError(
            "the directions were found on every family of these activations; test their transfer "
            "on others"
        )
    return transfer_matrix(known, prompted.where(families=rest))


@dataclass(frozen=True, eq=False)
class _Column:
    """Every direction's scores on the examples of one contrast.

    Attributes:
        scores: of the contrast's examples.
        y: true for its positive class.
        family: of each example, numbered over all contrasts, so that all leave out alike.
        n_families: of all contrasts together.
    """

    scores: Float[np.ndarray, "row example"]
    y: np.ndarray
    family: np.ndarray
    n_families: int

    @property
    def areas(self) -> Statistic:
        """AUROC of all rows, from the weights of all contrasts' families."""
        return _by_row(self.scores, self.y, self.family, self.n_families)

    def estimates(self) -> list[Estimate]:
        """AUROC of all rows; the interval counts the families that this contrast has."""
        there, family = np.unique(self.family, return_inverse=True)
        statistic = _by_row(self.scores, self.y, family, len(there))
        return cluster_jackknife(statistic, len(self.y), len(there), bounded=True)


def _contrast(
    direction: Direction, held_out: ActivationSet, scores: Float[np.ndarray, "row example"]
) -> _Column:
    labels = direction.positive_label, direction.negative_label
    try:
        _, y = both_classes(held_out, *labels)
    except DegenerateClassesError as error:
        raise DegenerateClassesError(f"the contrast of {direction.persona!r}: {error}") from None
    rows = np.flatnonzero(np.isin(held_out.labels, labels))
    family, n_families = cluster_index(held_out.families)
    return _Column(scores[:, rows], y.numpy(), family[rows], n_families)


def _by_row(
    scores: Float[np.ndarray, "row example"],
    y: np.ndarray,
    family: np.ndarray,
    n_families: int,
) -> Statistic:
    """`auroc_statistic` of one row after the other: all wins at once would not fit in memory."""
    each = [auroc_statistic(row[None], y, family, n_families) for row in scores]
    return lambda weights: np.hstack([statistic(weights) for statistic in each])


def _asymmetry(table: Sequence[Sequence[float]]) -> float:
    values = np.asarray(table, dtype=np.float64)
    if len(values) < 2:
        return float("nan")
    return float(np.abs(values - values.T)[np.triu_indices(len(values), 1)].mean())
