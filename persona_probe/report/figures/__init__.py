"""The figures of a report, one file each: rows in, a plotly figure out.

`FIGURES` is the table of contents. Every figure takes a list of plain dicts, as the run folder
holds them (its docstring names the keys), and optionally the colours of the personas; it draws
the interval of every number that has one, says n, and copes with no rows at all. A new figure is
one file and one line here; the contract tests run over the dict.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from persona_probe.report.figures.category_effects import category_effects
from persona_probe.report.figures.dose_response import dose_response
from persona_probe.report.figures.effect_by_tier import effect_by_tier
from persona_probe.report.figures.layer_profile import layer_profile
from persona_probe.report.figures.persona_cosines import persona_cosines
from persona_probe.report.figures.persona_profile import persona_profile
from persona_probe.report.figures.shift_cosine import shift_cosine
from persona_probe.report.figures.sufficiency_necessity import sufficiency_necessity

if TYPE_CHECKING:
    import plotly.graph_objects as go

FIGURES: "dict[str, Callable[..., go.Figure]]" = {
    "effect_by_tier": effect_by_tier,
    "dose_response": dose_response,
    "category_effects": category_effects,
    "persona_profile": persona_profile,
    "layer_profile": layer_profile,
    "shift_cosine": shift_cosine,
    "persona_cosines": persona_cosines,
    "sufficiency_necessity": sufficiency_necessity,
}

__all__ = ["FIGURES", *FIGURES]
