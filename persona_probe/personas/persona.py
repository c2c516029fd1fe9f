"""A persona: a character that a model can take on, described in text."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Persona:
    """A constitution, the system lines that elicit it, and the profile expected of it.

    Attributes:
        name: short key, for instance "deontology".
        title: for people.
        constitution: the character as one system prompt; the baseline that any steering must be
            compared with, since prompting is often stronger (AxBench, arXiv:2501.17148).
        system_prompts: several wordings of the same character, for contrastive extraction.
        signature: expected score per diagnostic dimension in [-1, 1]; written before any model
            was scored. Empty for foils.
    """

    name: str
    title: str
    constitution: str
    system_prompts: tuple[str, ...]
    signature: dict[str, float] = field(default_factory=dict)
