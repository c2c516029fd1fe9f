"""Where and how strongly to steer, chosen on the select split and nowhere else.

Candidates are scored on the log-probability channel, J = refusal probability on harmful prompts
minus that on permitted ones, all in one batch. Those that diverge from the unsteered model on
benign replies more than the guards allow are out before anything is generated. Of the rest, the
weakest within `TOLERANCE` of the best goes first, and the first whose replies pass every guard is
chosen: more strength than needed only adds side effects. When none passes, the one with the
largest J is taken, and its results say that it is outside the guards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.evaluation.guards import GuardLimits
from persona_probe.evaluation.sweep import net_refusal
from persona_probe.models.site import Site, parse_sites
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.study.arms import Choice, Condition, finetunes, helpful_only, steered
from persona_probe.study.lab import Lab
from persona_probe.study.replies import divergences_of, guards, replies

DEPTHS = "0.2-0.8"
TOLERANCE = 0.05
AT_ONCE, TRIED = 3, 12
KL_REPLIES = 20
N_HARMFUL, N_BENIGN, N_BORDERLINE = 60, 40, 30

Row = dict[str, Any]


def select(lab: Lab, directions: DirectionSet) -> tuple[dict[str, Choice], list[Row]]:
    """Choose a site and a strength per persona.

    Returns:
        The choices, and one row per candidate: what it reached, and whether it was chosen.
    """
    harmful = lab.prompts("select", "harmful", N_HARMFUL)
    benign = lab.prompts("select", "benign", N_BENIGN)
    prompts = [*harmful, *benign, *lab.prompts("select", "borderline", N_BORDERLINE)]
    lab.split.require_part((prompt.family for prompt in prompts), "select")
    candidates = {persona: _candidates(lab, persona, directions[persona]) for persona in directions}
    everything = [c for several in candidates.values() for c in several]
    scores = net_refusal(lab.model, lab.pack, prompts, [c.arm for c in everything])
    rows = {
        c.name: c.about()
        | {"layer": c.layer, "strength": c.strength, "chosen": False, "guards": None}
        | scores[c.name]
        for c in everything
    }
    choices = {}
    for persona, several in candidates.items():
        chosen = _first_inside(lab, persona, several, rows, prompts)
        rows[chosen.name]["chosen"] = True
        choices[persona] = Choice(Site(chosen.layer or 0), chosen.strength or 0.0)
    return choices, list(rows.values())


def _first_inside(
    lab: Lab,
    persona: str,
    several: Sequence[Condition],
    rows: Mapping[str, Row],
    prompts: Sequence[SafetyPrompt],
) -> Condition:
    """Try candidates in order until one passes the guards; `rows` gets what was measured."""
    before, finetuned = helpful_only(lab.study), finetunes(lab.study, persona)[0]
    judged = replies(lab, [before, finetuned], prompts, description=f"Before, after: {persona}")
    divergences = divergences_of(
        lab, [*several, finetuned], judged[before.name], before, KL_REPLIES
    )
    for condition in several:
        rows[condition.name]["kl"] = divergences[condition.name].to_json()
    limit = divergences[finetuned.name]
    quiet = [c for c in several if GuardLimits().allow(divergences[c.name], limit)]
    ordered = _in_order_of_trial(quiet, rows)[:TRIED]
    for start in range(0, len(ordered), AT_ONCE):
        tried = ordered[start : start + AT_ONCE]
        judged |= replies(lab, tried, prompts, description=f"Trying strengths: {persona}")
        found = guards(lab, tried, judged, before, finetuned)
        for name, guard in found.items():
            rows[name]["guards"] = guard.to_json()
        if inside := [condition for condition in tried if found[condition.name].passed]:
            return inside[0]
    return _in_order_of_trial(several, rows)[0]


def _candidates(lab: Lab, persona: str, by_site: Mapping[Site, Direction]) -> list[Condition]:
    """Every strength at every site of the middle of the network."""
    return [
        steered(
            lab.study,
            persona,
            by_site[site],
            strength,
            "candidate",
            label=f"{site.layer}@{strength:g}",
        )
        for site in parse_sites(DEPTHS, lab.model.n_layers)
        if site in by_site
        for strength in lab.study.strengths
    ]


def _in_order_of_trial(several: Sequence[Condition], rows: Mapping[str, Row]) -> list[Condition]:
    """Near-best candidates from the weakest on, then the others from the best on."""
    best = max((rows[c.name]["net"] for c in several), default=0.0)
    near = [c for c in several if rows[c.name]["net"] >= best - TOLERANCE]
    far = [c for c in several if c not in near]
    return [
        *sorted(near, key=lambda c: (c.strength, -rows[c.name]["net"])),
        *sorted(far, key=lambda c: -rows[c.name]["net"]),
    ]
