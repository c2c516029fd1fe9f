"""Do two finetunes move the residual stream within the same few dimensions?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.before_after.spectrum import singular
from persona_probe.directions.checks.relabelling import random_halves
from persona_probe.directions.families.shift import Shift
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate

Basis = Float[Tensor, "site d_model k"]


@dataclass(frozen=True)
class SubspaceAngles:
    """Principal angles between the subspaces in which two shifts have most of their energy.

    Attributes:
        one: a finetune.
        other: another.
        site: where.
        cosines: of the k principal angles on all prompts, largest first.
        across_halves: mean of the k cosines between the subspace of `one` on a random half of the
            families and that of `other` on the other half: mean and middle 95 % of halvings. The
            two share no prompts.
        ceiling: the same for one finetune with itself, mean of both: what noise leaves of 1.
        chance: mean of the k cosines between random subspaces, with the middle 95 % of draws.
        n: examples.
    """

    one: str
    other: str
    site: Site
    cosines: tuple[float, ...]
    across_halves: Estimate
    ceiling: Estimate
    chance: Estimate
    n: int


def subspace_angles(
    shifts: Sequence[Shift], k: int = 4, *, halvings: int = 5, draws: int = 200, seed: int = 0
) -> list[SubspaceAngles]:
    """Principal angles of every pair of finetunes at every site.

    Args:
        shifts: of the same examples.
        k: dimensions of a subspace, fewer where a half has fewer examples.
        halvings: random splits of the families.
        draws: random pairs of subspaces.
        seed: of both.

    Raises:
        RequestError: k is not positive.
    """
    if k < 1:
        raise RequestError(f"a subspace needs at least one dimension, got k = {k}")
    first, rng = shifts[0], np.random.default_rng(seed)
    no_group = np.zeros(len(first.family_sizes), dtype=np.int64)
    halves = random_halves(no_group, halvings, rng)[:, first.family_index]
    usable = halves[(halves.sum(axis=1) > 0) & (~halves).any(axis=1)]
    smallest = min((min(h.sum(), (~h).sum()) for h in usable), default=first.n)
    k = min(k, int(smallest), first.delta.shape[2])
    whole = [top(shift.delta, k) for shift in shifts]
    split = [
        [(top(s.delta[:, h], k), top(s.delta[:, ~h], k)) for h in map(torch.from_numpy, usable)]
        for s in shifts
    ]
    chance = random_cosines(first.delta.shape[2], k, draws, rng)
    found = []
    for a in range(len(shifts)):
        for b in range(a + 1, len(shifts)):
            cosines = principal_cosines(whole[a], whole[b])
            across = _across(split[a], split[b]) + _across(split[b], split[a])
            own = _across(split[a], split[a]) + _across(split[b], split[b])
            for i, site in enumerate(first.sites):
                found.append(
                    SubspaceAngles(
                        one=shifts[a].name,
                        other=shifts[b].name,
                        site=site,
                        cosines=tuple(cosines[i].tolist()),
                        across_halves=Estimate.of_draws([c[i] for c in across]),
                        ceiling=Estimate.of_draws([c[i] for c in own]),
                        chance=chance,
                        n=first.n,
                    )
                )
    return found


def top(x: Float[Tensor, "site example d_model"], k: int) -> Basis:
    """Orthonormal basis of the k directions of most energy."""
    return singular(x)[1][..., :k]


def principal_cosines(one: Basis, other: Basis) -> Float[Tensor, "site k"]:
    """Cosines of the principal angles between two subspaces (Björck & Golub 1973)."""
    cosines: Tensor = torch.linalg.svdvals(one.transpose(1, 2) @ other).clamp_max(1.0)
    return cosines


def random_cosines(d_model: int, k: int, draws: int, rng: np.random.Generator) -> Estimate:
    """Mean principal cosine of two random k-dimensional subspaces."""
    normal = torch.from_numpy(rng.standard_normal((draws, d_model, k)))
    basis = torch.linalg.qr(normal).Q
    # One of the two may be the first k axes: only the angle between them matters.
    return Estimate.of_draws(torch.linalg.svdvals(basis[:, :k]).mean(dim=1).numpy())


def _across(
    one: Sequence[tuple[Basis, Basis]], other: Sequence[tuple[Basis, Basis]]
) -> list[list[float]]:
    """Mean cosine per site between the first half of `one` and the second of `other`."""
    return [
        principal_cosines(mine[0], theirs[1]).mean(dim=1).tolist()
        for mine, theirs in zip(one, other, strict=True)
    ]
