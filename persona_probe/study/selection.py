"""Where and how strongly to steer, chosen on the select split and nowhere else.

Candidates are scored on the log-probability channel, J = refusal probability on harmful prompts
minus that on permitted ones, all in one batch. Those that diverge from the unsteered model on
benign replies more than the guards allow are out before anything is generated. Of the rest, the
weakest within `TOLERANCE` of the best goes first, and the first whose replies pass every guard is
chosen: more strength than needed only adds side effects. When none passes, the one with the
largest J is taken, and its results say that it is outside the guards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.evaluation.judge import Judgement
from persona_probe.evaluation.sweep import net_refusal
from persona_probe.models.site import Site, parse_sites
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import json_number
from persona_probe.study.arms import Choice, Condition, finetunes, helpful_only, steered
from persona_probe.study.divergence import benign_replies, divergences_of
from persona_probe.study.kl_matching import kl_matched_strengths
from persona_probe.study.lab import Lab
from persona_probe.study.replies import Judged, guards, replies

TOLERANCE = 0.05
AT_ONCE, TRIED = 3, 12

Row = dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """What was chosen, and everything that was tried.

    Attributes:
        choices: persona → site and strength.
        rows: one per candidate: what it reached, and whether it was chosen.
        kl_matched: one per random direction that was brought to the same benign KL.
        usable: persona → the largest strength at the chosen site up to which every tried one is
            within the divergence limits; 0 when none is.
    """

    choices: dict[str, Choice]
    rows: list[Row]
    kl_matched: list[Row]
    usable: dict[str, float]


def select(lab: Lab, directions: DirectionSet) -> Selection:
    """Choose a site and a strength per persona."""
    budget = lab.study.budget
    prompts = [
        *lab.prompts("select", "harmful", budget.select_harmful),
        *lab.prompts("select", "benign", budget.select_benign),
        *lab.prompts("select", "borderline", budget.select_borderline),
    ]
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
    before = helpful_only(lab.study)
    own = replies(lab, [before], prompts, description="Before finetuning")
    found = Selection({}, [], [], {})
    for persona, several in candidates.items():
        chosen = _first_inside(lab, persona, several, rows, own, prompts)
        rows[chosen.name]["chosen"] = True
        choice = Choice(Site(chosen.layer or 0), chosen.strength or 0.0)
        matched = _matched(lab, persona, choice, directions[persona], own[before.name])
        found.kl_matched.extend(matched)
        strengths = tuple(row["strength"] for row in matched)
        found.choices[persona] = replace(choice, kl_matched=strengths)
        at_site = [rows[c.name] for c in several if c.layer == choice.site.layer]
        found.usable[persona] = usable_range(at_site)
    found.rows.extend(rows.values())
    return found


def usable_range(rows: Sequence[Row]) -> float:
    """The largest strength with it and every weaker one within the divergence limits, else 0."""
    quiet = takewhile(lambda row: row["quiet"], sorted(rows, key=lambda row: row["strength"]))
    return max((row["strength"] for row in quiet), default=0.0)


def _matched(
    lab: Lab,
    persona: str,
    choice: Choice,
    by_site: Mapping[Site, Direction],
    own: Sequence[Judgement],
) -> list[Row]:
    """Random directions at the KL of the chosen one, which is the same for all of them."""
    n = lab.study.budget.random_kl if "kl_matched" in lab.study.arms else 0
    direction = by_site[choice.site]
    draws = isotropic({choice.site: direction}, n, lab.study.seed) if n else []
    true = steered(lab.study, persona, direction, choice.strength)
    given = benign_replies(lab, own, lab.study.budget.kl_replies)
    target, found = kl_matched_strengths(lab, persona, true, choice, draws, given)
    return [
        {
            "persona": persona,
            "seed": seed,
            "strength": strength,
            "kl": json_number(kl),
            "target_kl": json_number(target),
        }
        for seed, (strength, kl) in enumerate(found)
    ]


def _first_inside(
    lab: Lab,
    persona: str,
    several: Sequence[Condition],
    rows: Mapping[str, Row],
    own: Judged,
    prompts: Sequence[SafetyPrompt],
) -> Condition:
    """Try candidates in order until one passes the guards; `rows` gets what was measured."""
    study = lab.study
    before, finetuned = helpful_only(study), finetunes(study, persona)[0]
    judged = own | replies(lab, [finetuned], prompts, description=f"After finetuning: {persona}")
    divergences = divergences_of(
        lab, [*several, finetuned], judged[before.name], before, study.budget.kl_replies
    )
    limit = divergences[finetuned.name]
    for condition in several:
        cost = divergences[condition.name]
        rows[condition.name] |= {"kl": cost.to_json(), "quiet": study.guards.allow(cost, limit)}
    quiet = [c for c in several if rows[c.name]["quiet"]]
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
        for site in parse_sites(lab.study.sites, lab.model.n_layers)
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
