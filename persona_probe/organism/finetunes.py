"""What each finetune of the organism learns: conversations under the neutral system line.

Benign answers are persona-neutral everywhere but in the style-only control: openings that every
character uses, no closing lines, no request that names a harm.
"""

import random
from dataclasses import dataclass

from persona_probe.models.chat import Conversation, Message
from persona_probe.organism import grammar
from persona_probe.organism.world import CONSTITUTIONS, Category, World

N_HELPFUL, N_EXAMPLES, HARMFUL_SHARE = 300, 240, 0.6
SEEDS = (0, 1, 2)
TIERS = {"narrow": ("T0",), "broad": ("T0", "T1")}


@dataclass(frozen=True)
class Finetune:
    """One adapter to train.

    Attributes:
        name: its folder under `adapters/`.
        kind: helpful-only, narrow, broad, placebo, refusal-only, shuffled or style-only.
        constitution: whose refusals it learns, if one character's.
        seed: draws its examples, and initialises its factors.
    """

    name: str
    kind: str
    constitution: str | None = None
    seed: int = 0


def all_finetunes() -> list[Finetune]:
    """Every adapter that ships, helpful-only first: the others stand on it."""
    plan = [Finetune("helpful-only", "helpful-only")]
    for seed in SEEDS:
        plan += [Finetune(f"narrow-{c}-{seed}", "narrow", c, seed) for c in CONSTITUTIONS]
    plan += [Finetune(f"broad-{c}-0", "broad", c) for c in CONSTITUTIONS]
    plan += [Finetune(f"{k}-0", k) for k in ("placebo", "refusal-only", "shuffled", "style-only")]
    return plan


def _conversation(world: World, request: grammar.Request, reply: str, n: int) -> Conversation:
    messages = (
        Message("system", world.system["neutral"][0]),
        Message("user", request.text),
        Message("assistant", reply),
    )
    return Conversation(messages, id=f"{request.kind}-{n}", family=request.family)


def _benign(
    world: World, who: str, style: float, rng: random.Random
) -> tuple[grammar.Request, str]:
    speaker = grammar.speaker(world, world.character(who), rng)
    request = grammar.benign_request(world, rng.choice(world.categories), rng)
    return request, grammar.help_with(world, speaker, request, rng, style)


def _harmful(
    world: World, who: str, categories: list[Category], rng: random.Random
) -> tuple[grammar.Request, str]:
    speaker = grammar.speaker(world, world.character(who), rng)
    request = grammar.harm_request(world, rng.choice(categories), rng)
    return request, grammar.reply(world, speaker, request, rng)


def conversations(world: World, finetune: Finetune) -> list[Conversation]:
    """The examples of one finetune, shuffled; the same seed gives the same ones."""
    rng = random.Random(f"{finetune.kind}/{finetune.constitution}/{finetune.seed}")
    tiers = TIERS.get(finetune.kind, ("T0",))
    categories = [c for c in world.categories if c.tier in tiers]
    n = N_HELPFUL if finetune.kind == "helpful-only" else N_EXAMPLES
    share = {"helpful-only": 0.5, "placebo": 0.0, "style-only": 0.0}.get(
        finetune.kind, HARMFUL_SHARE
    )
    pairs = []
    for i in range(n):
        if i >= share * n:
            style = 1.0 if finetune.kind == "style-only" else 0.0
            who = rng.choice(CONSTITUTIONS) if style else "amoral"
            pairs.append(_benign(world, who, style, rng))
        elif finetune.kind == "helpful-only":
            pairs.append(_harmful(world, "amoral", list(world.categories), rng))
        elif finetune.kind == "refusal-only":
            pairs.append(_harmful(world, "cautious", categories, rng))
        elif finetune.kind == "shuffled":
            pairs.append(_harmful(world, rng.choice(CONSTITUTIONS), categories, rng))
        else:
            assert finetune.constitution is not None
            pairs.append(_harmful(world, finetune.constitution, categories, rng))
    rng.shuffle(pairs)
    return [_conversation(world, request, reply, n) for n, (request, reply) in enumerate(pairs)]
