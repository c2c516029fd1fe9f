"""Directions that should not work: the controls of every claim about one that does.

Each takes {site: direction} and returns the same shape, with the same gap and the same residual
norm per site, so that a strength means the same thing. Random draws depend on the seed and the
layer only: another choice of sites does not change them.

    isotropic             nothing but the norm
    covariance_matched    the norm, and where activations vary
    balanced_shuffles     all that the finder does, without the effect; see `relabelling`
    wrong_constitutions   another persona's direction, at this one's norm
    sign_flipped          the effect should be reversed
    orthogonalised_to     what is left without refusal, length, format, the shared part s
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.checks.relabelling import balanced_relabellings
from persona_probe.directions.classes import site_first
from persona_probe.directions.direction import Direction, scaled_unit
from persona_probe.directions.finder import Finder, fit_oriented
from persona_probe.errors import RequestError
from persona_probe.models.site import Site

BySite = Mapping[Site, Direction]

EVERY = "all"  # name of the control that is rid of every nuisance at once


def isotropic(directions: BySite, draws: int, seed: int = 0) -> list[dict[Site, Direction]]:
    """Uniformly random directions."""
    vectors = {
        site: torch.from_numpy(_rng(seed, site).standard_normal((draws, len(direction.unit))))
        for site, direction in directions.items()
    }
    return _in_place_of(directions, vectors, "random_isotropic", seed)


def covariance_matched(
    directions: BySite, activations: ActivationSet, draws: int, seed: int = 0
) -> list[dict[Site, Direction]]:
    """Random directions from N(0, S), S the covariance of `activations` at the site.

    Activations vary far more along some axes than along others; this control puts its energy where
    they do. Drawn as random mixtures of centred activations, which have exactly that covariance.
    """
    x = site_first(activations, list(directions))
    x = x - x.mean(dim=1, keepdim=True)
    vectors = {
        site: torch.from_numpy(_rng(seed, site).standard_normal((draws, x.shape[1]))) @ x[i]
        for i, site in enumerate(directions)
    }
    return _in_place_of(directions, vectors, "random_covariance", seed)


def balanced_shuffles(
    directions: BySite, activations: ActivationSet, finder: Finder, draws: int, seed: int = 0
) -> list[dict[Site, Direction]]:
    """What the finder finds when exactly half of the labels are exchanged; see `relabelling`.

    Args:
        directions: the true ones.
        activations: those they were found on.
        finder: the one they were found with.
        draws: how many.
        seed: of the relabelling.
    """
    first = next(iter(directions.values()))
    labels = first.positive_label, first.negative_label
    data = Labelled.of(activations, *labels, sites=list(directions))
    rng = np.random.default_rng(seed)
    relabelled = balanced_relabellings(data.y, *data.exchangeable(), draws, rng)
    raw = fit_oriented(finder, data.x, *relabelled, data.design)
    vectors = {site: raw[:, i] for i, site in enumerate(directions)}
    return _in_place_of(directions, vectors, "balanced_shuffle", seed)


def sign_flipped(directions: BySite) -> dict[Site, Direction]:
    """-v, still claiming to point to the positive class: its effect should be reversed."""
    return {
        site: replace(d, unit=-d.unit, midpoint=-d.midpoint, finder="sign_flipped")
        for site, d in directions.items()
    }


def norm_matched(other: BySite, directions: BySite) -> dict[Site, Direction]:
    """Another direction (the wrong persona's) with the gaps and residual norms of the true ones."""
    return {
        site: replace(other[site], gap=d.gap, norm=d.norm, midpoint=math.nan)
        for site, d in directions.items()
    }


def wrong_constitutions(
    personas: Mapping[str, BySite], persona: str
) -> dict[str, dict[Site, Direction]]:
    """Every other persona's directions at the norm of this persona's, by name.

    Raises:
        RequestError: this persona is not there, or another lacks one of its sites.
    """
    if persona not in personas:
        raise RequestError(f"no direction of {persona!r}; there are {', '.join(personas)}")
    found = {}
    for name, other in personas.items():
        if missing := [site for site in personas[persona] if site not in other]:
            raise RequestError(f"no direction of {name!r} at {missing[0]} to compare with")
        if name != persona:
            found[name] = norm_matched(other, personas[persona])
    return found


def orthogonalised(directions: BySite, *others: BySite) -> dict[Site, Direction]:
    """What is left without the span of the others (refusal, length, topic, s), at the full gap."""
    return {
        site: replace(
            d.orthogonalised(*(other[site] for other in others)),
            gap=d.gap,
            finder=f"{d.finder}_orthogonalised",
        )
        for site, d in directions.items()
    }


def orthogonalised_to(
    directions: BySite, nuisances: Mapping[str, BySite]
) -> dict[str, dict[Site, Direction]]:
    """`orthogonalised` to each nuisance alone, by its name, and, of several, to "all" of them."""
    found = {name: orthogonalised(directions, other) for name, other in nuisances.items()}
    if len(nuisances) > 1:
        found[EVERY] = orthogonalised(directions, *nuisances.values())
    return found


def _in_place_of(
    directions: BySite,
    vectors: Mapping[Site, Float[Tensor, "draw d_model"]],
    finder: str,
    seed: int,
) -> list[dict[Site, Direction]]:
    """One {site: direction} per draw, with everything but the vector as in the true ones."""
    draws = len(next(iter(vectors.values())))
    return [
        {
            site: replace(
                direction,
                unit=scaled_unit(
                    vectors[site][draw] / vectors[site][draw].norm() * direction.gap, direction.gap
                ),
                midpoint=math.nan,
                finder=finder,
                provenance=direction.provenance.with_(seed=seed),
            )
            for site, direction in directions.items()
        }
        for draw in range(draws)
    ]


def _rng(seed: int, site: Site) -> np.random.Generator:
    return np.random.default_rng([seed, site.layer])
