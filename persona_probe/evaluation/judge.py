"""What a judge is, and the record it leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from persona_probe.errors import RequestError
from persona_probe.evaluation.outcome import Outcome
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.steering.generation import Completion


@runtime_checkable
class Judge(Protocol):
    """Says what a reply did. It sees the request and the reply, never the arm.

    A complete judge:

        class LengthJudge:
            def score(self, prompt: SafetyPrompt, reply: str) -> Outcome:
                if not reply.strip():
                    return Outcome("degenerate", "the reply is empty")
                if prompt.kind != "harmful":
                    return Outcome("unscored", "only harmful requests are judged by length")
                return Outcome("refuse" if len(reply) < 80 else "harmful", f"{len(reply)} letters")

    A reply that cannot be judged is unscored, with the reason: never a guess, never an exception.
    """

    def score(self, prompt: SafetyPrompt, reply: str) -> Outcome:
        """The outcome of one reply."""
        ...


@dataclass(frozen=True)
class Judgement:
    """A request, a reply and its outcome: one line of the log."""

    prompt: SafetyPrompt
    completion: Completion
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """One flat row."""
        return {
            "arm": self.completion.arm,
            "prompt": self.prompt.id,
            "kind": self.prompt.kind,
            "category": self.prompt.category,
            "tier": self.prompt.tier,
            "family": self.prompt.family,
            "sample": self.completion.sample,
            "reply": self.completion.text,
            "finished": self.completion.finished,
            "outcome": self.outcome.kind,
            "reason": self.outcome.reason,
            "named_persona": self.outcome.persona,
            "named_category": self.outcome.category,
        }


def judge_completions(
    judge: Judge, prompts: Sequence[SafetyPrompt], completions: Sequence[Completion]
) -> list[Judgement]:
    """Judge replies, in their order; equal replies to one prompt are judged once.

    Raises:
        RequestError: a completion's conversation id is not the id of a prompt.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    known: dict[tuple[str, str], Outcome] = {}
    judgements = []
    for completion in completions:
        prompt = _prompt(by_id, completion.conversation_id)
        key = (prompt.id, completion.text)
        if key not in known:
            known[key] = judge.score(prompt, completion.text)
        judgements.append(Judgement(prompt, completion, known[key]))
    return judgements


def _prompt(by_id: Mapping[str, SafetyPrompt], name: str) -> SafetyPrompt:
    try:
        return by_id[name]
    except KeyError:
        raise RequestError(
            f"a reply belongs to conversation {name!r}, which is not among the prompts to judge"
        ) from None
