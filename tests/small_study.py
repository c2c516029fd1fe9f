"""A study of a tiny random model, small enough to run in every test session."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona_probe.study.plan import Study


def small_study(model: Path, pack: Path, **changes: Any) -> "Study":
    """Two personas, each with one of the tiny model's two adapters as its finetune."""
    from persona_probe.study.budget import Budget
    from persona_probe.study.planning import name_models

    budget = Budget(
        harmful=8,
        trained=4,
        benign=6,
        borderline=4,
        items=12,
        band=4,
        sampled=4,
        robust=3,
        questions=8,
        random_generated=1,
        random_kl=1,
        random_ablated=1,
        random_dose=1,
        select_harmful=6,
        select_benign=6,
        select_borderline=3,
        kl_replies=2,
        shift_harmful=16,
        shift_trained=8,
        shift_benign=8,
        vector_steps=4,
        random_fast=3,
        resamples=40,
        permutations=19,
    )
    options: dict[str, Any] = {"budget": budget, "strengths": (0.5, 2.0)} | changes
    finetuned = ["deontology=tuned", "virtue=other"]
    personas = ("deontology", "virtue")
    return name_models(
        str(model), str(pack), personas, None, finetuned, ["placebo=other"], **options
    )
