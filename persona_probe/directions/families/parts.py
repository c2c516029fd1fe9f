"""What the directions of several personas share, and what is each one's own.

With d_c the raw direction of persona c: the shared part is s = mean_c d_c, the specific part is
p_c = d_c - s, and the energy share of c is ||p_c||^2 / ||d_c||^2. If alignment is shared and
character is specific, steering with s moves safety and steering with p_c moves the profile.

Every direction's own sampling noise is specific to it, so shares are too large when examples are
few; `energy_estimates` takes them from the activations, without that noise.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.relabelling import pair_index
from persona_probe.directions.classes import both_classes, site_first
from persona_probe.directions.direction import Direction, mean_direction
from persona_probe.directions.direction_set import DirectionSet, common_sites, save_directions
from persona_probe.directions.families.products import gram, jackknifed, product_across
from persona_probe.directions.families.shift import Shift
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate
from persona_probe.statistics.bootstrap import Weights

SHARED = "shared"


def shared_part(directions: DirectionSet) -> dict[Site, Direction]:
    """The mean of the personas' raw vectors, at every site that all of them have.

    Raises:
        RequestError: there are fewer than two personas, or they have no site in common.
    """
    if len(directions) < 2:
        raise RequestError(f"a shared part needs two personas or more, got {list(directions)}")
    return {
        site: mean_direction([by_site[site] for by_site in directions.values()], SHARED)
        for site in common_sites(directions)
    }


def specific_parts(directions: DirectionSet) -> dict[str, dict[Site, Direction]]:
    """p_c = d_c - s of every persona at every site that all of them have."""
    shared = shared_part(directions)
    return {
        persona: {site: _specific(by_site[site], shared[site]) for site in shared}
        for persona, by_site in directions.items()
    }


def save_parts(directions: DirectionSet, folder: Path) -> dict[Site, dict[str, float]]:
    """Write the shared and the specific parts to a folder; the energy shares of the latter.

    They are files like any directions: "shared", and "specific-NAME" of every persona.
    """
    parts: dict[str, Mapping[Site, Direction]] = {SHARED: shared_part(directions)}
    for persona, part in specific_parts(directions).items():
        name = f"specific-{persona}"
        parts[name] = {site: replace(direction, persona=name) for site, direction in part.items()}
    save_directions(parts, folder)
    return energy_shares(directions)


def energy_shares(directions: DirectionSet) -> dict[Site, dict[str, float]]:
    """How much of each direction is its own: ||p_c||^2 / ||d_c||^2.

    0 when all directions are equal, (C - 1) / C when all C of them are orthogonal and equally long,
    more for one that opposes the others.
    """
    shared = shared_part(directions)
    return {
        site: {
            persona: _energy(by_site[site], shared[site]) for persona, by_site in directions.items()
        }
        for site in shared
    }


def energy_estimates(
    prompted: ActivationSet, personas: Mapping[str, str], negative: str
) -> dict[Site, dict[str, Estimate]]:
    """Energy shares of mean differences without sampling noise, with intervals over families.

    The squared lengths are taken from products of different families, in which the noise of a
    family does not meet itself. Undefined where a persona's examples are not paired with the
    negative ones: then nothing tells which of them belong together.

    Args:
        prompted: labelled examples that the directions were found on.
        personas: name of each persona to its label.
        negative: label of the class that all of them point away from.

    Raises:
        RequestError: there are fewer than two personas.
        DegenerateClassesError: a label is missing.
    """
    if len(personas) < 2:
        raise RequestError(f"a shared part needs two personas or more, got {list(personas)}")
    paired = {name: _paired(prompted, label, negative) for name, label in personas.items()}
    first = next(iter(paired.values()))
    if first is None or any(p is None or p.families != first.families for p in paired.values()):
        missing = Estimate.undefined("the personas' examples are not in pairs", len(prompted))
        return {site: dict.fromkeys(personas, missing) for site in prompted.sites}
    own = {name: shift for name, shift in paired.items() if shift is not None}
    sums = {name: shift.family_sums for name, shift in own.items()}
    shared = torch.stack(list(sums.values())).mean(dim=0)
    found: dict[Site, dict[str, Estimate]] = {site: {} for site in prompted.sites}
    for name, total in sums.items():
        whole, rest = gram(total, total), gram(total - shared, total - shared)

        def statistic(
            weights: Weights, whole: np.ndarray = whole, rest: np.ndarray = rest
        ) -> Float[np.ndarray, "draw site"]:
            with np.errstate(divide="ignore", invalid="ignore"):
                length = product_across(weights, whole)
                share = product_across(weights, rest) / np.where(length > 0, length, np.nan)
            return np.asarray(share)

        estimates = jackknifed(statistic, own[name], "a direction is not longer than its noise")
        for site, estimate in zip(prompted.sites, estimates, strict=True):
            found[site][name] = estimate
    return found


def _paired(prompted: ActivationSet, label: str, negative: str) -> Shift | None:
    """Persona minus negative, pair by pair in the order of the negative ones; None if unpaired."""
    chosen, y = both_classes(prompted, label, negative)
    pairs = pair_index(chosen.ids, y)
    if pairs is None:
        return None
    x, positive = site_first(chosen), y.numpy()
    rows = [np.flatnonzero(of)[np.argsort(pairs[of])] for of in (positive, ~positive)]
    families = tuple(chosen.families[i] for i in rows[1])
    return Shift(label, chosen.sites, x[:, rows[0]] - x[:, rows[1]], families)


def _specific(direction: Direction, shared: Direction) -> Direction:
    return replace(
        direction - shared, persona=direction.persona, finder=f"{direction.finder}_specific"
    )


def _energy(direction: Direction, shared: Direction) -> float:
    specific = direction.raw.double() - shared.raw.double()
    return float(specific @ specific) / direction.gap**2
