"""How well do directions that should not work separate the same held-out examples?"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from persona_probe.directions.checks.controls import EVERY, BySite, orthogonalised
from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.checks.separation import auroc, auroc_intervals
from persona_probe.directions.direction import Direction
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate

WRONG, WITHOUT, FLIPPED = "wrong: ", "without: ", "sign_flipped"


def random_contenders(
    held_out: Labelled, found_on: Labelled | None, draws: int, seed: int
) -> list[dict[str, Estimate]]:
    """Held-out AUROC of random directions: mean and middle 95 % of draws, per site.

    Args:
        held_out: the held-out examples.
        found_on: what the true direction was found on: "covariance_matched" directions are random
            mixtures of these, centred. Without it there are only "isotropic" ones.
        draws: of each kind.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 1])
    sites, _, d_model = held_out.x.shape
    vectors = {"isotropic": torch.from_numpy(rng.standard_normal((draws, sites, d_model)))}
    if found_on is not None:
        centred = found_on.x - found_on.x.mean(dim=1, keepdim=True)
        noise = torch.from_numpy(rng.standard_normal((draws, centred.shape[1])))
        vectors["covariance_matched"] = torch.einsum("ge,sed->gsd", noise, centred)
    y = held_out.y.numpy()
    areas = {
        kind: auroc(torch.einsum("gsd,sed->gse", several, held_out.x).numpy(), y)
        for kind, several in vectors.items()
    }
    return [
        {kind: Estimate.of_draws(area[:, i]) for kind, area in areas.items()} for i in range(sites)
    ]


def named_contenders(
    directions: BySite,
    held_out: Labelled,
    wrong: Mapping[str, BySite],
    nuisances: Mapping[str, BySite],
) -> dict[Site, dict[str, Estimate]]:
    """Held-out AUROC of other personas' directions, and of these without nuisances, per site.

    Args:
        directions: the true ones, at the sites of `held_out`, in its order.
        held_out: the held-out examples.
        wrong: name → directions that belong to somebody else.
        nuisances: name → directions to take away: refusal, length, format, the shared part.
    """
    found: dict[Site, dict[str, Estimate]] = {site: {} for site in directions}
    keys, rows = [], []
    for i, (site, direction) in enumerate(directions.items()):
        for name, unit in _vectors(direction, site, wrong, nuisances).items():
            if isinstance(unit, Estimate):
                found[site][name] = unit
                continue
            keys.append((site, name))
            rows.append(held_out.x[i] @ unit.double())
    if not rows:
        return found
    scores, y = torch.stack(rows).numpy(), held_out.y.numpy()
    areas = auroc_intervals(scores, y, held_out.families)
    for (site, name), area in zip(keys, areas, strict=True):
        found[site][name] = area
    return found


def _vectors(
    direction: Direction, site: Site, wrong: Mapping[str, BySite], nuisances: Mapping[str, BySite]
) -> dict[str, Tensor | Estimate]:
    """Unit vectors by name; an undefined estimate where a nuisance leaves nothing."""
    vectors: dict[str, Tensor | Estimate] = {
        f"{WRONG}{name}": other[site].unit for name, other in wrong.items() if site in other
    }
    here = {name: {site: other[site]} for name, other in nuisances.items() if site in other}
    for name in (*here, *([EVERY] if len(here) > 1 else [])):
        others = list(here.values()) if name == EVERY else [here[name]]
        try:
            left = orthogonalised({site: direction}, *others)[site].unit
            vectors[f"{WITHOUT}{name}"] = left
        except DegenerateClassesError as error:
            vectors[f"{WITHOUT}{name}"] = Estimate.undefined(str(error))
    return vectors


def one_minus(area: Estimate) -> Estimate:
    """AUROC of the flipped direction: 1 - AUROC, exactly."""
    return Estimate(
        1 - area.value,
        1 - area.high,
        1 - area.low,
        area.n,
        area.n_clusters,
        area.level,
        area.reason,
    )
