"""Other people's steering vectors, in and out.

`FORMATS` lists the formats. Another is one file and one line here; the contract tests run over
this dict. Nothing is ever unpickled: `.pt` files are read as tensors only.
"""

from persona_probe.errors import RequestError
from persona_probe.interchange.assistant_axis import AssistantAxis
from persona_probe.interchange.assistant_axis_capping import AssistantAxisCapping
from persona_probe.interchange.assistant_axis_roles import AssistantAxisRoles
from persona_probe.interchange.axbench import AxBench
from persona_probe.interchange.caa import ContrastiveAddition
from persona_probe.interchange.control_vector import ControlVector
from persona_probe.interchange.easysteer import EasySteer
from persona_probe.interchange.format import Format, WritableFormat
from persona_probe.interchange.lm_eval import LmEvalSteered
from persona_probe.interchange.own_vector import OwnVector
from persona_probe.interchange.persona_vectors import PersonaVectors
from persona_probe.interchange.probity import Probity
from persona_probe.interchange.refusal_direction import RefusalDirection
from persona_probe.interchange.steering_vectors import SteeringVectors
from persona_probe.interchange.trait_interp import TraitInterp

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        ControlVector(),
        PersonaVectors(),
        AssistantAxis(),
        AssistantAxisRoles(),
        AssistantAxisCapping(),
        SteeringVectors(),
        RefusalDirection(),
        ContrastiveAddition(),
        LmEvalSteered(),
        EasySteer(),
        AxBench(),
        TraitInterp(),
        Probity(),
        OwnVector(),
    )
}


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        RequestError: there is none; the message lists the choices.
    """
    if name not in FORMATS:
        raise RequestError(f"no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def writable_format(name: str) -> WritableFormat:
    """The format of this name, if it can be written.

    Raises:
        RequestError: there is none, or it is import only.
    """
    form = format_named(name)
    if not isinstance(form, WritableFormat):
        choices = [one for one, other in FORMATS.items() if isinstance(other, WritableFormat)]
        raise RequestError(f"{name} is import only; write one of {', '.join(choices)}")
    return form
