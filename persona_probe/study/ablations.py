"""What is taken out of the finetuned model, and the controls of that.

The default ablation sets the component along the direction to the level that the model before
finetuning has, at every site, since later blocks can rebuild what is removed at one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.controls import BySite, covariance_matched, isotropic
from persona_probe.directions.checks.relabelling import pair_index
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.models.site import Site
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.arm import Intervention
from persona_probe.steering.subspace import Subspace
from persona_probe.study.arms import Condition, after, helpful_only
from persona_probe.study.plan import SCOPES, Study

RANKS = (1, 2, 4, 8)
ABLATED = dict(zip(SCOPES, ("ablated", "ablated_broad"), strict=True))  # scope → kind
Levels = Mapping[Site, Float[Tensor, " d_model"]]


def levels(neutral: ActivationSet) -> dict[Site, Tensor]:
    """Mean activation of the model before finetuning at every site, on neutral prompts."""
    return {site: neutral.site(site).mean(dim=0) for site in neutral.sites}


def turned_back(directions: BySite, before: Levels) -> tuple[Intervention, ...]:
    """Ablate each site's own direction to the level of the model before finetuning."""
    return tuple(
        Intervention(direction, Ablate(level=float(before[site] @ direction.unit)))
        for site, direction in directions.items()
    )


def ablations(
    study: Study, persona: str, directions: DirectionSet, before: Levels
) -> list[Condition]:
    """The direction out of every finetune of every scope, one condition per seed."""
    edits = turned_back(directions[persona], before)
    return [
        after(
            f"{ABLATED[scope]}/{persona}/{seed}",
            finetune,
            ABLATED[scope],
            persona,
            edits,
            seed=seed,
        )
        for scope in study.scopes(persona)
        for seed, finetune in enumerate(study.seeds(persona, scope))
    ]


def ablation_controls(
    study: Study,
    persona: str,
    directions: DirectionSet,
    before: Levels,
    neutral: ActivationSet,
) -> list[Condition]:
    """Other directions out of the first finetune, and the direction out of the model before."""
    own = directions[persona]
    draws = random_ablated(own, neutral, study.budget.random_ablated, study.seed)
    found = [
        _control(study, persona, "ablated_wrong", turned_back(directions[other], before), other)
        for other in directions
        if other != persona
    ]
    found += [
        _control(study, persona, kind, turned_back(draw, before), seed=seed)
        for kind, several in draws.items()
        for seed, draw in enumerate(several)
    ]
    start = helpful_only(study)
    arm = replace(
        start.arm, name=f"ablated_before/{persona}", interventions=turned_back(own, before)
    )
    return [*found, replace(start, arm=arm, kind="ablated_before", persona=persona)]


def random_ablated(
    own: BySite, neutral: ActivationSet, n: int, seed: int
) -> dict[str, list[dict[Site, Direction]]]:
    """Kind of condition → random directions at every site of the persona's own."""
    return {
        "ablated_random": isotropic(own, n, seed),
        "ablated_covariance": covariance_matched(own, neutral, n, seed),
    }


def random_ablations(
    study: Study,
    persona: str,
    scope: str,
    draws: Mapping[str, Sequence[BySite]],
    before: Levels,
) -> list[Condition]:
    """Random directions out of the first finetune of a scope."""
    finetune = study.seeds(persona, scope)[0]
    return [
        after(
            f"{kind}/{persona}/{scope}/{seed}",
            finetune,
            kind,
            persona,
            turned_back(draw, before),
            seed=seed,
        )
        for kind, several in draws.items()
        for seed, draw in enumerate(several)
    ]


def rank_curve(
    study: Study, persona: str, directions: BySite, contrast: ActivationSet, before: Levels
) -> list[Condition]:
    """Subspaces of growing rank out of the first finetune, each beside a random one of its rank.

    The subspace of rank k is spanned by the direction and the k - 1 leading components, around
    zero, of what is left of the pairwise differences (persona minus neutral) it was found on.
    """
    ranks = [k for k in RANKS if k <= _most(directions)]
    axes = {site: _components(d, contrast, max(ranks)) for site, d in directions.items()}
    noise = isotropic(directions, max(ranks), study.seed)
    found = []
    for k in ranks:
        own = tuple(_out(d, axes[site][: k - 1], before[site]) for site, d in directions.items())
        random = tuple(
            _out(noise[0][site], [draw[site] for draw in noise[1:k]], before[site])
            for site in directions
        )
        found.append(_control(study, persona, "ablated_rank", own, f"k{k}"))
        found.append(_control(study, persona, "ablated_rank_random", random, f"k{k}"))
    return found


def _most(directions: BySite) -> int:
    return min(len(direction.unit) for direction in directions.values())


def _components(direction: Direction, contrast: ActivationSet, k: int) -> list[Direction]:
    """Up to k - 1 leading components of the pairwise differences without the direction."""
    pairs = contrast.where(labels=(direction.positive_label, direction.negative_label))
    positive = torch.tensor([label == direction.positive_label for label in pairs.labels])
    index = pair_index(pairs.ids, positive)
    x = pairs.site(direction.site).double()
    if index is None:
        rows = x[positive] - x[~positive].mean(dim=0)
    else:
        order = torch.from_numpy(index)
        rows = x[positive][order[positive].argsort()] - x[~positive][order[~positive].argsort()]
    unit = direction.unit.double()
    rest = rows - (rows @ unit)[:, None] * unit
    _, sizes, axes = torch.linalg.svd(rest, full_matrices=False)
    kept = int((sizes > 1e-6 * sizes[0]).sum()) if len(sizes) and float(sizes[0]) > 0 else 0
    return [
        replace(
            direction, unit=axis.float(), gap=1.0, midpoint=math.nan, finder="contrast_component"
        )
        for axis in axes[: min(k - 1, kept)]
    ]


def _out(direction: Direction, others: Sequence[Direction], level: Tensor) -> Intervention:
    return Intervention(direction, Subspace(tuple(others), scale=0.0, offset=level))


def _control(
    study: Study,
    persona: str,
    kind: str,
    edits: tuple[Intervention, ...],
    label: str | None = None,
    seed: int | None = None,
) -> Condition:
    """Something done to the first finetune of the headline scope."""
    name = "/".join(part for part in (kind, persona, label, _text(seed)) if part)
    finetune = study.seeds(persona)[0]
    return after(name, finetune, kind, persona, edits, seed=seed, label=label)


def _text(seed: int | None) -> str | None:
    return None if seed is None else str(seed)
