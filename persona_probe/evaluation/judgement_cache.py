"""Judgements that outlive the process: found again by the content that was judged.

One file per judge, one judgement per line, appended and flushed in whole lines. A writer that is
killed leaves at most half a line at the end, which is cut off when the file is opened next.
Unscored replies are not kept: a judge that failed is asked again in the next run.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from persona_probe.evaluation.outcome import OUTCOME_KINDS, Outcome
from persona_probe.files import make_folder
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.provenance import content_hash


class JudgementCache:
    """What judges have said before, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_judge: dict[str, dict[str, Outcome]] = {}

    def get(self, judge: str, prompt: SafetyPrompt, reply: str) -> Outcome | None:
        """The outcome that this judge gave to this reply, if it is kept."""
        return self._read(judge).get(_key(prompt, reply))

    def keep(self, judge: str, judged: Sequence[tuple[SafetyPrompt, str, Outcome]]) -> None:
        """Add judgements of one judge; when this returns they are on the disk."""
        known = self._read(judge)
        new = {
            _key(prompt, reply): outcome
            for prompt, reply, outcome in judged
            if outcome.kind != "unscored"
        }
        lines = [json.dumps({"key": key} | asdict(o)) + "\n" for key, o in new.items()]
        if not lines:
            return
        path = self._path(judge)
        first = "" if path.exists() else json.dumps({"judge": judge}) + "\n"
        make_folder(path.parent)
        with path.open("ab") as handle:
            handle.write((first + "".join(lines)).encode())
            handle.flush()
            os.fsync(handle.fileno())
        known |= new

    def _path(self, judge: str) -> Path:
        return self.folder / f"judgements-{content_hash(judge)}.jsonl"

    def _read(self, judge: str) -> dict[str, Outcome]:
        if judge not in self._by_judge:
            path = self._path(judge)
            self._by_judge[judge] = _whole_lines(path) if path.exists() else {}
        return self._by_judge[judge]


def _key(prompt: SafetyPrompt, reply: str) -> str:
    """Everything that a judge sees; not the id, and nothing about where the reply came from."""
    seen = [prompt.kind, prompt.category, prompt.text, prompt.safe_reply, prompt.harmful_reply]
    return content_hash([*seen, reply])


def _whole_lines(path: Path) -> dict[str, Outcome]:
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as handle:
            handle.truncate(len(whole))
    found: dict[str, Outcome] = {}
    for line in whole.decode("utf-8", errors="replace").split("\n")[1:]:
        try:
            row = json.loads(line)
            key = row.pop("key")
            outcome = Outcome(**row)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            continue  # a damaged line costs one judgement, which is asked for again
        if outcome.kind in OUTCOME_KINDS:
            found[key] = outcome
    return found
