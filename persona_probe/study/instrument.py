"""Which dimensions of the persona profile measure what they should, over this study's models.

A dimension holds together when its positively and its negatively keyed statements move together
from model to model. One that does not is greyed: it is shown, and counts in nothing that is
concluded from the profile. Models that agree with whatever is said about a topic, however it is
worded, move the halves apart; the mean of both keys hides that, and so does not undo it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from persona_probe.evaluation.instrument import half_shifts, reverse_consistency
from persona_probe.evaluation.profile import Profile
from persona_probe.statistics import Estimate, json_number
from persona_probe.study.arms import CONTROL_KINDS, FINETUNED
from persona_probe.study.record import Record

# No steered model: it would be judged by an instrument that it had a part in choosing.
READ = (*FINETUNED.values(), *CONTROL_KINDS.values(), "system_prompt")


@dataclass(frozen=True)
class Consistency:
    """Do the two halves of every dimension move together over the study's models?

    Attributes:
        found: dimension → correlation of the halves' shifts.
        asked: the smallest that holds together.
        moved: dimension → standard deviation over models of the shift of both halves, keyed alike.
        yes_saying: the same of the shift towards agreeing, whichever way a statement is worded.
    """

    found: Mapping[str, Estimate]
    asked: float
    moved: Mapping[str, float] = field(default_factory=dict)
    yes_saying: Mapping[str, float] = field(default_factory=dict)

    @property
    def greyed(self) -> tuple[str, ...]:
        """Dimensions that were found not to hold together."""
        return tuple(d for d, r in self.found.items() if r.defined and r.value < self.asked)

    @property
    def kept(self) -> tuple[str, ...]:
        """All others; one without a value is not known to fail."""
        return tuple(d for d in self.found if d not in self.greyed)

    @property
    def unknown(self) -> dict[str, str]:
        """Dimension → why it could not be measured."""
        return {d: r.reason or "" for d, r in self.found.items() if not r.defined}

    def rows(self) -> list[dict[str, Any]]:
        """Rows for profiles.json; `consistent` is null where it could not be measured."""
        return [
            {
                "dimension": dimension,
                "consistency": value.to_json(),
                "asked": self.asked,
                "consistent": value.value >= self.asked if value.defined else None,
                "moved": json_number(self.moved.get(dimension, np.nan)),
                "yes_saying": json_number(self.yes_saying.get(dimension, np.nan)),
            }
            for dimension, value in self.found.items()
        ]


def consistency(records: Sequence[Record]) -> Consistency:
    """Over finetunes of every persona, scope and seed, controls, and constitutions in words."""
    before = records[0].profiles[records[0].one("helpful_only")]
    by_name: dict[str, Profile] = {}
    for record in records:
        names = [c.name for kind in READ for c in record.named(kind)]
        by_name |= {name: record.profiles[name] for name in names if name in record.profiles}
    after = list(by_name.values())
    halves = {d: half_shifts(after, before, d) for d in before.dimensions}
    both = {d: shifts for d, shifts in halves.items() if shifts is not None and shifts.size}
    return Consistency(
        reverse_consistency(after, before),
        records[0].study.thresholds.consistency,
        {d: float((s[0] + s[1]).std() / 2) for d, s in both.items()},
        {d: float((s[0] - s[1]).std() / 2) for d, s in both.items()},
    )
