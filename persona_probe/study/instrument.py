"""Which dimensions of the persona profile measure what they should, over this study's finetunes."""

from collections.abc import Sequence
from typing import Any

from persona_probe.evaluation.instrument import CONSISTENT, reverse_consistency
from persona_probe.evaluation.profile import Profile
from persona_probe.statistics import Estimate
from persona_probe.study.arms import FINETUNED
from persona_probe.study.record import Record


def consistency(records: Sequence[Record]) -> dict[str, Estimate]:
    """Dimension → do its positively and negatively keyed statements move together?

    Over all finetunes of all personas and scopes: finetuning is what the profiles are about, and
    steered models would be judged by an instrument that they had a part in choosing.
    """
    before = records[0].profiles[records[0].one("helpful_only")]
    after: dict[str, Profile] = {}
    for record in records:
        names = [c.name for kind in FINETUNED.values() for c in record.named(kind)]
        after |= {name: record.profiles[name] for name in names if name in record.profiles}
    return reverse_consistency(list(after.values()), before)


def inconsistent(found: dict[str, Estimate]) -> tuple[str, ...]:
    """Dimensions below `CONSISTENT`; one without a value is not known to be."""
    return tuple(d for d, value in found.items() if value.defined and value.value < CONSISTENT)


def consistency_rows(found: dict[str, Estimate]) -> list[dict[str, Any]]:
    """Rows for profiles.json; `consistent` is null where it could not be measured."""
    return [
        {
            "dimension": dimension,
            "consistency": value.to_json(),
            "asked": CONSISTENT,
            "consistent": value.value >= CONSISTENT if value.defined else None,
        }
        for dimension, value in found.items()
    ]
