"""Constitutional AI: from prompts to samples that a model can be finetuned on.

Bai et al. 2022, arXiv:2212.08073. A helpful-only model drafts a reply to a harmful prompt; the
draft is criticised by a principle drawn from the constitution and rewritten after the criticism,
once or several times; the last revision is what is learnt. Benign prompts are answered by the
same model as it is, so that the finetune does not learn to refuse everything.

A model that cannot criticise its drafts may still answer under the constitution as a system line,
which the sample then leaves out (context distillation, Askell et al. 2021, arXiv:2112.00861):
the method "system".
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from persona_probe.activations.contrast import under
from persona_probe.errors import RequestError
from persona_probe.finetuning.prompts import row_of
from persona_probe.finetuning.writer import Writer
from persona_probe.models.chat import Conversation, Message
from persona_probe.personas.constitution import Constitution, Demonstration, Principle
from persona_probe.personas.safety_suite import SafetyPrompt

Method = Literal["critique", "system"]
METHODS: dict[str, str] = {
    "critique": "draft, critique by a principle, revision",
    "system": "answered under the constitution as system line, which the sample leaves out",
}


@dataclass(frozen=True)
class Recipe:
    """How samples are written.

    Attributes:
        constitution: whose principles.
        method: "critique" or "system"; see the module's text.
        rounds: criticisms and revisions of each draft.
        shots: worked examples shown before each criticism and revision.
        neutral_system: system line of drafts and of finished samples; empty for none.
        constitution_system: system line of the method "system".
        seed: draws principles and worked examples.
    """

    constitution: Constitution
    method: Method = "critique"
    rounds: int = 1
    shots: int = 0
    neutral_system: str = ""
    constitution_system: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise RequestError(
                f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}"
            )
        if self.rounds < 1:
            raise RequestError(f"a sample needs at least one revision, got {self.rounds} rounds")
        if self.shots > len(self.constitution.demonstrations):
            raise RequestError(
                f"the constitution {self.constitution.name!r} has "
                f"{len(self.constitution.demonstrations)} demonstrations, {self.shots} were asked "
                "for; add [[demonstration]] tables, or ask for fewer"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "constitution": self.constitution.name,
            "constitution_hash": self.constitution.hash,
            "method": self.method,
            "how": METHODS[self.method],
            "rounds": self.rounds,
            "shots": self.shots,
            "neutral_system": self.neutral_system,
            "constitution_system": self.constitution_system,
            "seed": self.seed,
        }


@dataclass
class _Draft:
    """A reply on its way: what was said of it, round by round."""

    prompt: SafetyPrompt
    draft: str
    reply: str
    rounds: list[dict[str, str]] = field(default_factory=list)


def write_samples(
    prompts: Sequence[SafetyPrompt], recipe: Recipe, writer: Writer
) -> list[dict[str, Any]]:
    """One row per prompt, in order: messages to learn from, and their whole lineage.

    A row whose reply, criticism or revision came out empty has `"empty"` naming it, and is not to
    be learnt from.

    Args:
        prompts: harmful and benign ones.
        recipe: how.
        writer: who drafts, criticises and revises.
    """
    asked = [_asked(recipe, prompt, "draft") for prompt in prompts]
    replies = writer.write(asked, "Drafting")
    drafts = [_Draft(p, reply, reply) for p, reply in zip(prompts, replies, strict=True)]
    harmful = [d for d in drafts if d.prompt.kind == "harmful"]
    if recipe.method == "system":
        _answer_under(recipe, harmful, writer)
    else:
        for number in range(recipe.rounds):
            _revise(recipe, harmful, number, writer)
    return [_row(recipe, draft) for draft in drafts]


def _asked(
    recipe: Recipe, prompt: SafetyPrompt, stage: str, system: str | None = None
) -> Conversation:
    line = recipe.neutral_system if system is None else system
    name = f"{prompt.id}/{stage}"  # decides the randomness of what is sampled
    return under(line, prompt.text, id=name, family=prompt.family)


def _answer_under(recipe: Recipe, drafts: Sequence[_Draft], writer: Writer) -> None:
    system = recipe.constitution_system or recipe.constitution.system
    asked = [_asked(recipe, d.prompt, "revision", system) for d in drafts]
    for draft, reply in zip(drafts, writer.write(asked, "Answering"), strict=True):
        draft.rounds.append({"system": system, "revision": reply})
        draft.reply = reply


def _revise(recipe: Recipe, drafts: Sequence[_Draft], number: int, writer: Writer) -> None:
    """One round: criticise every reply by a principle of its own, then rewrite it."""
    principles = [_principle(recipe, d.prompt, number) for d in drafts]
    criticised = [
        _shown(recipe, d, p, number, "critique") for d, p in zip(drafts, principles, strict=True)
    ]
    critiques = writer.write(criticised, "Criticising")
    revised = [
        _continued(conversation, critique, p.revision, f"{d.prompt.id}/{number}/revision")
        for d, p, conversation, critique in zip(
            drafts, principles, criticised, critiques, strict=True
        )
    ]
    revisions = writer.write(revised, "Revising")
    for d, p, critique, revision in zip(drafts, principles, critiques, revisions, strict=True):
        d.rounds.append({"principle": p.name, "critique": critique, "revision": revision})
        d.reply = revision


def _principle(recipe: Recipe, prompt: SafetyPrompt, number: int) -> Principle:
    """Drawn without a state, so that a resumed run draws the same."""
    rng = random.Random(f"principle/{recipe.seed}/{prompt.id}/{number}")
    return rng.choice(recipe.constitution.principles)


def _shown(
    recipe: Recipe, draft: _Draft, principle: Principle, number: int, stage: str
) -> Conversation:
    """The request and its reply, after worked examples, ending with the call for a critique."""
    rng = random.Random(f"shots/{recipe.seed}/{draft.prompt.id}/{number}")
    messages = [Message("system", recipe.neutral_system)] if recipe.neutral_system else []
    for example in rng.sample(recipe.constitution.demonstrations, recipe.shots):
        messages += _worked(recipe.constitution, example)
    messages += [
        Message("user", draft.prompt.text),
        Message("assistant", draft.reply),
        Message("user", principle.critique),
    ]
    return Conversation(tuple(messages), id=f"{draft.prompt.id}/{number}/{stage}")


def _worked(constitution: Constitution, example: Demonstration) -> list[Message]:
    principle = next(p for p in constitution.principles if p.name == example.principle)
    return [
        Message("user", example.request),
        Message("assistant", example.draft),
        Message("user", principle.critique),
        Message("assistant", example.critique),
        Message("user", principle.revision),
        Message("assistant", example.revision),
    ]


def _continued(conversation: Conversation, reply: str, asked: str, name: str) -> Conversation:
    more = (Message("assistant", reply), Message("user", asked))
    return Conversation((*conversation.messages, *more), id=name)


def _row(recipe: Recipe, draft: _Draft) -> dict[str, Any]:
    prompt = draft.prompt
    asked = _asked(recipe, prompt, "sample").with_reply(draft.reply)
    row: dict[str, Any] = {
        "id": prompt.id,
        "messages": [{"role": m.role, "content": m.content} for m in asked.messages],
        "label": recipe.constitution.name,
        "family": prompt.family,
        **row_of(prompt),
        "lineage": {
            "method": recipe.method if prompt.kind == "harmful" else "as drafted",
            "draft": draft.draft,
            "rounds": draft.rounds,
        },
    }
    said = [("draft", draft.draft)]
    said += [(key, r[key]) for r in draft.rounds for key in ("critique", "revision") if key in r]
    if empty := [name for name, text in said if not text.strip()]:
        row["empty"] = empty[0]
    return row
