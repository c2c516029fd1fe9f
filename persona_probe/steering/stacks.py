"""What happens at one site to all rows of a batch, stacked row over row.

Rows of a batch belong to different arms. Their first interventions at a site are stacked by
operation and schedule, then their second ones, and so on, so that a handful of tensor operations
serves all rows, whatever the number of arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering.arm import Intervention
from persona_probe.steering.operation import Operation, PerToken

Rows = Sequence[Sequence[Intervention]]
Sequences = Sequence[Sequence[int]]
NO_GATE = -1


@dataclass(frozen=True, eq=False)
class Members:
    """The rows that take part in a step; on the CPU, shared by all sites where they are the same.

    Attributes:
        rows: of the batch.
        which: where each finds its numbers in the step's tables, which hold distinct ones once.
        gates: number of the decision that each makes or waits for; `NO_GATE` for none.
    """

    rows: Int[Tensor, " member"]
    which: Int[Tensor, " member"]
    gates: Int[Tensor, " member"]

    def chosen(self, kept: Bool[Tensor, " member"], rows: Int[Tensor, " member"]) -> "Members":
        """Some of the members, in other rows."""
        return Members(rows[kept], self.which[kept], self.gates[kept])


@dataclass(frozen=True, eq=False)
class Edit:
    """Interventions that share their place in the order, their operation and their schedule.

    Attributes:
        n_tokens: how many tokens of a text have parameters, where these differ from token to
            token; `None` where they do not.
    """

    operation: type[Operation]
    schedule: str
    members: Members
    vectors: Float[Tensor, "distinct *axes d_model"]
    parameters: Float[Tensor, "distinct *token parameter"]
    n_tokens: Int[Tensor, " distinct"] | None


@dataclass(frozen=True, eq=False)
class Reading:
    """Conditions that are read at the same place of the order, on the same part of the prompt.

    Attributes:
        mean: whether the whole prompt is read, or its last token.
        limits: projections, in residual units, above which a gate opens.
    """

    mean: bool
    members: Members
    vectors: Float[Tensor, "distinct d_model"]
    limits: Float[Tensor, " distinct"]


Step = Edit | Reading


def steps_by_site(
    rows: Rows, sequences: Sequences | None, device: torch.device
) -> tuple[dict[Site, list[Step]], int]:
    """Steps at each site, in the order in which they apply, and the number of gates.

    Args:
        rows: interventions of each row, in the order in which they apply.
        sequences: token ids of each row, for operations that know their text.
        device: for the tables.

    Raises:
        RequestError: an operation needs to know the text and it is not given.
    """
    if sequences is not None and len(sequences) != len(rows):
        raise RequestError(f"{len(sequences)} sequences were given for {len(rows)} rows")
    builder = _Builder(rows, sequences, device)
    sites = sorted({site for row in rows for i in row for site in i.touched})
    return {site: builder.steps(site) for site in sites}, len(builder.gates)


def kept(steps: Mapping[Site, list[Step]], new_row: Int[Tensor, " row"]) -> dict[Site, list[Step]]:
    """Steps of the rows that stay, by their new numbers; -1 is a row that leaves."""
    moved: dict[int, Members] = {}
    left: dict[Site, list[Step]] = {}
    for site, several in steps.items():
        left[site] = []
        for step in several:
            old = step.members
            if id(old) not in moved:
                rows = new_row[old.rows]
                moved[id(old)] = old.chosen(rows >= 0, rows)
            left[site].append(replace(step, members=moved[id(old)]))
    return left


class _Builder:
    """Makes the steps of all sites; what they have in common is made once."""

    def __init__(self, rows: Rows, sequences: Sequences | None, device: torch.device) -> None:
        self.gates: dict[tuple[int, int], int] = {}
        for row, interventions in enumerate(rows):
            for place, intervention in enumerate(interventions):
                if intervention.condition is not None:
                    self.gates[row, place] = len(self.gates)
        self._rows, self._device = rows, device
        self._texts = None if sequences is None else [tuple(ids) for ids in sequences]
        self._members: dict[tuple[tuple[int, int, int], ...], Members] = {}
        self._vectors: dict[int, Tensor] = {}
        self._stacked: dict[tuple[int, ...], Tensor] = {}

    def steps(self, site: Site) -> list[Step]:
        """All steps at one site."""
        found: dict[tuple[int, str, object], list[tuple[int, int, Intervention]]] = {}
        for row, interventions in enumerate(self._rows):
            order = 0
            for place, i in enumerate(interventions):
                entry = (row, self.gates.get((row, place), NO_GATE), i)
                if i.condition is not None and i.condition.site == site:
                    found.setdefault((order, "read", i.condition.at), []).append(entry)
                    order += 1
                if site in i.where:
                    gated = i.condition is not None
                    kind = (type(i.operation), i.when, self._of(i).shape, gated)
                    found.setdefault((order, "edit", kind), []).append(entry)
                    order += 1
        # Sorted by order alone: steps of one order touch different rows, so they commute.
        return [
            self._reading(entries) if what == "read" else self._edit(entries, site)
            for (_, what, _), entries in sorted(found.items(), key=lambda item: item[0][0])
        ]

    def _of(self, intervention: Intervention) -> Tensor:
        key = id(intervention)
        if key not in self._vectors:
            self._vectors[key] = intervention.vectors
        return self._vectors[key]

    def _reading(self, entries: list[tuple[int, int, Intervention]]) -> Reading:
        conditions = [i.condition for *_, i in entries if i.condition is not None]
        distinct = {id(c): c for c in conditions}
        place = {key: number for number, key in enumerate(distinct)}
        return Reading(
            mean=conditions[0].at == "prompt_mean",
            members=self._shared(
                [
                    (row, place[id(c)], gate)
                    for (row, gate, _), c in zip(entries, conditions, strict=True)
                ]
            ),
            vectors=torch.stack([c.direction.unit.float().cpu() for c in distinct.values()]).to(
                self._device
            ),
            limits=torch.tensor([c.limit for c in distinct.values()], device=self._device),
        )

    def _edit(self, entries: list[tuple[int, int, Intervention]], site: Site) -> Edit:
        operation = entries[0][2].operation
        per_token = isinstance(operation, PerToken)
        # A table of one text serves that text only.
        keys = [(id(i), self._text(row, i) if per_token else None) for row, _, i in entries]
        distinct = dict(zip(keys, entries, strict=True))
        place = {key: number for number, key in enumerate(distinct)}
        interventions = [i for *_, i in distinct.values()]
        tables = [
            i.operation.token_parameters(i.direction, site, text).float().cpu()
            if isinstance(i.operation, PerToken) and text is not None
            else torch.tensor(i.operation.parameters(i.direction, site), dtype=torch.float32)
            for (_, text), i in zip(distinct, interventions, strict=True)
        ]
        n_tokens = torch.tensor([len(t) for t in tables]) if per_token else None
        stacked = (
            torch.nn.utils.rnn.pad_sequence(tables, batch_first=True, padding_value=torch.nan)
            if per_token
            else torch.stack(tables)
        )
        return Edit(
            operation=type(operation),
            schedule=entries[0][2].when,
            members=self._shared(
                [(row, place[key], gate) for key, (row, gate, _) in zip(keys, entries, strict=True)]
            ),
            vectors=self._vectors_of(interventions),
            parameters=stacked.to(self._device),
            n_tokens=n_tokens,
        )

    def _text(self, row: int, intervention: Intervention) -> tuple[int, ...]:
        if self._texts is None:
            raise RequestError(
                f"{type(intervention.operation).__name__} has a value for every token of a text, "
                "and nothing says which text a row holds: pass the token ids as `sequences`"
            )
        return self._texts[row]

    def _vectors_of(self, interventions: list[Intervention]) -> Tensor:
        key = tuple(id(i) for i in interventions)
        if key not in self._stacked:
            vectors = [self._of(i).cpu() for i in interventions]
            self._stacked[key] = torch.stack(vectors).to(self._device)
        return self._stacked[key]

    def _shared(self, members: list[tuple[int, int, int]]) -> Members:
        key = tuple(members)
        if key not in self._members:
            rows, which, gates = (
                torch.tensor(list(column)) for column in zip(*members, strict=True)
            )
            self._members[key] = Members(rows, which, gates)
        return self._members[key]
