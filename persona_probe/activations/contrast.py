"""The same question under different characters: labelled conversations for finding directions.

The system-prompt contrast of persona vectors (arXiv:2507.21509), read in one model: each question
is asked once under the neutral system line and once under each character's, so that everything
but the character is equal within a pair. Label = the character's name, or `NEUTRAL`.
"""

from collections.abc import Collection, Sequence
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.models.chat import Conversation, Message
from persona_probe.personas.pack import Pack, Question
from persona_probe.personas.persona import Persona
from persona_probe.personas.safety_suite import SafetyPrompt

NEUTRAL = "neutral"


def under(system: str, text: str, **about: Any) -> Conversation:
    """One request under a system line; an empty system line is left out.

    Args:
        system: the system line.
        text: what the user says.
        about: further fields of the conversation.
    """
    messages = [Message("user", text)]
    if system:
        messages.insert(0, Message("system", system))
    return Conversation(messages=tuple(messages), **about)


def request(prompt: SafetyPrompt, system: str) -> Conversation:
    """A safety prompt under a system line, labelled by its kind."""
    return under(system, prompt.text, id=prompt.id, label=prompt.kind, family=prompt.family)


def contrast(
    pack: Pack, personas: Sequence[Persona], families: Collection[str]
) -> list[Conversation]:
    """Ask every question of some families neutrally and once as each persona.

    Args:
        pack: where the questions and the neutral system line come from.
        personas: the characters to contrast with neutral. Their system prompts rotate over the
            questions, so that all wordings occur equally often and none stands for the character.
        families: only questions of these families are asked.

    Returns:
        Conversations whose `id` is the question's (equal within a pair), whose `label` is the
        character's name or `NEUTRAL`, and whose `family` is the question's.

    Raises:
        RequestError: no question belongs to these families.
    """
    questions = [question for question in pack.questions if question.family in families]
    if not questions:
        raise RequestError(f"pack {pack.name!r} has no questions in the families asked for")
    conversations = []
    for index, question in enumerate(questions):
        conversations.append(_ask(question, pack.neutral_system, NEUTRAL))
        for persona in personas:
            prompts = persona.system_prompts
            conversations.append(_ask(question, prompts[index % len(prompts)], persona.name))
    return conversations


def _ask(question: Question, system: str, label: str) -> Conversation:
    return under(system, question.text, id=question.id, label=label, family=question.family)
