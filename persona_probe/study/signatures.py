"""Is what was expected of each persona what its constitution does to this model?

The written signature is compared with the measured one: the shift of the profile under the
constitution in the system line. And the diagnostic must recognise constitutions that are spelt
out, before it says anything about characters that come from finetuning or steering.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.evaluation.positive_control import SHARE, SUSPECT
from persona_probe.evaluation.profile_match import Identification, SignatureMatch
from persona_probe.statistics import json_number
from persona_probe.study.assessment import Effects


@dataclass(frozen=True)
class Signed:
    """One persona's written signature against the measured one.

    Attributes:
        arm: the model before finetuning, under the constitution.
        match: agreement of the two, over the dimensions that hold together.
        whole: the same over all dimensions.
        identified: whose signature the measured one fits best.
    """

    persona: str
    arm: str
    match: SignatureMatch
    whole: SignatureMatch
    identified: Identification

    @property
    def suspect(self) -> bool:
        """Whether the two disagree, so that the written one may be wrong about this model."""
        return not self.match.pearson.value >= SUSPECT

    def to_json(self) -> dict[str, Any]:
        return {
            "persona": self.persona,
            "arm": self.arm,
            "agreement": self.match.pearson.to_json(),
            "p": json_number(self.match.p),
            "with_greyed": self.whole.pearson.to_json(),
            "suspect": self.suspect,
            "recognised_as": self.identified.best,
            "margin": self.identified.margin.to_json(),
        }


def signed(effects: Sequence[Effects]) -> list[Signed]:
    """Every persona whose constitution was put into the system line and whose profile is read."""
    found = []
    for e in (e for e in effects if e.record.headline):
        for condition in e.record.named("system_prompt"):
            name, own = condition.name, e.portrait
            if name in own.matches and name in own.identification:
                found.append(
                    Signed(
                        e.record.persona,
                        name,
                        own.matches[name],
                        e.whole.matches[name],
                        own.identification[name],
                    )
                )
    return found


def doubts(several: Sequence[Signed]) -> list[str]:
    """What a reader must know before believing any match with a signature."""
    flags = [
        f"{one.persona}: its written signature is suspect, since it agrees with what its "
        f"constitution in the system line does by r = {one.match.pearson} (>= {SUSPECT})"
        for one in several
        if one.suspect
    ]
    correct = sum(one.identified.correct for one in several)
    if several and correct < SHARE * len(several):
        flags.append(
            f"{correct} of {len(several)} constitutions are recognised when they stand in the "
            "system line: this model is too weak for the persona diagnostic"
        )
    return flags
