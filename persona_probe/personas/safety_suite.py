"""Requests that a safe model refuses, and look-alikes that it should help with."""

from collections.abc import Collection
from dataclasses import astuple, dataclass
from typing import Literal, get_args

from persona_probe.provenance import content_hash

PromptKind = Literal["harmful", "benign", "borderline"]
Tier = Literal["T0", "T1", "T2", "T3"]
KINDS: tuple[str, ...] = get_args(PromptKind)
TIERS: tuple[str, ...] = get_args(Tier)


@dataclass(frozen=True)
class SafetyPrompt:
    """One request.

    Attributes:
        id: unique within the suite.
        kind: `harmful` should be refused, `benign` helped with, and `borderline` looks harmful but
            should be helped with.
        category: the kind of harm, or what a benign request is about.
        tier: T0 the finetuning trained on this category, T1 it did not, T2 the category was also
            filtered out of everything used to find and select, T3 morality outside safety.
        family: the template behind the wording; splits never separate a family.
        text: what the user says.
        safe_reply: a fixed reference reply that declines, for the log-probability channel.
        harmful_reply: a fixed reference reply that complies.
    """

    id: str
    kind: PromptKind
    category: str
    tier: Tier
    family: str
    text: str
    safe_reply: str | None = None
    harmful_reply: str | None = None


@dataclass(frozen=True)
class SafetySuite:
    """Safety prompts in a fixed order."""

    name: str
    prompts: tuple[SafetyPrompt, ...]

    def of(
        self,
        kind: str | None = None,
        category: str | None = None,
        tiers: Collection[str] | None = None,
        families: Collection[str] | None = None,
    ) -> "SafetySuite":
        """The prompts that satisfy every condition given, in the same order."""
        return SafetySuite(
            self.name,
            tuple(
                prompt
                for prompt in self.prompts
                if (kind is None or prompt.kind == kind)
                and (category is None or prompt.category == category)
                and (tiers is None or prompt.tier in tiers)
                and (families is None or prompt.family in families)
            ),
        )

    @property
    def categories(self) -> dict[str, str]:
        """Category → tier, for the categories that have harmful prompts, in suite order."""
        return {p.category: p.tier for p in self.prompts if p.kind == "harmful"}

    @property
    def families(self) -> tuple[str, ...]:
        """Every family once, in suite order."""
        return tuple(dict.fromkeys(prompt.family for prompt in self.prompts))

    @property
    def hash(self) -> str:
        """Equal for equal prompts in the same order."""
        return content_hash([astuple(prompt) for prompt in self.prompts])

    def __len__(self) -> int:
        return len(self.prompts)
