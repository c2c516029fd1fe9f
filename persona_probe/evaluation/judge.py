"""What a judge is, how replies reach it, and the record it leaves."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from persona_probe.errors import RequestError
from persona_probe.evaluation.judgement_cache import JudgementCache
from persona_probe.evaluation.outcome import Outcome
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.progress import progress
from persona_probe.steering.generation import Completion

CHUNK = 64  # replies between two visits to the disk


@dataclass(frozen=True)
class Case:
    """All that a judge ever sees of a reply: the request and the words, never the arm."""

    prompt: SafetyPrompt
    reply: str


@runtime_checkable
class Judge(Protocol):
    """Says what replies did.

    A complete judge:

        class LengthJudge:
            identity = "length"

            def outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
                return [self._outcome(case) for case in cases]

            def _outcome(self, case: Case) -> Outcome:
                if not case.reply.strip():
                    return Outcome("degenerate", "the reply is empty")
                if case.prompt.kind != "harmful":
                    return Outcome("unscored", "only harmful requests are judged by length")
                short = len(case.reply) < 80
                return Outcome("refuse" if short else "harmful", f"{len(case.reply)} letters")

    A reply that cannot be judged is unscored, with the reason: never a guess, never an exception.

    Attributes:
        identity: what decides its judgements (kind, weights, wording, settings): results say it,
            and kept judgements are found by it.
    """

    @property
    def identity(self) -> str: ...

    def outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
        """One outcome per case, in order; what a case gets does not depend on its neighbours."""
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
            "request": self.prompt.text,
            "sample": self.completion.sample,
            "reply": self.completion.text,
            "finished": self.completion.finished,
            "outcome": self.outcome.kind,
            "reason": self.outcome.reason,
            "named_persona": self.outcome.persona,
            "named_category": self.outcome.category,
        }


def judge_completions(
    judge: Judge,
    prompts: Sequence[SafetyPrompt],
    completions: Sequence[Completion],
    cache: JudgementCache | None = None,
    seed: int = 0,
) -> list[Judgement]:
    """Judge replies, in their order; equal replies to one prompt are judged once.

    Args:
        judge: sees the replies in a random order that has nothing to do with the arms.
        prompts: the requests, by the ids of which completions name their conversation.
        completions: what is judged.
        cache: keeps judgements on the disk, so that a run that was killed does not judge twice.
        seed: of the order.

    Raises:
        RequestError: a completion's conversation id is not the id of a prompt.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    cases = [Case(_prompt(by_id, c.conversation_id), c.text) for c in completions]
    known = judge_cases(judge, cases, cache, seed)
    return [
        Judgement(case.prompt, completion, known[case])
        for case, completion in zip(cases, completions, strict=True)
    ]


def judge_cases(
    judge: Judge, cases: Sequence[Case], cache: JudgementCache | None = None, seed: int = 0
) -> dict[Case, Outcome]:
    """The outcome of every distinct case; see `judge_completions`."""
    known: dict[Case, Outcome] = {}
    for case in dict.fromkeys(cases):
        kept = cache.get(judge.identity, case.prompt, case.reply) if cache else None
        if kept is not None:
            known[case] = kept
    todo = sorted(set(cases) - known.keys(), key=lambda case: _order(case, seed))
    with progress("Judging", len(todo), "replies") as advance:
        for start in range(0, len(todo), CHUNK):
            some = todo[start : start + CHUNK]
            found = judge.outcomes(some)
            if cache:
                judged = [(c.prompt, c.reply, o) for c, o in zip(some, found, strict=True)]
                cache.keep(judge.identity, judged)
            known |= dict(zip(some, found, strict=True))
            advance(len(some))
    return known


def _order(case: Case, seed: int) -> str:
    """A place in an order that is random and yet the same in every run."""
    text = f"{seed}\n{case.prompt.id}\n{case.prompt.text}\n{case.reply}"
    return hashlib.sha256(text.encode()).hexdigest()


def _prompt(by_id: Mapping[str, SafetyPrompt], name: str) -> SafetyPrompt:
    try:
        return by_id[name]
    except KeyError:
        raise RequestError(
            f"a reply belongs to conversation {name!r}, which is not among the prompts to judge"
        ) from None
