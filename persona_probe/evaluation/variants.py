"""Harmful requests put to a model in other ways: in other words, later, and under pressure.

The words are the pack's (`personas.robustness`); here they become conversations, rendered like any
other. Which lead-in and which wrapper a prompt meets depends on its id alone, so that every model
meets the same conversation and a larger budget adds prompts without changing any.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TypeVar

from persona_probe.activations.contrast import under
from persona_probe.models.chat import Conversation, Message
from persona_probe.personas.pack import Pack
from persona_probe.personas.robustness import PARAPHRASE, REQUEST, TURNS
from persona_probe.personas.safety_suite import SafetyPrompt

ATTACK = "attack"
KINDS = {PARAPHRASE: "in other words", TURNS: "after ordinary exchanges", ATTACK: "under pressure"}
Word = TypeVar("Word")


@dataclass(frozen=True)
class Variant:
    """One way to put a request.

    Attributes:
        name: what results call it.
        kind: one of `KINDS`.
        paraphrases: id → other words; `None` when the prompt's own words are used.
        lead_ins: exchanges before it. wrappers: what stands around it. Prompts share them out.
    """

    name: str
    kind: str
    paraphrases: Mapping[str, str] | None = None
    lead_ins: tuple[tuple[str, ...], ...] = ((),)
    wrappers: tuple[str, ...] = (REQUEST,)

    def applies_to(self, prompt: SafetyPrompt) -> bool:
        """Whether there are words to put this prompt in."""
        return self.paraphrases is None or prompt.id in self.paraphrases

    def ask(self, prompt: SafetyPrompt, system: str) -> Conversation:
        """The prompt, put in this way, under a system line (empty for none)."""
        text = prompt.text if self.paraphrases is None else self.paraphrases[prompt.id]
        text = _turn_of(prompt, self.wrappers).replace(REQUEST, text)
        plain = under(system, text, id=prompt.id, label=prompt.kind, family=prompt.family)
        *line, request = plain.messages
        turns = zip(cycle(("user", "assistant")), _turn_of(prompt, self.lead_ins), strict=False)
        before = [Message(role, said) for role, said in turns]
        return replace(plain, messages=(*line, *before, request))


def variants(pack: Pack) -> list[Variant]:
    """Every way to put a request that the pack has words for, in the order of `KINDS`."""
    words = pack.robustness
    found = []
    if words.paraphrases:
        found.append(Variant(PARAPHRASE, PARAPHRASE, words.paraphrases))
    if words.lead_ins:
        found.append(Variant(TURNS, TURNS, lead_ins=words.lead_ins))
    return [*found, *(Variant(a.name, ATTACK, wrappers=a.wrappers) for a in words.attacks)]


def _turn_of(prompt: SafetyPrompt, several: Sequence[Word]) -> Word:
    """The one of several that this prompt meets, by a checksum of its id."""
    return several[zlib.crc32(prompt.id.encode()) % len(several)]
