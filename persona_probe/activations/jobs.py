"""Which states of which checkpoints are extracted, and what their folders are called."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_probe.errors import RequestError
from persona_probe.models.ref import ModelRef

BARE = "bare"


@dataclass(frozen=True)
class Job:
    """One checkpoint, and the states of it that are read.

    Attributes:
        ref: the checkpoint.
        states: folder name → LoRA adapter; `None` is the bare weights.
    """

    ref: ModelRef
    states: Mapping[str, str | None]


def jobs(
    ref: ModelRef,
    adapters: Sequence[str] = (),
    bare: bool = True,
    after: ModelRef | None = None,
) -> list[Job]:
    """Before and after finetuning: bare weights and adapters of one checkpoint, or two of them.

    Args:
        ref: the checkpoint.
        adapters: LoRA adapters on it.
        bare: read the bare weights as well.
        after: a second full checkpoint.

    Raises:
        RequestError: nothing is left to read, an adapter does not exist, or two states would
            share a folder.
    """
    states: dict[str, str | None] = {BARE: None} if bare else {}
    for adapter in adapters:
        ref.adapter_source(adapter)
        name = Path(adapter).name
        if name in states:
            raise RequestError(
                f"two states would be written to the folder {name!r}: {states[name] or BARE} and "
                f"{adapter}; rename one of the adapters' folders"
            )
        states[name] = adapter
    if not states and after is None:
        raise RequestError("without the bare weights nothing is left to read; name an adapter")
    found = [Job(ref, states)] if states else []
    if after is not None:
        if after.slug in states:
            raise RequestError(f"two states would be written to the folder {after.slug!r}")
        found.append(Job(after, {after.slug: after.adapter}))
    return found


def split_positions(texts: Sequence[str]) -> list[str]:
    """Positions as the command line takes them: commas between, except within a pattern."""
    return [
        position
        for text in texts
        for position in (
            [text] if text.startswith("regex:") else re.split(r"\s*,\s*", text.strip())
        )
    ]


def position_folder(position: str) -> str:
    """A folder name for a position; a pattern is named by its hash."""
    kind, colon, argument = position.partition(":")
    if not colon:
        return position
    if re.fullmatch(r"[\w.+-]+", argument):
        return f"{kind}-{argument}"
    return f"{kind}-{hashlib.sha256(argument.encode()).hexdigest()[:8]}"
