"""Whose effect does a direction bring? Every direction against every persona's profile and effect.

T[c, c'] is what steering with the direction of c, at its own site and strength, does towards c':
the correlation of the profile's shift with the signature of c', or the share of the finetuning
effect of c'. Dominance = mean diagonal - mean off-diagonal. Its p counts all relabellings of the
columns; with four personas there are 24, so it cannot go below 1/24 = 0.042.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.evaluation.profile_match import Signature, signature_match
from persona_probe.statistics import Estimate
from persona_probe.study.instrument import Consistency
from persona_probe.study.portrait import FEWEST
from persona_probe.study.record import Record
from persona_probe.study.sufficiency import effect_reproduced

MOST_PERSONAS = 7  # beyond 5,040 relabellings the p-value is not computed


def transfer_table(records: Sequence[Record], held: Consistency) -> dict[str, Any]:
    """Both matrices as rows, and their dominance, for the headline scope of every persona.

    Profiles are compared over the dimensions that hold together; `with_greyed` is over all.
    """
    by_persona = {record.persona: record for record in records if record.headline}
    rows = [
        {"direction": name, "target": other} | cell
        for name in by_persona
        for other in by_persona
        for cell in _cells(by_persona[name], by_persona[other], held)
    ]
    measures = dict.fromkeys(str(row["measure"]) for row in rows)
    return {
        "rows": rows,
        "dominance": {measure: dominance(_matrix(rows, measure)) for measure in measures},
    }


def dominance(matrix: Float[np.ndarray, "direction target"]) -> dict[str, Any]:
    """Mean diagonal minus mean off-diagonal, with an exact permutation p and its floor."""
    n = len(matrix)
    if n < 2 or not np.isfinite(matrix).all():
        why = "fewer than two personas" if n < 2 else "a cell of the matrix is undefined"
        return {"value": None, "p": None, "floor": None, "why_undefined": why}
    observed = _lead(matrix, range(n))
    p = None
    if n <= MOST_PERSONAS:
        every = [_lead(matrix, order) for order in permutations(range(n))]
        p = sum(value >= observed - 1e-12 for value in every) / len(every)
    return {"value": observed, "p": p, "floor": 1 / factorial(n), "why_undefined": None}


def _lead(matrix: Float[np.ndarray, "direction target"], order: Sequence[int] | range) -> float:
    n = len(matrix)
    own = matrix[np.arange(n), list(order)].sum()
    return float(own / n - (matrix.sum() - own) / (n * (n - 1)))


def _cells(record: Record, other: Record, held: Consistency) -> list[dict[str, Any]]:
    safety = effect_reproduced(
        record.behaviour([record.one("steered")]),
        other.finetuned(),
        record.before(),
        record.families,
        **record.options,
    )
    found: list[dict[str, Any]] = [{"measure": "safety", "value": safety.to_json()}]
    signature = record.signatures[other.persona]
    if not signature:
        return found
    whole = _match(record, signature)
    if not held.greyed:
        return [*found, {"measure": "profile", "value": whole.to_json()}]
    too_few = f"{len(held.kept)} dimensions of the profile hold together, {FEWEST} are needed"
    own = (
        _match(record.over(held.kept), signature)
        if len(held.kept) >= FEWEST
        else Estimate.undefined(too_few)
    )
    beside = {"with_greyed": whole.to_json()}
    return [*found, {"measure": "profile", "value": own.to_json()} | beside]


def _match(record: Record, signature: Signature) -> Estimate:
    return signature_match(
        record.profiles[record.one("steered")],
        record.profiles[record.one("helpful_only")],
        signature,
        permutations=1,
        **record.options,
    ).pearson


def _matrix(rows: Sequence[Mapping[str, Any]], measure: str) -> Float[np.ndarray, "a b"]:
    names = list(dict.fromkeys(row["direction"] for row in rows))
    matrix = np.full((len(names), len(names)), np.nan)
    for row in rows:
        if row["measure"] == measure and row["value"]["value"] is not None:
            matrix[names.index(row["direction"]), names.index(row["target"])] = row["value"][
                "value"
            ]
    return matrix
