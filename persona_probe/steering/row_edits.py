"""The interventions of all rows of one batch, as one hook per site.

A pass through the model edits exactly the positions that the schedules name, in the rows whose
conditions hold; everything else in the residual stream keeps its bits. What to edit is decided on
the CPU, before the pass; `stacks` says how rows of different arms share their tensor operations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.arm import require_fit
from persona_probe.steering.operation import projection
from persona_probe.steering.schedule import schedule_named
from persona_probe.steering.stacks import (
    Edit,
    Members,
    Reading,
    Rows,
    Sequences,
    kept,
    steps_by_site,
)

Residual = Float[Tensor, "row pos d_model"]
Hook = Callable[[Residual], Residual | None]
At = tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]


@dataclass(frozen=True, eq=False)
class _Spots:
    """The positions that a schedule names for some members, one entry each, on the device.

    Attributes:
        rows, columns: in the residual.
        which: of the step's tables, on the CPU as well as on the device.
        positions: in the sequence.
        weights: of a schedule that fades, else `None`.
        gates: that the entries wait for, else `None`.
    """

    rows: Int[Tensor, " entry"]
    columns: Int[Tensor, " entry"]
    which: Int[Tensor, " entry"]
    which_on_cpu: Int[Tensor, " entry"]
    positions: Int[Tensor, " entry"]
    weights: Float[Tensor, "entry 1"] | None
    gates: Int[Tensor, " entry"] | None


class _Layout:
    """Which positions a pass holds, and where; see `RowEdits.place`."""

    def __init__(
        self,
        positions: Int[Tensor, "row pos"],
        prompt_lengths: Int[Tensor, " row"],
        at: At | None,
        device: torch.device,
    ) -> None:
        self.positions, self.lengths, self.at, self.device = positions, prompt_lengths, at, device
        self._weights: dict[str, Tensor] = {}
        self._spots: dict[tuple[int, str], _Spots | None] = {}

    def spots(self, members: Members, schedule: str) -> _Spots | None:
        """What a schedule names; worked out once for all sites."""
        key = (id(members), schedule)
        if key not in self._spots:
            self._spots[key] = self._found(members, schedule)
        return self._spots[key]

    def cells(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column in the residual, on the device."""
        if self.at is not None:
            rows, columns = self.at[0][rows, columns], self.at[1][rows, columns]
        return rows.to(self.device), columns.to(self.device)

    def _found(self, members: Members, schedule: str) -> _Spots | None:
        meant = schedule_named(schedule)
        if schedule not in self._weights:
            self._weights[schedule] = meant(self.positions, self.lengths[:, None])
        weights = self._weights[schedule]
        entries, columns = (weights != 0)[members.rows].nonzero(as_tuple=True)
        if len(entries) == 0:
            return None
        rows, which, gates = (x[entries] for x in (members.rows, members.which, members.gates))
        device_rows, device_columns = self.cells(rows, columns)
        return _Spots(
            rows=device_rows,
            columns=device_columns,
            which=which.to(self.device),
            which_on_cpu=which,
            positions=self.positions[rows, columns],
            weights=weights[rows, columns][:, None].to(self.device) if meant.fades else None,
            gates=gates if bool((gates >= 0).any()) else None,
        )


class RowEdits:
    """Hooks for one batch whose rows carry different interventions.

    Call `place` before every forward pass, and `keep` when rows leave the batch.
    """

    def __init__(
        self, model: ResidualModel, rows: Rows, sequences: Sequences | None = None
    ) -> None:
        """Stack the interventions of each row, in the order in which the row lists them.

        Args:
            model: that the hooks are for.
            rows: interventions of each row.
            sequences: token ids of each row, as far as they are known: the prompt, or the prompt
                and a given reply. Needed by operations that know a text, such as `Patch`.

        Raises:
            SiteMismatchError: an intervention does not fit the model.
            RequestError: the settings of an operation do not fit its direction, site or text.
        """
        require_fit(model, {id(i): i for interventions in rows for i in interventions}.values())
        self._device = model.device
        self._steps, n_gates = steps_by_site(rows, sequences, model.device)
        self._placed: dict[Site, list[Callable[[Residual], Residual]]] = {}
        self._decided = torch.zeros(n_gates, dtype=torch.bool)
        self._open = torch.zeros(n_gates, dtype=torch.bool, device=model.device)

    def place(
        self,
        positions: Int[Tensor, "row pos"],
        prompt_lengths: Int[Tensor, " row"],
        at: At | None = None,
    ) -> None:
        """Say which positions the next forward pass holds.

        Args:
            positions: position of each token in its sequence, counted without padding; -1 at
                padding. On the CPU: what to edit is decided there.
            prompt_lengths: number of prompt tokens of each row, on the CPU.
            at: row and column of each token in the model's batch, where rows share a batch row.

        Raises:
            RequestError: an operation does not know a token that its schedule reaches, or a
                condition's prompt is not all there when it is needed.
        """
        layout = _Layout(positions, prompt_lengths, at, self._device)
        placed: dict[Site, list[Callable[[Residual], Residual]]] = {}
        for site, steps in self._steps.items():
            placed[site] = []
            for step in steps:
                place = self._edit(step, layout) if isinstance(step, Edit) else None
                if isinstance(step, Reading):
                    place = self._reading(step, layout)
                if place is not None:
                    placed[site].append(place)
        self._placed = placed

    def rest(self) -> None:
        """Edit and read nothing until `place` is called again."""
        self._placed = {}

    def keep(self, rows: Int[Tensor, " kept"], n_rows: int) -> None:
        """Drop all rows but these of the `n_rows` in the batch, which then count from 0."""
        new_row = torch.full((n_rows,), -1)
        new_row[rows] = torch.arange(len(rows))
        self._steps = kept(self._steps, new_row)

    @property
    def hooks(self) -> list[tuple[Site, Hook]]:
        """One hook per site, to be passed to `ResidualModel.hooks`."""
        return [(site, self._hook(site)) for site in self._steps]

    def _hook(self, site: Site) -> Hook:
        def hook(resid: Residual) -> Residual | None:
            for change in self._placed.get(site, ()):
                resid = change(resid)
            return resid

        return hook

    def _edit(self, step: Edit, layout: _Layout) -> Callable[[Residual], Residual] | None:
        spots = layout.spots(step.members, step.schedule)
        if spots is None:
            return None
        if spots.gates is not None and not bool(self._decided[spots.gates].all()):
            raise RequestError(
                "an intervention waits for a condition on a prompt that has not been read; run "
                "the pass that holds the end of the prompt first"
            )
        vectors, parameters = _tables(step, spots)
        gates = None if spots.gates is None else spots.gates.to(self._device)

        def change(resid: Residual) -> Residual:
            device = resid.device  # of this block, where a model is spread over several
            where = (spots.rows.to(device), spots.columns.to(device))
            before = resid[where]
            after = step.operation.edit(before, vectors.to(device), parameters.to(device))
            if gates is not None:
                after = torch.where(self._open[gates].to(device)[:, None], after, before)
            return resid.index_put(where, after)

        return change

    def _reading(self, step: Reading, layout: _Layout) -> Callable[[Residual], Residual] | None:
        rows, which, gates = step.members.rows, step.members.which, step.members.gates
        positions, lengths = layout.positions[rows], layout.lengths[rows, None]
        last = positions == lengths - 1
        needed = (positions >= 0) & (positions < lengths) if step.mean else last
        here = last.any(dim=1)
        if not bool(here.any()):
            return None
        if step.mean and not bool((needed.sum(dim=1, keepdim=True) == lengths)[here].all()):
            raise RequestError(
                "a condition on the mean of a prompt needs the whole prompt in one pass, and only "
                "the end of one is there; read the last prompt token instead, or the whole prompt"
            )
        rows, which, gates, needed = rows[here], which[here], gates[here], needed[here]
        self._decided[gates] = True
        columns = torch.arange(needed.shape[1]).expand_as(needed)
        if not step.mean:
            columns, needed = needed.int().argmax(dim=1, keepdim=True), needed[:, :1] | True
        where = layout.cells(rows[:, None].expand_as(columns), columns)
        vectors, limits = step.vectors[which.to(self._device)], step.limits[which.to(self._device)]
        return _reader(where, needed, vectors, limits, self._open, gates)


def _tables(step: Edit, spots: _Spots) -> tuple[Tensor, Tensor]:
    """Vectors and parameters of each entry, or of all entries where they are the same."""
    one = len(step.vectors) == 1
    vectors = step.vectors if one else step.vectors[spots.which]
    if step.n_tokens is None:
        parameters = step.parameters if one else step.parameters[spots.which]
    else:
        n_tokens = step.n_tokens[spots.which_on_cpu]
        beyond = (spots.positions >= n_tokens).nonzero()[:, 0]
        if len(beyond):
            raise RequestError(
                f"{step.operation.__name__} knows the first {int(n_tokens[beyond[0]])} tokens of a "
                f"text, and the schedule {step.schedule!r} reaches token "
                f"{int(spots.positions[beyond[0]]) + 1}; narrow the schedule, or make it on the "
                "whole text"
            )
        parameters = step.parameters[spots.which, spots.positions.to(spots.which.device)]
    return vectors, parameters if spots.weights is None else parameters * spots.weights


def _reader(
    where: tuple[Tensor, Tensor],
    needed: Bool[Tensor, "gate pos"],
    vectors: Float[Tensor, "gate d_model"],
    limits: Float[Tensor, " gate"],
    is_open: Bool[Tensor, " any"],
    gates: Int[Tensor, " gate"],
) -> Callable[[Residual], Residual]:
    """Open the gates of the rows whose prompts project beyond their limits."""

    def read(resid: Residual) -> Residual:
        device = resid.device
        rows, columns = where[0].to(device), where[1].to(device)
        found = projection(resid[rows, columns], vectors.to(device)[:, None])[..., 0]
        counted = needed.to(device)
        mean = torch.where(counted, found, 0.0).sum(dim=1) / counted.sum(dim=1)
        is_open[gates.to(is_open.device)] = (mean > limits.to(device)).to(is_open.device)
        return resid

    return read
