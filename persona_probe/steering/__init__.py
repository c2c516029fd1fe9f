"""A direction → changed behaviour.

`OPERATIONS` names what can be done along a direction; a new operation is one file and one line.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Intervention
from persona_probe.steering.clamp import Clamp
from persona_probe.steering.condition import Condition
from persona_probe.steering.operation import Operation
from persona_probe.steering.patch import Patch
from persona_probe.steering.rotate import Rotate
from persona_probe.steering.subspace import Subspace

OPERATIONS: dict[str, type[Operation]] = {
    "add": Add,
    "ablate": Ablate,
    "clamp": Clamp,
    "patch": Patch,
    "rotate": Rotate,
    "subspace": Subspace,
}


def operation_named(text: str, strength: float = 1.0) -> Operation:
    """Read an operation as it is written: its name, then its options, colons between.

    The options are the dataclass's own fields, in their order, those that are a number or a word:
    "add", "add:gap", "ablate:1.5", "clamp:0.2:inf", "clamp:-0.5:0.5:gap", "rotate:share",
    "subspace:0.5". A strength is not among them.

    Args:
        text: the operation.
        strength: for operations that have one; others ignore it.

    Raises:
        RequestError: there is no such operation or option; the message lists the choices.
    """
    name, *options = text.split(":")
    if name not in OPERATIONS:
        raise RequestError(f"no operation {name!r}; choose one of {', '.join(OPERATIONS)}")
    kind: Any = OPERATIONS[name]
    if kind is Patch:
        raise RequestError(
            "a patch holds another model's projections on known texts, which no option can name; "
            "make it with Patch.read()"
        )
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    written = [f for f in names if f != "strength" and _is_written(hints[f])]
    if len(options) > len(written):
        form = ":".join([name, *(f.upper() for f in written)])
        raise RequestError(f"operation {text!r} has too many options; write {form}")
    settings = {f: _read(text, f, hints[f], x) for f, x in zip(written, options, strict=False)}
    if "strength" in names:
        settings["strength"] = strength
    made: Operation = kind(**settings)
    return made


def interventions_along(
    directions: Sequence[Direction],
    operation: Operation,
    schedule: str | None = None,
    sites: tuple[Site, ...] | None = None,
    condition: Condition | None = None,
) -> tuple[Intervention, ...]:
    """An operation along several directions: one after the other, or in their span at once.

    Args:
        directions: in the order in which they apply; a `Subspace` takes the first as its own and
            the rest as its others.
        operation: what is done.
        schedule: as in `Intervention`, like the rest.
        sites: where.
        condition: when.
    """
    if isinstance(operation, Subspace):
        operation = dataclasses.replace(operation, others=tuple(directions[1:]))
        directions = directions[:1]
    return tuple(Intervention(d, operation, schedule, sites, condition) for d in directions)


def _is_written(hint: Any) -> bool:
    return get_origin(hint) is Literal or float in (hint, *get_args(hint))


def _read(text: str, field: str, hint: Any, option: str) -> float | str:
    choices: Sequence[str] = get_args(hint) if get_origin(hint) is Literal else ()
    if choices and option not in choices:
        raise RequestError(
            f"operation {text!r}: {field} must be one of {', '.join(choices)}, got {option!r}"
        )
    try:
        return option if choices else float(option)
    except ValueError:
        raise RequestError(
            f"operation {text!r}: {field} must be a number, got {option!r}"
        ) from None
