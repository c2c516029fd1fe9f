"""A direction in the residual stream: what it is and what can be computed with it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    SiteMismatchError,
    SplitLeakError,
)
from persona_probe.models.site import Site
from persona_probe.provenance import Provenance

UNIT_TOLERANCE = 1e-3  # how far the length of a unit vector may be from 1


@runtime_checkable
class ResidualSpace(Protocol):
    """What a direction has to fit: any loaded model."""

    @property
    def n_layers(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def model_hash(self) -> str: ...
    @property
    def chat_template_hash(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector with a scale, an origin and a history. It points towards its positive class.

    Attributes:
        unit: the direction, of length 1, float32.
        gap: distance of the class means along `unit` in residual units; the length of a sum or
            difference of directions, which has no classes.
        midpoint: half-way between the class means along `unit`; NaN where there are no classes.
        site: where it was read.
        finder: name in `FINDERS`, or what made it ("random_isotropic").
        family: which contrast it is: prompt_in_H, resp_in_H, behav_in_F, model_diff.
        persona: whose direction it is.
        position: the pooling rule of the tokens it was read at.
        norm: median residual norm at the site on neutral text; NaN if not measured.
        provenance: model, adapter, prompts and seed behind it.
        split_hash: hash of the find/select/evaluate split in force, if any.
        families_used: prompt families it was found or selected on.
        positive_label: label of the class it points to.
        negative_label: label of the class it points away from.
        families_selected: those of `families_used` that served to select its site only.
        n_positive: examples of the positive class that it was found on, if known.
        n_negative: examples of the negative class.
        licence: under which it may be used, as an SPDX identifier; `None` where nobody said.
    """

    unit: Float[Tensor, " d_model"]
    gap: float
    midpoint: float
    site: Site
    finder: str
    family: str
    persona: str
    position: str
    norm: float
    provenance: Provenance
    split_hash: str | None = None
    families_used: frozenset[str] = frozenset()
    positive_label: str = "positive"
    negative_label: str = "negative"
    families_selected: frozenset[str] = frozenset()
    n_positive: int | None = None
    n_negative: int | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        length = float(self.unit.double().norm())
        if not abs(length - 1) <= UNIT_TOLERANCE:
            raise PersonaProbeError(f"{self.name}: the unit vector has length {length}, expected 1")
        if not (math.isfinite(self.gap) and self.gap > 0):
            raise PersonaProbeError(f"{self.name}: the gap must be positive, got {self.gap}")

    @property
    def name(self) -> str:
        """For messages: whose direction, and where."""
        return f"direction {self.persona!r} at {self.site.hook_name}"

    @property
    def raw(self) -> Float[Tensor, " d_model"]:
        """`unit * gap`, in residual units: what is stored, and what steering adds at 1 gap."""
        return (self.unit.double() * self.gap).float()

    def save(self, folder: Path | str, **options: Any) -> Path:
        """Write it alone into a folder, with a card; see `save_directions`."""
        from persona_probe.directions.direction_set import save_directions

        return save_directions({self.persona: {self.site: self}}, Path(folder), **options)

    @classmethod
    def load(cls, path: Path | str, persona: str, layer: int, **options: Any) -> "Direction":
        """Read one of a folder or of one persona's file; see `load_directions`."""
        from persona_probe.directions.direction_set import direction_at, load_directions

        return direction_at(load_directions(Path(path), **options), persona, layer)

    def _repr_html_(self) -> str:
        from persona_probe.directions.html import direction_html

        return direction_html(self)

    def project(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Position along the direction in class gaps: -0.5 and +0.5 are the class means."""
        if math.isnan(self.midpoint):
            raise PersonaProbeError(
                f"{self.name} ({self.finder}) has no midpoint, because it was not found between "
                "two classes: use `x @ direction.unit`, or set the midpoint with `centred`"
            )
        return (x.float() @ self.unit.to(x.device) - self.midpoint) / self.gap

    def centred(self, midpoint: float) -> "Direction":
        """The same direction with another origin, in residual units along `unit`."""
        return replace(self, midpoint=midpoint)

    def with_raw(self, raw: Float[Tensor, " d_model"], **changes: Any) -> "Direction":
        """The direction of another raw vector, whose length becomes the gap; no midpoint."""
        gap = float(raw.double().norm())
        if not (math.isfinite(gap) and gap > 0):
            raise DegenerateClassesError(f"{self.name}: what is left of it has length {gap}")
        return replace(
            self, **{"unit": scaled_unit(raw, gap), "gap": gap, "midpoint": math.nan, **changes}
        )

    def __add__(self, other: "Direction") -> "Direction":
        return self._joined(other, self.raw + other.raw, "+")

    def __sub__(self, other: "Direction") -> "Direction":
        return self._joined(other, self.raw - other.raw, "-")

    def __neg__(self) -> "Direction":
        return replace(
            self,
            unit=-self.unit,
            midpoint=-self.midpoint,
            positive_label=self.negative_label,
            negative_label=self.positive_label,
        )

    def __mul__(self, factor: float | int) -> "Direction":
        """Scale the gap; a negative factor also turns the direction round, 0 is refused."""
        turned = -self if factor < 0 else self
        return replace(turned, gap=self.gap * abs(factor))

    __rmul__ = __mul__

    def cosine(self, other: "Direction") -> float:
        """Cosine of the angle between two directions of equal width, at any two sites."""
        if self.unit.shape != other.unit.shape:
            raise SiteMismatchError(
                f"{self.name} has {len(self.unit)} dimensions, {other.name} has {len(other.unit)}"
            )
        return float(self.unit.double() @ other.unit.double())

    def orthogonalised(self, *others: "Direction") -> "Direction":
        """What is left when its component in the span of the others is taken away."""
        for other in others:
            self.require_same_space(other)
        # Others that depend on each other span fewer dimensions than there are of them.
        axes, sizes, _ = torch.linalg.svd(
            torch.stack([other.unit.double() for other in others], dim=1), full_matrices=False
        )
        basis = axes[:, sizes > 1e-6 * sizes[0]]
        raw = self.unit.double() * self.gap
        rest = raw - basis @ (basis.T @ raw)
        if float(rest.norm()) < 1e-6 * self.gap:
            raise DegenerateClassesError(f"{self.name} lies in the span of the others")
        return self.with_raw(rest, **joint_history((self, *others)))

    def check_fits(self, model: ResidualSpace, allow_other_model: bool = False) -> None:
        """Raise `SiteMismatchError` unless the direction was read in this very model.

        Args:
            model: any loaded model; its adapters do not count.
            allow_other_model: accept another model of the same shape, another chat template, or
                another thinking mode.
        """
        if len(self.unit) != model.d_model:
            raise SiteMismatchError(
                f"{self.name} has {len(self.unit)} dimensions, the model's residual stream has "
                f"{model.d_model}; find it again in this model"
            )
        if not 0 <= self.site.layer < model.n_layers:
            raise SiteMismatchError(f"{self.name}: the model has layers 0 to {model.n_layers - 1}")
        if allow_other_model:
            return
        told, again = self.provenance, "find it again, or pass allow_other_model=True"
        for what, found_in, here in (
            ("in a model", told.model_hash, model.model_hash),
            ("under a chat template", told.chat_template_hash, model.chat_template_hash),
        ):
            if found_in not in (None, here):
                raise SiteMismatchError(
                    f"{self.name} was found {what} with hash {found_in}, this one has {here}; "
                    f"{again}"
                )
        chat_format = getattr(model, "chat_format", None)  # not every space reads conversations
        thinking = getattr(chat_format, "thinking", told.thinking)
        if told.chat_template_hash is not None and told.thinking != thinking:
            raise SiteMismatchError(
                f"{self.name} was found with thinking mode {_mode(told.thinking)}, this model is "
                f"asked for {_mode(thinking)}; {again}"
            )

    def check_held_out(self, families: Iterable[str]) -> None:
        """Raise `SplitLeakError` when it was found or selected on one of these families."""
        if leaked := sorted(self.families_used.intersection(families)):
            raise SplitLeakError(
                f"{self.name} was found or selected on {len(leaked)} of these prompt families, "
                f"{leaked[0]!r} first; validate it on held-out families, such as PACK:safety's"
            )

    def require_same_space(self, other: "Direction") -> None:
        """Raise `SiteMismatchError` unless the two may be added."""
        mine = (self.site, len(self.unit), self.provenance.model_hash)
        theirs = (other.site, len(other.unit), other.provenance.model_hash)
        if mine != theirs:
            raise SiteMismatchError(
                f"{self.name} ({mine[1]} dimensions, model {mine[2]}) and {other.name} "
                f"({theirs[1]} dimensions, model {theirs[2]}) do not live in the same space"
            )

    def _joined(self, other: "Direction", raw: Float[Tensor, " d_model"], sign: str) -> "Direction":
        self.require_same_space(other)
        history = joint_history((self, other))
        return self.with_raw(raw, persona=f"{self.persona}{sign}{other.persona}", **history)


def _mode(thinking: bool | None) -> str:
    return "left to the template" if thinking is None else "on" if thinking else "off"


def scaled_unit(raw: Float[Tensor, " d_model"], gap: float) -> Float[Tensor, " d_model"]:
    """The float32 `raw / gap`, by way of the float32 `raw` that a file would hold.

    With this detour a direction in memory and the same direction read back are equal bit for bit.
    """
    return (raw.float().double() / gap).float()


def joint_history(directions: Sequence[Direction]) -> dict[str, Any]:
    """What several directions were found on, together: fields of the one made from them."""
    hashes = {direction.split_hash for direction in directions}
    licences = {direction.licence for direction in directions}
    return {
        "families_used": frozenset[str]().union(*(d.families_used for d in directions)),
        "families_selected": frozenset[str]().union(*(d.families_selected for d in directions)),
        "split_hash": hashes.pop() if len(hashes) == 1 else None,
        "licence": licences.pop() if len(licences) == 1 else None,
    }


def mean_direction(directions: Sequence[Direction], persona: str) -> Direction:
    """Mean of the raw vectors, called `persona`; so is its positive class where they differ."""
    first = directions[0]
    for other in directions[1:]:
        first.require_same_space(other)
    raw = torch.stack([d.unit.double() * d.gap for d in directions]).mean(dim=0)
    labels = {direction.positive_label for direction in directions}
    label = first.positive_label if len(labels) == 1 else persona
    history = joint_history(directions)
    return first.with_raw(raw, persona=persona, positive_label=label, **history)
