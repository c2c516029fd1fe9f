"""Rows that joined a batch together: their prompts read once, then one token after the other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.models.decoding import read_prompts
from persona_probe.models.memory import Memory, Prompts
from persona_probe.models.packing import pack
from persona_probe.models.residual_model import Hook, ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.replies import Replies, Row
from persona_probe.steering.row_edits import RowEdits
from persona_probe.steering.trunk import first_site, packed_places, passes, read_trunk, together


class Cohort:
    """Rows of one age. What they have in common is computed once and held once.

    Rows whose arms change nothing before the last prompt token share all that comes before it, and
    begin by decoding that token. Other rows share their prompt up to the first site that they act
    at: there each goes on from the residual stream that the bare prompt has.
    """

    def __init__(
        self,
        model: ResidualModel,
        rows: Sequence[Row],
        room: int,
        temperature: float,
    ) -> None:
        """Read the prompts; the model must have the right adapter on.

        Args:
            model: that `decodes`.
            rows: what to reply to.
            room: tokens for a reply.
            temperature: of sampling.
        """
        spared = all(spares_the_prompt(row) for row in rows)
        site = {row.key: first_change(model, row) for row in rows}
        rows = sorted(rows, key=lambda row: (site[row.key], -len(row.prompt), row.prompt))
        self._model, self._rows = model, rows
        self._sites = [site[row.key] for row in rows]
        self._lengths = torch.tensor([len(row.prompt) for row in rows])
        self._edits = RowEdits(
            model, [row.interventions for row in rows], [row.prompt for row in rows]
        )
        self.replies = Replies(rows, room, temperature, model.end_ids)
        if spared:
            self.memory = self._shared_heads()
            self._next = torch.tensor([row.prompt[-1] for row in rows])
        else:
            self.memory, logits = self._branched()
            self._next = self.replies.add(logits)
            self._let_go()

    def __len__(self) -> int:
        return len(self.memory)

    @property
    def hooks(self) -> list[tuple[Site, Hook]]:
        """Hooks that a decoding pass needs."""
        return self._edits.hooks

    def place(self, start: int) -> Int[Tensor, " row"]:
        """Get ready for a decoding pass.

        Args:
            start: number of the first of its rows in the pass.

        Returns:
            The tokens to be read.
        """
        rows = torch.arange(start, start + len(self))[:, None]
        self._edits.place(
            self.memory.positions[:, None], self._lengths, (rows, torch.zeros_like(rows))
        )
        return self._next

    def add(self, logits: Float[Tensor, "row vocab"]) -> None:
        """Go on from the logits of the pass."""
        self._next = self.replies.add(logits)
        self._let_go()

    def _let_go(self) -> None:
        """Rows that are done leave."""
        kept = self.replies.leaving()
        if kept is None:
            return
        self._edits.keep(kept, len(self))
        self.memory.keep(kept)
        self._lengths, self._next = self._lengths[kept], self._next[kept]

    def _shared_heads(self) -> Memory:
        """Read everything before the last prompt token once for all rows."""
        heads = list(dict.fromkeys(row.prompt[:-1] for row in self._rows))
        shared, _ = read_trunk(self._model, heads, self._model.sites[-1], ())
        numbers = {head: number for number, head in enumerate(heads)}
        return Memory(
            shared,
            {},
            [numbers[row.prompt[:-1]] for row in self._rows],
            [self._model.n_layers] * len(self._rows),
            [len(row.prompt) - 1 for row in self._rows],
        )

    def _branched(self) -> tuple[Memory, Float[Tensor, "row vocab"]]:
        """Read distinct prompts up to where rows part from them, then each row from there on."""
        prompts = list(dict.fromkeys(row.prompt for row in self._rows))
        sites = sorted(set(self._sites))
        shared, resid = read_trunk(self._model, prompts, sites[-1], sites)
        width = max(map(len, prompts))
        private: dict[int, list[Prompts]] = {}
        logits = []
        with self._model.hooks(self._edits.hooks):
            for rows in passes(self._sites, self._lengths.tolist(), together(self._model)):
                site, texts = self._sites[rows.start], [row.prompt for row in self._rows[rows]]
                known = torch.cat([resid[site][text] for text in texts])[None]
                positions, at = packed_places(rows, self._lengths)
                self._edits.place(positions, self._lengths, at)
                kept, found = read_prompts(
                    self._model, pack(texts, self._model.device), start=(site, known)
                )
                assert found is not None
                logits.append(found)
                lengths = [len(text) for text in texts]
                for block, states in kept.items():
                    part = Prompts.of_packed(states, lengths, width)
                    private.setdefault(block, []).append(part)
        numbers = {prompt: number for number, prompt in enumerate(prompts)}
        memory = Memory(
            shared,
            {block: Prompts.joined(parts) for block, parts in private.items()},
            [numbers[row.prompt] for row in self._rows],
            [site.layer for site in self._sites],
            [len(row.prompt) for row in self._rows],
        )
        return memory, torch.cat(logits)


def spares_the_prompt(row: Row) -> bool:
    """Whether everything before the row's last prompt token can be shared with other arms."""
    return len(row.prompt) > 1 and all(i.spares_the_prompt for i in row.interventions)


def first_change(model: ResidualModel, row: Row) -> Site:
    """Where the residual stream of the prompt first may differ from the bare one.

    The last site, where nothing in the prompt is touched.
    """
    return first_site(model, (i for i in row.interventions if i.reaches_the_prompt))
