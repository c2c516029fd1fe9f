"""What the directions of several personas share, and what is each one's own.

With d_c the raw direction of persona c: the shared part is s = mean_c d_c, the specific part is
p_c = d_c - s, and the energy share of c is ||p_c||^2 / ||d_c||^2. If alignment is shared and
character is specific, steering with s moves safety and steering with p_c moves the profile.
"""

from collections.abc import Mapping
from dataclasses import replace

from persona_probe.directions.direction import Direction, mean_direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import RequestError
from persona_probe.models.site import Site

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


def common_sites(directions: DirectionSet) -> list[Site]:
    """Sites at which every persona has a direction, in order of depth.

    Raises:
        RequestError: there is none.
    """
    per_persona: list[Mapping[Site, Direction]] = list(directions.values())
    sites = set(per_persona[0]).intersection(*per_persona[1:]) if per_persona else set()
    if not sites:
        raise RequestError(f"the directions of {', '.join(directions)} have no site in common")
    return sorted(sites)


def _specific(direction: Direction, shared: Direction) -> Direction:
    return replace(
        direction - shared, persona=direction.persona, finder=f"{direction.finder}_specific"
    )


def _energy(direction: Direction, shared: Direction) -> float:
    specific = direction.raw.double() - shared.raw.double()
    return float(specific @ specific) / direction.gap**2
