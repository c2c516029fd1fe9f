"""Prompts that finetuning may learn from: never those that anything is evaluated on."""

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl
from persona_probe.models.conversations import read_conversations
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import SafetyPrompt

TRAINING_FILE = "training.jsonl"
Scope = Literal["narrow", "broad"]
TIERS_OF: dict[str, tuple[str, ...]] = {"narrow": ("T0",), "broad": ("T0", "T1")}


def scope_categories(pack: Pack, scope: str, chosen: Collection[str] = ()) -> tuple[str, ...]:
    """Harm categories of a scope: narrow is tier T0, broad T0 and T1; or any that are chosen.

    Raises:
        RequestError: a chosen category is unknown or is one that only ever evaluates (T2), or the
            scope has none.
    """
    pack.require_categories(chosen)
    if held := [c for c in chosen if pack.suite.categories[c] == "T2"]:
        raise RequestError(
            f"the category {held[0]!r} is held out for evaluation (tier T2), so nothing may learn "
            "from it; choose others"
        )
    if chosen:
        return tuple(chosen)
    if scope not in get_args(Scope):
        raise RequestError(f"scope must be one of {', '.join(get_args(Scope))}, got {scope!r}")
    found = tuple(c for c, tier in pack.suite.categories.items() if tier in TIERS_OF[scope])
    if not found:
        raise RequestError(f"pack {pack.name!r} has no category of scope {scope!r}")
    return found


def training_prompts(pack: Pack, seed: int = 0) -> list[SafetyPrompt]:
    """The pack's `training.jsonl`; without one, the find part of its safety prompts.

    Raises:
        RequestError: a row of the file is malformed.
    """
    path = pack.folder / TRAINING_FILE
    if not path.is_file():
        families = pack.split(seed).find
        return list(pack.suite.of(families=families).prompts)
    found = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            found.append(SafetyPrompt(**row))
        except TypeError as error:
            raise RequestError(f"{path}, row {number}: {error}") from None
    return found


def prompts_in(path: Path) -> list[SafetyPrompt]:
    """A user's own prompts: lines of messages with a "kind" and, if harmful, a "category".

    Raises:
        RequestError: a line has no kind, no category, or a reply already.
    """
    found = []
    for c in read_conversations(path):
        kind = c.metadata.get("kind")
        if kind not in ("harmful", "benign"):
            got = "it is missing" if kind is None else f"got {kind!r}"
            raise RequestError(f'{c.source}: "kind" must be "harmful" or "benign", {got}')
        category = str(c.metadata.get("category") or "")
        if kind == "harmful" and not category:
            raise RequestError(f'{c.source}: a harmful prompt needs a "category"; add it')
        if len(c.messages) != 1 or c.messages[0].role != "user":
            raise RequestError(
                f"{c.source}: a prompt is one user message, without a system line and a reply"
            )
        text = c.messages[0].content
        found.append(SafetyPrompt(str(c.id), kind, category, "T0", c.family or str(c.id), text))
    return found


def draw_prompts(
    prompts: Sequence[SafetyPrompt],
    categories: Collection[str],
    n: int,
    benign_share: float,
    seed: int = 0,
) -> list[SafetyPrompt]:
    """`n` prompts in a mixed order: harmful ones of the categories, evenly, and benign ones.

    A category or the benign part that has fewer prompts than its share gives all it has.

    Raises:
        RequestError: a category is empty, or there is no benign prompt to mix in.
    """
    if not 0 <= benign_share <= 1:
        raise RequestError(f"the benign share must be from 0 to 1, got {benign_share}")
    rng = random.Random(f"prompts/{seed}")
    chosen: list[SafetyPrompt] = []
    wanted = n - round(n * benign_share)
    for number, category in enumerate(categories if wanted else ()):
        own = [p for p in prompts if p.kind == "harmful" and p.category == category]
        if not own:
            raise RequestError(
                f"the category {category!r} is empty: there is no harmful training prompt of it; "
                "add some, or leave the category out"
            )
        share = wanted // len(categories) + (number < wanted % len(categories))
        chosen += rng.sample(own, min(share, len(own)))
    benign = [p for p in prompts if p.kind == "benign"]
    if benign_share and not benign:
        raise RequestError("there is no benign prompt to mix in; add some, or set the share to 0")
    chosen += rng.sample(benign, min(n - wanted, len(benign)))
    rng.shuffle(chosen)
    return chosen


def row_of(prompt: SafetyPrompt) -> dict[str, Any]:
    """What is known of a prompt, for a sample's line."""
    return {"kind": prompt.kind, "category": prompt.category, "tier": prompt.tier}
