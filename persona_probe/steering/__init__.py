"""A direction → changed behaviour.

`OPERATIONS` names what can be done along a direction; a new operation is one file and one line.
"""

from persona_probe.errors import RequestError
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.add import Add
from persona_probe.steering.operation import Operation

OPERATIONS: dict[str, type[Operation]] = {"add": Add, "ablate": Ablate}


def operation_named(name: str, strength: float) -> Operation:
    """The operation of this name, with a strength where it has one.

    Raises:
        RequestError: there is none; the message lists the choices.
    """
    if name not in OPERATIONS:
        raise RequestError(f"no operation {name!r}; choose one of {', '.join(OPERATIONS)}")
    return Add(strength) if name == "add" else OPERATIONS[name]()
