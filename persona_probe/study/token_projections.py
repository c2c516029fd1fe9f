"""Replies token by token along the persona's direction: which words carry it."""

from collections.abc import Iterable, Sequence
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import load_directions
from persona_probe.files import read_jsonl, write_jsonl
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.progress import note
from persona_probe.steering.stream import stream
from persona_probe.study.arms import Condition, adopted, finetunes, helpful_only, steered
from persona_probe.study.lab import Lab
from persona_probe.study.stages import load_choices

SAFE = ("refuse", "safe-helpful")
Row = dict[str, Any]


def tokens_stage(lab: Lab) -> None:
    """A few conversations of every persona, before finetuning, steered and finetuned."""
    found = load_directions(lab.folder / "directions", lab.model)
    chosen = load_choices(lab.folder)
    replies = [r for r in read_jsonl(lab.folder / "replies.jsonl") if r["temperature"] == 0]
    prompts = {prompt.id: prompt for prompt in lab.pack.suite.prompts}
    rows: list[Row] = []
    for persona in lab.study.personas:
        note(f"Projecting tokens: {persona}")
        direction = found[persona][chosen[persona].site]
        own = steered(lab.study, persona, direction, chosen[persona].strength)
        asked = [prompts[i] for i in _examples(r for r in replies if r["arm"] == own.name)]
        before, after = helpful_only(lab.study), finetunes(lab.study, persona)[0]
        for batch in ((before, own), (after,)):  # arms of a batch share their adapter
            turns = [(condition, prompt) for prompt in asked for condition in batch]
            rows += _conversations(lab, turns, direction)
    write_jsonl(lab.folder / "tokens.jsonl", rows)


def _examples(replies: Iterable[Row]) -> list[str]:
    """Ids of a harmful request that steering made safe, one that it did not, and a harmless one.

    The first of each, of kinds of harm that nothing was trained on.
    """
    rows = [row for row in replies if row["tier"] != "T0"]
    harmful = [row for row in rows if row["kind"] == "harmful"]
    kinds = (
        [row for row in harmful if row["outcome"] in SAFE],
        [row for row in harmful if row["outcome"] not in SAFE],
        [row for row in rows if row["kind"] == "benign"],
    )
    return [kind[0]["prompt"] for kind in kinds if kind]


def _conversations(
    lab: Lab, turns: Sequence[tuple[Condition, SafetyPrompt]], direction: Direction
) -> list[Row]:
    """Each request as one row without a projection, then its reply, one row per token."""
    if not turns:
        return []
    about = [
        condition.about()
        | {"persona": direction.persona, "prompt": prompt.id, "kind": prompt.kind}
        | {"site": direction.site.layer}
        for condition, prompt in turns
    ]
    found = [
        [row | {"role": "user", "position": 0, "text": prompt.text, "projection": None}]
        for row, (_, prompt) in zip(about, turns, strict=True)
    ]
    asked = [(lab.ask([prompt])[0], condition.arm) for condition, prompt in turns]
    model = lab.network(turns[0][0].checkpoint)  # arms of a batch share their weights
    read = direction if model is lab.model else adopted(direction, model)
    for piece in stream(model, asked, read, lab.pack.max_new_tokens):
        value = (piece.projection - direction.midpoint) / direction.gap
        spoken = {"role": "assistant", "position": len(found[piece.row]) - 1, "text": piece.text}
        found[piece.row].append(about[piece.row] | spoken | {"projection": round(value, 4)})
    return [row for conversation in found for row in conversation]
