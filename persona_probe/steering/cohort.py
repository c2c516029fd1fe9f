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
from persona_probe.steering.row_edits import At, RowEdits

Ids = tuple[int, ...]
Residuals = dict[Site, dict[Ids, Float[Tensor, "token d_model"]]]


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
        together: int,
    ) -> None:
        """Read the prompts; the model must have the right adapter on.

        Args:
            model: that `decodes`.
            rows: what to reply to.
            room: tokens for a reply.
            temperature: of sampling.
            together: tokens that go through the model at once, while prompts are read.
        """
        spared = all(spares_the_prompt(row) for row in rows)
        depth = {row.key: model.n_layers if spared else first_change(model, row) for row in rows}
        rows = sorted(rows, key=lambda row: (depth[row.key], -len(row.prompt), row.prompt))
        self._model, self._rows, self._together = model, rows, together
        self._depths = [depth[row.key] for row in rows]
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
        shared, _ = self._trunk(heads, self._model.sites[-1], ())
        numbers = {head: number for number, head in enumerate(heads)}
        return Memory(
            shared,
            {},
            [numbers[row.prompt[:-1]] for row in self._rows],
            self._depths,
            [len(row.prompt) - 1 for row in self._rows],
        )

    def _branched(self) -> tuple[Memory, Float[Tensor, "row vocab"]]:
        """Read distinct prompts up to where rows part from them, then each row from there on."""
        prompts = list(dict.fromkeys(row.prompt for row in self._rows))
        sites = [Site(depth) for depth in sorted(set(self._depths))]
        shared, resid = self._trunk(prompts, sites[-1], sites)
        width = max(map(len, prompts))
        private: dict[int, list[Prompts]] = {}
        logits = []
        with self._model.hooks(self._edits.hooks):
            for rows in self._passes():
                site = Site(self._depths[rows.start])
                texts = [row.prompt for row in self._rows[rows]]
                known = torch.cat([resid[site][text] for text in texts])[None]
                self._edits.place(*self._packed(rows))
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
            self._depths,
            [len(row.prompt) for row in self._rows],
        )
        return memory, torch.cat(logits)

    def _trunk(
        self, texts: Sequence[Ids], last_site: Site, wanted: Sequence[Site]
    ) -> tuple[dict[int, Prompts], Residuals]:
        """Read texts without any change.

        Returns:
            Their keys and values at every block, and their residual stream at the wanted sites.
        """
        resid: Residuals = {site: {} for site in wanted}
        parts: dict[int, list[Prompts]] = {}
        width = max(map(len, texts))
        for some in _runs([len(text) for text in texts], self._together):
            lengths = [len(text) for text in texts[some]]

            def keep(site: Site, some: slice = some, lengths: Sequence[int] = lengths) -> Hook:
                def hook(packed: Float[Tensor, "1 token d_model"]) -> None:
                    resid[site] |= zip(
                        texts[some], torch.split(packed[0], list(lengths)), strict=True
                    )

                return hook

            with self._model.hooks([(site, keep(site)) for site in wanted]):
                kept, _ = read_prompts(
                    self._model, pack(texts[some], self._model.device), last_site
                )
            for block, states in kept.items():
                parts.setdefault(block, []).append(Prompts.of_packed(states, lengths, width))
        return {block: Prompts.joined(found) for block, found in parts.items()}, resid

    def _passes(self) -> list[slice]:
        """Neighbouring rows that part from their prompts at one site and fit into one pass."""
        found, start = [], 0
        for depth in sorted(set(self._depths)):
            n = self._depths.count(depth)
            lengths = [len(row.prompt) for row in self._rows[start : start + n]]
            found += [
                slice(start + some.start, start + some.stop)
                for some in _runs(lengths, self._together)
            ]
            start += n
        return found

    def _packed(self, rows: slice) -> tuple[Tensor, Tensor, At]:
        """Positions of some rows' tokens, all prompt lengths, and where in a packed row they are.

        Rows that are not in the pass have no position in it.
        """
        lengths = self._lengths[rows]
        at = torch.arange(int(lengths.max()))
        positions = torch.full((len(self._rows), len(at)), -1)
        positions[rows] = torch.where(at < lengths[:, None], at, -1)
        column = torch.zeros_like(positions)
        starts = (lengths.cumsum(0) - lengths)[:, None]
        column[rows] = torch.where(at < lengths[:, None], starts + at, 0)
        return positions, self._lengths, (torch.zeros_like(column), column)


def spares_the_prompt(row: Row) -> bool:
    """Whether everything before the row's last prompt token can be shared with other arms."""
    return len(row.prompt) > 1 and all(i.spares_the_prompt for i in row.interventions)


def first_change(model: ResidualModel, row: Row) -> int:
    """The block after which the residual stream of the prompt first may differ from the bare one.

    The last block, where nothing in the prompt is touched.
    """
    touched = [site.layer for i in row.interventions if i.reaches_the_prompt for site in i.touched]
    return min(touched, default=model.n_layers - 1)


def _runs(lengths: Sequence[int], most: int) -> list[slice]:
    """Consecutive pieces of at most `most` tokens, or of one sequence."""
    found, start, filled = [], 0, 0
    for number, length in enumerate(lengths):
        if filled and filled + length > most:
            found.append(slice(start, number))
            start, filled = number, 0
        filled += length
    return [*found, slice(start, len(lengths))]
