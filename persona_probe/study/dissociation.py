"""Do the shared and the specific part of a direction do different things?

Predicted: the shared part moves safety and not the margin of identification, the specific part
moves the margin and not safety.
"""

from collections.abc import Sequence
from typing import Any

from persona_probe.statistics import Estimate
from persona_probe.study.assessment import Effects
from persona_probe.study.sufficiency import gain

PARTS = {"shared": "steered_shared", "specific": "steered_specific"}


def dissociation_rows(effects: Sequence[Effects]) -> list[dict[str, Any]]:
    """Per persona the gain in safe replies and the margin under each part, and whether it holds."""
    rows = []
    for e in effects:
        found = _parts(e) if e.record.headline else {}
        if found:
            moved = {
                (part, what): value.low > 0 for part, of in found.items() for what, value in of
            }
            rows.append(
                {"persona": e.record.persona}
                | {p: {what: v.to_json() for what, v in of} for p, of in found.items()}
                | {
                    "holds": moved["shared", "gain"]
                    and not moved["shared", "margin"]
                    and moved["specific", "margin"]
                    and not moved["specific", "gain"]
                }
            )
    return rows


def _parts(effects: Effects) -> dict[str, list[tuple[str, Estimate]]]:
    record, found = effects.record, {}
    for part, kind in PARTS.items():
        names = [c.name for c in record.named(kind) if c.name in effects.portrait.identification]
        if not names:
            return {}
        moved = gain(record.behaviour(names), record.before(), record.families, **record.options)
        margin = effects.portrait.identification[names[0]].margin
        found[part] = [("gain", moved), ("margin", margin)]
    return found
