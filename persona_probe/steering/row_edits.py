"""The interventions of all rows of one batch, stacked so that one hook per site applies them.

Rows of a batch belong to different arms. For each site the rows' first interventions are stacked
by operation and schedule, then their second ones, and so on: a handful of tensor operations then
edits exactly the positions that the schedules name, whatever the number of arms. Everything else
in the residual stream keeps its bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.arm import Intervention, require_fit
from persona_probe.steering.operation import Operation
from persona_probe.steering.schedule import schedule_named

Residual = Float[Tensor, "row pos d_model"]
Hook = Callable[[Residual], Residual | None]


@dataclass(frozen=True)
class _Stack:
    """Interventions at one site that share their place in the order, operation and schedule.

    Attributes:
        rows: the batch row of each intervention.
        which: its place in `units` and `parameters`, which hold every distinct one once.
    """

    operation: type[Operation]
    schedule: str
    rows: Int[Tensor, " edit"]
    which: Int[Tensor, " edit"]
    units: Float[Tensor, "distinct d_model"]
    parameters: Float[Tensor, "distinct parameter"]


@dataclass(frozen=True)
class _Edit:
    """What one stack does in the next forward pass: one entry per edited position."""

    rows: Int[Tensor, " edit"]
    positions: Int[Tensor, " edit"]
    units: Float[Tensor, "edit d_model"]
    parameters: Float[Tensor, "edit parameter"]
    apply: Callable[[Tensor, Tensor, Tensor], Tensor]


class RowEdits:
    """Hooks for one batch whose rows carry different interventions.

    Call `place` before every forward pass, and `keep` when rows leave the batch.
    """

    def __init__(self, model: ResidualModel, rows: Sequence[Sequence[Intervention]]) -> None:
        """Stack the interventions of each row, in the order in which the row lists them."""
        distinct = {id(i): i for interventions in rows for i in interventions}
        require_fit(model, distinct.values())
        self._device = model.device
        self._stacks: dict[Site, list[_Stack]] = {
            site: _stack(site, rows, model.device)
            for site in sorted({site for i in distinct.values() for site in i.where})
        }
        self._edits: dict[Site, list[_Edit]] = {}

    def place(
        self,
        positions: Int[Tensor, "row pos"],
        prompt_lengths: Int[Tensor, " row"],
        at: tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]] | None = None,
    ) -> None:
        """Say which positions the next forward pass holds.

        Args:
            positions: position of each token in its sequence, counted without padding; -1 at
                padding. On the CPU: what to edit is decided there.
            prompt_lengths: number of prompt tokens of each row, on the CPU.
            at: row and column of each token in the model's batch, where rows share a batch row.
        """
        self._edits = {
            site: [e for s in stacks if (e := self._edit(s, positions, prompt_lengths, at))]
            for site, stacks in self._stacks.items()
        }

    def rest(self) -> None:
        """Edit nothing until `place` is called again."""
        self._edits = {}

    def keep(self, rows: Int[Tensor, " kept"], n_rows: int) -> None:
        """Drop all rows but these of the `n_rows` in the batch, which then count from 0."""
        new_row = torch.full((n_rows,), -1)
        new_row[rows] = torch.arange(len(rows))
        for site, stacks in self._stacks.items():
            self._stacks[site] = [_moved(stack, new_row) for stack in stacks]

    @property
    def hooks(self) -> list[tuple[Site, Hook]]:
        """One hook per site, to be passed to `ResidualModel.hooks`."""
        return [(site, self._hook(site)) for site in self._stacks]

    def _hook(self, site: Site) -> Hook:
        def hook(resid: Residual) -> Residual | None:
            for edit in self._edits.get(site, ()):
                where = (edit.rows, edit.positions)
                resid = resid.index_put(
                    where, edit.apply(resid[where], edit.units, edit.parameters)
                )
            return resid

        return hook

    def _edit(
        self,
        stack: _Stack,
        positions: Tensor,
        prompt_lengths: Tensor,
        at: tuple[Tensor, Tensor] | None,
    ) -> _Edit | None:
        in_schedule = schedule_named(stack.schedule)(positions, prompt_lengths[:, None])
        entries, columns = in_schedule[stack.rows].nonzero(as_tuple=True)
        if len(entries) == 0:
            return None
        rows, which = stack.rows[entries], stack.which[entries].to(self._device)
        if at is not None:
            rows, columns = at[0][rows, columns], at[1][rows, columns]
        return _Edit(
            rows=rows.to(self._device),
            positions=columns.to(self._device),
            units=stack.units[which],
            parameters=stack.parameters[which],
            apply=stack.operation.edit,
        )


def _moved(stack: _Stack, new_row: Int[Tensor, " row"]) -> _Stack:
    rows = new_row[stack.rows]
    kept = rows >= 0
    return replace(stack, rows=rows[kept], which=stack.which[kept])


def _stack(
    site: Site, rows: Sequence[Sequence[Intervention]], device: torch.device
) -> list[_Stack]:
    """Stacks at one site, in the order in which they apply."""
    members: dict[tuple[int, type[Operation], str], list[tuple[int, Intervention]]] = {}
    for row, interventions in enumerate(rows):
        here = [i for i in interventions if site in i.where]
        for order, intervention in enumerate(here):
            kind = (order, type(intervention.operation), intervention.when)
            members.setdefault(kind, []).append((row, intervention))
    stacks = []
    # Sorted by order alone: stacks of one order touch different rows, so they commute.
    for (_, operation, schedule), entries in sorted(members.items(), key=lambda kv: kv[0][0]):
        distinct = {id(i): i for _, i in entries}
        place = {key: number for number, key in enumerate(distinct)}
        stacks.append(
            _Stack(
                operation=operation,
                schedule=schedule,
                rows=torch.tensor([row for row, _ in entries]),
                which=torch.tensor([place[id(i)] for _, i in entries]),
                units=torch.stack([i.direction.unit.float() for i in distinct.values()]).to(device),
                parameters=torch.tensor(
                    [i.operation.parameters(i.direction, site) for i in distinct.values()],
                    dtype=torch.float32,
                    device=device,
                ),
            )
        )
    return stacks
