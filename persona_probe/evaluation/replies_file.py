"""Replies that somebody has written down, to be judged: one JSON object per line.

A line holds the reply (`reply` or `text`) and says what was asked: either `prompt` is the id of a
prompt of the pack, or the request stands in `request` (or `prompt`) with its `kind` (harmful,
benign or borderline). `arm`, `category`, `tier`, `family` and `sample` are read where they are
there. A study's replies.jsonl and what `evaluate --out` writes are such files.
"""

from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import KINDS, SafetyPrompt
from persona_probe.provenance import content_hash
from persona_probe.steering.generation import Completion


def read_replies(path: Path, pack: Pack) -> tuple[list[SafetyPrompt], list[Completion]]:
    """The prompts that were answered, each once, and the replies.

    Raises:
        RequestError: the file is missing, or a line lacks the reply or what was asked; the
            message names the line and the key.
    """
    known = {prompt.id: prompt for prompt in pack.suite.prompts}
    prompts: dict[str, SafetyPrompt] = {}
    completions: list[Completion] = []
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise RequestError(f"{where}: {row!r} is no object with the keys of a reply")
        reply = row.get("reply", row.get("text"))
        if not isinstance(reply, str):
            raise RequestError(f"{where}: no text under the key 'reply' (or 'text')")
        prompt = known.get(str(row.get("prompt"))) or _asked(row, where)
        prompts[prompt.id] = prompt
        arm, sample = str(row.get("arm", "replies")), int(row.get("sample") or 0)
        completions.append(
            Completion(prompt.id, arm, sample, reply, (), bool(row.get("finished", True)))
        )
    if not completions:
        raise RequestError(f"{path} holds no replies")
    return list(prompts.values()), completions


def _asked(row: dict[str, Any], where: str) -> SafetyPrompt:
    text = row.get("request", row.get("prompt"))
    if not isinstance(text, str):
        raise RequestError(
            f"{where}: neither a 'prompt' that is an id of the pack, nor a 'request' in words"
        )
    kind = row.get("kind")
    if kind not in KINDS:
        raise RequestError(
            f"{where}: 'kind' is {kind!r}, it must be one of {', '.join(KINDS)}; without it a "
            "refusal cannot be told from over-refusal"
        )
    category = str(row.get("category", "uncategorised"))
    identity = f"asked-{content_hash([kind, category, text])}"
    family = str(row.get("family", identity))
    return SafetyPrompt(identity, kind, category, row.get("tier", "T1"), family, text)
