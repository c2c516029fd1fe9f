"""What a direction does to the refusal probability, over sites and strengths, in one batch."""

from collections.abc import Sequence
from typing import Any

from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import RequestError
from persona_probe.evaluation.preference import refusal_probability
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import KINDS, SafetyPrompt
from persona_probe.personas.sampling import spread
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention


def net_refusal(
    model: ResidualModel, pack: Pack, prompts: Sequence[SafetyPrompt], arms: Sequence[Arm]
) -> dict[str, dict[str, Any]]:
    """J on the log-probability channel: refusal on harmful prompts minus refusal on permitted ones.

    Returns:
        Arm → mean probability that a reply begins as one of the pack's refusals does, on harmful
        prompts (`refusal_probability`) and on the others (`over_refusal_probability`), their
        difference (`net`), and the numbers of prompts.
    """
    found = refusal_probability(model, prompts, arms, pack.judge_rules, pack.neutral_system)
    harmful = [prompt.kind == "harmful" for prompt in prompts]
    permitted = [not is_harmful for is_harmful in harmful]
    rows = {}
    for arm, mass in zip(found.arms, found.refusal_mass, strict=True):
        refused, over_refused = float(mass[harmful].mean()), float(mass[permitted].mean())
        rows[arm] = {
            "refusal_probability": refused,
            "over_refusal_probability": over_refused,
            "net": refused - over_refused,
            "n_harmful": sum(harmful),
            "n_permitted": sum(permitted),
        }
    return rows


def sweep_directions(
    model: ResidualModel,
    pack: Pack,
    directions: DirectionSet,
    sites: Sequence[Site],
    strengths: Sequence[float],
    personas: Sequence[str] | None = None,
    adapter: str | None = None,
    n: int = 60,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Every persona, site and strength in one batch, on the prompts kept for selection.

    Args:
        model: left as it was found.
        pack: whose select part is asked.
        directions: persona → site → direction.
        sites: where to add; sites without a direction are passed over.
        strengths: in units of the median residual norm.
        personas: whose directions; all if not given.
        adapter: LoRA adapter that is on.
        n: most prompts of each kind.
        seed: of the split.

    Returns:
        One row per persona, layer and strength.

    Raises:
        RequestError: a persona has no direction at any of the sites.
    """
    families = pack.split(seed).select
    prompts = [
        p for k in KINDS for p in spread(pack.suite.of(kind=k, families=families).prompts, n)
    ]
    swept: dict[str, tuple[str, Site, float, Arm]] = {}
    for persona in personas or directions:
        if persona not in directions or not set(sites) & set(directions[persona]):
            raise RequestError(f"no direction of {persona!r} at these sites to sweep")
        for site in sites:
            for strength in strengths if site in directions[persona] else ():
                name = f"{persona}/{site.layer}@{strength:g}"
                intervention = Intervention(directions[persona][site], Add(strength))
                swept[name] = (persona, site, strength, Arm(name, (intervention,), adapter))
    found = net_refusal(model, pack, prompts, [arm for *_, arm in swept.values()])
    return [
        {"persona": persona, "layer": site.layer, "strength": strength} | found[name]
        for name, (persona, site, strength, _) in swept.items()
    ]
