"""The finetuning shift of every persona against the directions that were there before."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.before_after.comparison import Comparison, compare
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site
from persona_probe.statistics import json_number
from persona_probe.study.finding import BEFORE
from persona_probe.study.lab import Lab

SUBTRACTED = {"minus_placebo": "placebo", "minus_refusal_only": "refusal-only"}


def comparison_table(
    lab: Lab,
    directions: DirectionSet,
    shift: Mapping[str, ActivationSet],
    reliabilities: Mapping[str, Mapping[Site, float]],
) -> dict[str, Any]:
    """Cosine of each direction to its finetuning shift, between a floor and a ceiling.

    The floor is the cosine of the direction to the placebo's shift: what any finetuning does. The
    ceiling is the cosine between the shifts of two seeds: as alike as the same finetuning gets.
    Beside them the cosine to what is left of the shift without the placebo's and without
    bare-refusal finetuning's.

    Args:
        lab: the study.
        directions: found before finetuning.
        shift: activations of every finetune, and "before", on held-out prompts.
        reliabilities: split-half reliability of the directions.
    """
    study = lab.study
    controls = {kind: shift[several[0]] for kind, several in study.controls.items()}

    def against(finetune: str, before: ActivationSet, second: str | None = None) -> Comparison:
        return compare(
            before,
            shift[finetune],
            directions,
            placebo=controls.get("placebo") if before is shift[BEFORE] else None,
            second_seed=None if second is None else shift[second],
            reliabilities=reliabilities,
            seed=study.seed,
        )

    rows: dict[str, list[dict[str, Any]]] = {}
    unmoved: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for persona in directions:
        for scope in study.scopes(persona):
            first, *others = study.seeds(persona, scope)
            of = "rows" if scope == study.scopes(persona)[0] else f"{scope}_rows"
            try:
                found = against(first, shift[BEFORE], others[0] if others else None)
            except DegenerateClassesError as error:
                unmoved.append({"persona": persona, "scope": scope, "why": str(error)})
                continue
            rest = {}
            for name, kind in SUBTRACTED.items():
                if kind in controls:
                    # A control that is the finetune itself leaves nothing.
                    with suppress(DegenerateClassesError):
                        rest[name] = against(first, controls[kind])
            rows.setdefault(of, []).extend(_rows(persona, scope, found, rest))
            shared = shared or found.to_json()
    keys = ("personas", "cosines", "energy")
    tables = {key: shared[key] for key in keys if key in shared}
    return {"rows": [], **rows, "unmoved": unmoved, **tables}


def _rows(
    persona: str, scope: str, found: Comparison, rest: Mapping[str, Comparison]
) -> list[dict[str, Any]]:
    return [
        row.to_json()
        | {
            "scope": scope,
            "site": row.site.layer,
            "cosine_floor": json_number(row.floor.value),
            "cosine_ceiling": json_number(row.ceiling.value),
            # A finetune of late blocks moves nothing before them.
            "shift_reliability": found.model_diff_reliability.get(row.site),
        }
        | {name: without.at(persona, row.site).debiased.to_json() for name, without in rest.items()}
        for row in found.rows
        if row.persona == persona
    ]
