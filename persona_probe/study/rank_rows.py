"""How much of the effect goes with subspaces of growing rank."""

from typing import Any

from persona_probe.statistics import Estimate, ratio_interval
from persona_probe.study.fractions import removed_from
from persona_probe.study.record import Record


def rank_rows(record: Record) -> list[dict[str, Any]]:
    """NEC against the rank of the subspace taken out, beside random subspaces of equal rank.

    On generated replies (`removed`) and on the refusal probability (`removed_fast`).
    """
    if not record.headline:
        return []
    finetune = record.finetunes[0].name
    rows = []
    for kind, words in (("ablated_rank", "direction"), ("ablated_rank_random", "random")):
        for condition in record.named(kind):
            rows.append(
                {
                    "persona": record.persona,
                    "arm": condition.name,
                    "kind": words,
                    "k": int((condition.label or "k0")[1:]),
                    "removed": removed_from(record, condition.name, finetune).to_json(),
                    "removed_fast": _fast(record, condition.name, finetune).to_json(),
                }
            )
    return rows


def _fast(record: Record, name: str, finetune: str) -> Estimate:
    before = record.refusal[record.one("helpful_only")]
    after = record.refusal[finetune]
    return ratio_interval(
        after - record.refusal[name], after - before, record.fast_families, **record.options
    )
