"""Where the sliders stand, and what that adds to the residual stream.

All sliders act at one site, so whatever they say together is one vector. The page steers with that
vector and saves that vector: what was heard is what is kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from persona_probe.directions.direction import Direction, joint_history
from persona_probe.directions.direction_set import DirectionSet, direction_at
from persona_probe.errors import DegenerateClassesError, RequestError
from persona_probe.steering.add import Add, Units
from persona_probe.steering.arm import Intervention
from persona_probe.steering.schedule import matching_schedule, schedule_named


@dataclass(frozen=True)
class Setting:
    """Where the sliders stand.

    Attributes:
        layer: 0-based block after which everything is added.
        strengths: by persona; 0 is the model as it is.
        positions: name of a schedule; `None` is where the directions were read.
    """

    layer: int
    strengths: Mapping[str, float] = field(default_factory=dict)
    positions: str | None = None

    @property
    def active(self) -> dict[str, float]:
        """The sliders that are not at 0."""
        return {name: strength for name, strength in self.strengths.items() if strength}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Setting":
        """Read what the page sends.

        Raises:
            RequestError: a field is missing or of another kind; the message names it.
        """
        strengths = _get(value, "strengths", dict)
        positions = value.get("positions")
        if positions is not None:
            schedule_named(_get(value, "positions", str))
        return cls(
            layer=_get(value, "layer", int),
            strengths={str(name): _number(strengths, name) for name in strengths},
            positions=positions,
        )


@dataclass(frozen=True)
class Question:
    """What is asked, and how the replies are shown.

    Attributes:
        text: what the user says.
        setting: where the sliders stand.
        colour: the persona on whose direction tokens are projected.
        system: system line; empty for none.
        temperature: 0 takes the likeliest token.
        seed: of samples.
    """

    text: str
    setting: Setting
    colour: str
    system: str = ""
    temperature: float = 0.0
    seed: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Question":
        """Read what the page sends.

        Raises:
            RequestError: a field is missing or of another kind; the message names it.
        """
        text = _get(value, "text", str)
        if not text.strip():
            raise RequestError("say something; a prompt without words has no reply")
        return cls(
            text=text,
            setting=Setting.from_json(value),
            colour=_get(value, "colour", str),
            system=_get({"system": "", **value}, "system", str),
            temperature=_number({"temperature": 0.0, **value}, "temperature"),
            seed=_get({"seed": 0, **value}, "seed", int),
        )


def units_of(directions: DirectionSet) -> Units:
    """Median residual norms where every direction knows one, class gaps otherwise."""
    known = (d.norm for by_site in directions.values() for d in by_site.values())
    return "norm" if all(math.isfinite(norm) and norm > 0 for norm in known) else "gap"


def mixture(directions: DirectionSet, setting: Setting, name: str = "mixture") -> Direction | None:
    """Everything that the sliders add, as one direction whose gap is its length.

    Args:
        directions: what the sliders belong to.
        setting: where they stand.
        name: what the mixture is called.

    Returns:
        `None` when all sliders are at 0.

    Raises:
        RequestError: there is no direction of that persona at that layer.
        DegenerateClassesError: the sliders cancel each other.
    """
    units = units_of(directions)
    parts = {p: direction_at(directions, p, setting.layer) for p in setting.active}
    if not parts:
        return None
    first = next(iter(parts.values()))
    raw = torch.zeros(len(first.unit), dtype=torch.float64)
    for persona, direction in parts.items():
        first.require_same_space(direction)
        (amount,) = Add(setting.strengths[persona], units).parameters(direction, direction.site)
        raw += amount * direction.unit.double()
    if float(raw.norm()) < 1e-6 * min(d.gap for d in parts.values()):
        raise DegenerateClassesError("the sliders cancel each other, so nothing would be added")
    said = " + ".join(f"{setting.strengths[p]:g} {units} of {p}" for p in parts)
    told = replace(
        _shared(list(parts.values())),
        command=f"playground: {said}, at layer {setting.layer}, {positions_of(parts, setting)}",
    )
    history = joint_history(list(parts.values()))
    return first.with_raw(
        raw,
        persona=name,
        positive_label=name,
        negative_label="unsteered",
        finder="mixture",
        n_positive=None,
        n_negative=None,
        provenance=told,
        **history,
    )


def intervention(directions: DirectionSet, setting: Setting) -> Intervention | None:
    """What the sliders do to the model; `None` when all are at 0."""
    mixed = mixture(directions, setting)
    if mixed is None:
        return None
    parts = {p: direction_at(directions, p, setting.layer) for p in setting.active}
    return Intervention(mixed, Add(1.0, "gap"), positions_of(parts, setting))


def positions_of(parts: Mapping[str, Direction], setting: Setting) -> str:
    """The schedule in force."""
    return setting.positions or matching_schedule(next(iter(parts.values())).position)


def _shared(parts: list[Direction]) -> Any:
    """The provenance that all parts agree on."""
    first, *others = (direction.provenance for direction in parts)
    agreed = {
        name: value
        for name, value in vars(first).items()
        if all(getattr(other, name) == value for other in others)
    }
    return type(first)(**{"versions": {}, **agreed})


def _get(value: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in value:
        raise RequestError(f"the request has no {name!r}")
    found = value[name]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise RequestError(f"{name!r} should be of type {kind.__name__}, got {found!r:.80}")
    return found


def _number(value: Mapping[str, Any], name: str) -> float:
    found = value[name]
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise RequestError(f"{name!r} should be a finite number, got {found!r:.80}")
    return float(found)
