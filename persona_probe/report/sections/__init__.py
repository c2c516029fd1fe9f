"""The sections of the page, in reading order; each takes a run and returns its HTML.

A section whose stage is missing says "not measured" and why, and never disappears.
"""

from collections.abc import Callable

from persona_probe.report.markup import Markup
from persona_probe.report.palette import Colours
from persona_probe.report.run_folder import Run
from persona_probe.report.sections.categories import categories
from persona_probe.report.sections.controls import controls
from persona_probe.report.sections.dose import dose
from persona_probe.report.sections.geometry import geometry
from persona_probe.report.sections.ladder import ladder
from persona_probe.report.sections.methods import methods
from persona_probe.report.sections.necessity import necessity
from persona_probe.report.sections.profiles import profiles
from persona_probe.report.sections.reach import reach
from persona_probe.report.sections.replies import replies
from persona_probe.report.sections.space import space
from persona_probe.report.sections.tokens import tokens

Section = Callable[[Run, Colours], Markup]

SECTIONS: dict[str, tuple[str, Section]] = {
    "verdict": ("The verdict, rung by rung", ladder),
    "dose": ("How much of the direction, how much refusal", dose),
    "categories": ("Which kinds of harm", categories),
    "reach": ("Does it carry over", reach),
    "profiles": ("Whose voice", profiles),
    "geometry": ("Where the direction lies", geometry),
    "space": ("Where the models lie", space),
    "necessity": ("Enough, and needed?", necessity),
    "controls": ("Controls and side effects", controls),
    "replies": ("What the models say", replies),
    "tokens": ("Word by word", tokens),
    "methods": ("Methods and provenance", methods),
}

__all__ = ["SECTIONS", "Section"]
