"""The figures of a report, one file each: rows in, a plotly figure out.

`FIGURES` is the table of contents. Every figure takes a list of plain dicts, as the run folder
holds them (its docstring names the keys), and optionally the colours of the personas; it draws
the interval of every number that has one, says n, and copes with no rows at all. A new figure is
one file and one line here; the contract tests run over the dict.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from persona_probe.report.figures.category_effects import category_effects
from persona_probe.report.figures.category_reproduced import category_reproduced
from persona_probe.report.figures.cosine_map import cosine_map
from persona_probe.report.figures.dose_response import dose_response
from persona_probe.report.figures.effect_by_tier import effect_by_tier
from persona_probe.report.figures.layer_profile import layer_profile
from persona_probe.report.figures.mediation import mediation
from persona_probe.report.figures.persona_profile import persona_profile
from persona_probe.report.figures.persona_radar import persona_radar
from persona_probe.report.figures.persona_space import persona_space
from persona_probe.report.figures.projectability import projectability
from persona_probe.report.figures.projection_histogram import projection_histogram
from persona_probe.report.figures.projection_shift import projection_shift
from persona_probe.report.figures.rank_curve import rank_curve
from persona_probe.report.figures.robustness import robustness
from persona_probe.report.figures.run_differences import run_differences
from persona_probe.report.figures.shift_cosine import shift_cosine
from persona_probe.report.figures.steerability import steerability
from persona_probe.report.figures.sufficiency_necessity import sufficiency_necessity
from persona_probe.report.figures.token_projection import token_projection
from persona_probe.report.figures.training_projection import training_projection
from persona_probe.report.figures.transfer_matrix import transfer_matrix

if TYPE_CHECKING:
    import plotly.graph_objects as go

FIGURES: "dict[str, Callable[..., go.Figure]]" = {
    "effect_by_tier": effect_by_tier,
    "dose_response": dose_response,
    "category_effects": category_effects,
    "category_reproduced": category_reproduced,
    "projectability": projectability,
    "robustness": robustness,
    "persona_profile": persona_profile,
    "persona_radar": persona_radar,
    "transfer_matrix": transfer_matrix,
    "persona_space": persona_space,
    "layer_profile": layer_profile,
    "projection_histogram": projection_histogram,
    "projection_shift": projection_shift,
    "shift_cosine": shift_cosine,
    "cosine_map": cosine_map,
    "sufficiency_necessity": sufficiency_necessity,
    "rank_curve": rank_curve,
    "mediation": mediation,
    "steerability": steerability,
    "token_projection": token_projection,
    "training_projection": training_projection,
    "run_differences": run_differences,
}

__all__ = ["FIGURES", *FIGURES]
