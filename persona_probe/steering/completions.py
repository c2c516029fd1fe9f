"""Replies as a list that shows itself in a notebook: prompts down, arms across."""

from typing import TYPE_CHECKING

from persona_probe.display import table

if TYPE_CHECKING:
    from persona_probe.steering.generation import Completion


class Completions(list["Completion"]):
    """What `generate` returns: an ordinary list of completions."""

    def _repr_html_(self) -> str:
        arms = list(dict.fromkeys(reply.arm for reply in self))
        by_prompt: dict[tuple[str, int], dict[str, str]] = {}
        for reply in self:
            text = reply.text if reply.finished else f"{reply.text} …"
            by_prompt.setdefault((reply.conversation_id, reply.sample), {})[reply.arm] = text
        several = any(sample for _, sample in by_prompt)
        rows = [
            [f"{name}, sample {sample}" if several else name, *(said.get(arm, "–") for arm in arms)]
            for (name, sample), said in by_prompt.items()
        ]
        return table(["prompt", *arms], rows, f"{len(self)} replies")
