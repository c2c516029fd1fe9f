"""persona_probe: find persona directions in the residual stream, and test what they cause.

`__all__` is the table of contents. Names load their modules when they are first used, so that
importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.activations.capture import capture, capture_adapters
    from persona_probe.activations.contrast import contrast, under
    from persona_probe.activations.extraction import extract
    from persona_probe.activations.prompts import read_prompts
    from persona_probe.activations.reading import read
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.classifier import DirectionClassifier
    from persona_probe.directions.direction import Direction
    from persona_probe.directions.direction_set import (
        Directions,
        load_directions,
        save_directions,
    )
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.linear_probe import LinearProbe
    from persona_probe.directions.finders.mean_difference import MeanDifference
    from persona_probe.errors import PersonaProbeError, RequestError
    from persona_probe.evaluation.phrase_judge import PhraseJudge
    from persona_probe.evaluation.profile import profiles
    from persona_probe.interchange.exporting import export_directions
    from persona_probe.interchange.importing import import_directions
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef
    from persona_probe.models.residual_model import ResidualModel
    from persona_probe.models.site import Site
    from persona_probe.organism import CHECKPOINT as ORGANISM
    from persona_probe.personas.pack import load_pack
    from persona_probe.personas.suite_file import load_suite
    from persona_probe.report.page import write_report
    from persona_probe.statistics import Estimate
    from persona_probe.steering.ablate import Ablate
    from persona_probe.steering.add import Add
    from persona_probe.steering.arm import Arm, Intervention
    from persona_probe.steering.baking import bake
    from persona_probe.steering.calibration import calibrate
    from persona_probe.steering.clamp import Clamp
    from persona_probe.steering.condition import Condition
    from persona_probe.steering.dose import doses
    from persona_probe.steering.generation import Completion, generate
    from persona_probe.steering.patch import Patch
    from persona_probe.steering.rotate import Rotate
    from persona_probe.steering.steer import steer
    from persona_probe.steering.subspace import Subspace
    from persona_probe.study.plan import Study
    from persona_probe.study.plan_file import read_study
    from persona_probe.study.planning import plan_study
    from persona_probe.study.run import run_study

__version__ = "0.1.0"

__all__ = [
    "ORGANISM",
    "Ablate",
    "ActivationSet",
    "Add",
    "Arm",
    "Clamp",
    "Completion",
    "Condition",
    "Conversation",
    "Direction",
    "DirectionClassifier",
    "Directions",
    "Estimate",
    "Intervention",
    "LinearProbe",
    "MeanDifference",
    "Message",
    "ModelRef",
    "Patch",
    "PersonaProbeError",
    "PhraseJudge",
    "RequestError",
    "ResidualModel",
    "Rotate",
    "Site",
    "Study",
    "Subspace",
    "bake",
    "calibrate",
    "capture",
    "capture_adapters",
    "compare",
    "contrast",
    "doses",
    "export_directions",
    "extract",
    "find_directions",
    "generate",
    "import_directions",
    "load_directions",
    "load_model",
    "load_pack",
    "load_suite",
    "plan_study",
    "profiles",
    "read",
    "read_prompts",
    "read_study",
    "run_study",
    "save_directions",
    "steer",
    "under",
    "validate",
    "write_report",
]

# Where each name lives, and what it is called there if that differs.
_HOMES = {
    "activations.activation_set": ("ActivationSet",),
    "activations.capture": ("capture", "capture_adapters"),
    "activations.contrast": ("contrast", "under"),
    "activations.extraction": ("extract",),
    "activations.prompts": ("read_prompts",),
    "activations.reading": ("read",),
    "directions.before_after.comparison": ("compare",),
    "directions.direction": ("Direction",),
    "directions.classifier": ("DirectionClassifier",),
    "directions.direction_set": ("Directions", "load_directions", "save_directions"),
    "directions.finder": ("find_directions",),
    "directions.finders.linear_probe": ("LinearProbe",),
    "directions.finders.mean_difference": ("MeanDifference",),
    "directions.checks.validation": ("validate",),
    "errors": ("PersonaProbeError", "RequestError"),
    "evaluation.phrase_judge": ("PhraseJudge",),
    "evaluation.profile": ("profiles",),
    "interchange.exporting": ("export_directions",),
    "interchange.importing": ("import_directions",),
    "models.chat": ("Conversation", "Message"),
    "models.loading": ("load_model",),
    "models.ref": ("ModelRef",),
    "models.residual_model": ("ResidualModel",),
    "models.site": ("Site",),
    "organism": ("ORGANISM",),
    "personas.pack": ("load_pack",),
    "personas.suite_file": ("load_suite",),
    "report.page": ("write_report",),
    "statistics": ("Estimate",),
    "steering.ablate": ("Ablate",),
    "steering.add": ("Add",),
    "steering.arm": ("Arm", "Intervention"),
    "steering.baking": ("bake",),
    "steering.calibration": ("calibrate",),
    "steering.clamp": ("Clamp",),
    "steering.condition": ("Condition",),
    "steering.dose": ("doses",),
    "steering.generation": ("Completion", "generate"),
    "steering.patch": ("Patch",),
    "steering.rotate": ("Rotate",),
    "steering.steer": ("steer",),
    "steering.subspace": ("Subspace",),
    "study.plan": ("Study",),
    "study.plan_file": ("read_study",),
    "study.planning": ("plan_study",),
    "study.run": ("run_study",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_CALLED_THERE = {"ORGANISM": "CHECKPOINT"}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME_OF[name]}")
    value: object = getattr(module, _CALLED_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
