"""Does more of the direction mean more of the effect, prompt by prompt?

Tan et al. 2024, arXiv:2407.12404. b_i is the least-squares slope of a prompt's measure on the
strength. A mean that rises can hide prompts that fall: the share with b_i < 0 is printed beside it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from persona_probe.statistics import Estimate, mean_interval, wilson_interval
from persona_probe.study.dosing import Response

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Steerability:
    """How a direction's effect grows with its strength.

    Attributes:
        persona: whose direction. measure: what grows.
        slope: mean of b_i, per median residual norm, the interval over families.
        quantiles: of b_i, at `QUANTILES`.
        anti_steerable: share of prompts with b_i < 0, Wilson's interval.
        monotonicity: mean over prompts of Spearman's correlation of the measure with strength.
        usable: largest strength with it and every weaker one within the divergence limits.
        strengths: those that the slopes were fitted to.
        slopes: b_i. ids: of the prompts.
    """

    persona: str
    measure: str
    slope: Estimate
    quantiles: tuple[float, ...]
    anti_steerable: Estimate
    monotonicity: Estimate
    usable: float
    strengths: tuple[float, ...]
    slopes: tuple[float, ...]
    ids: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """One row; the slopes prompt by prompt at its end."""
        return {
            "persona": self.persona,
            "measure": self.measure,
            "slope": self.slope.to_json(),
            "quantiles": dict(zip(map(str, QUANTILES), self.quantiles, strict=True)),
            "anti_steerable": self.anti_steerable.to_json(),
            "monotonicity": self.monotonicity.to_json(),
            "usable_range": self.usable,
            "strengths": list(self.strengths),
            "n": len(self.ids),
            "prompts": [
                {"prompt": name, "slope": round(slope, 6)}
                for name, slope in zip(self.ids, self.slopes, strict=True)
            ],
        }


def steerability(response: Response, usable: float, **options: Any) -> Steerability:
    """Slopes over the strengths within the usable range, both signs.

    Where hardly any strength is usable, the weakest one of each sign is taken with 0: a slope
    needs a difference, and says nothing about larger strengths.

    Args:
        response: of every prompt at every strength.
        usable: the usable range, from the select split.
        options: of `statistics.cluster_bootstrap`.
    """
    weakest = min(abs(s) for s in response.strengths if s)
    kept = [n for n, s in enumerate(response.strengths) if abs(s) <= max(usable, weakest)]
    strengths = np.array([response.strengths[n] for n in kept])
    values = response.values[:, kept]
    slopes = _slopes(values, strengths)
    return Steerability(
        persona=response.persona,
        measure=response.measure,
        slope=mean_interval(slopes, response.families, **options),
        quantiles=tuple(float(q) for q in np.quantile(slopes, QUANTILES)),
        anti_steerable=wilson_interval(int((slopes < 0).sum()), len(slopes)),
        monotonicity=mean_interval(_spearman(values, strengths), response.families, **options),
        usable=usable,
        strengths=tuple(float(s) for s in strengths),
        slopes=tuple(float(b) for b in slopes),
        ids=response.ids,
    )


def _slopes(
    values: Float[np.ndarray, "prompt strength"], strengths: Float[np.ndarray, " strength"]
) -> Float[np.ndarray, " prompt"]:
    centred = strengths - strengths.mean()
    return np.asarray(values @ centred / (centred @ centred))


def _spearman(
    values: Float[np.ndarray, "prompt strength"], strengths: Float[np.ndarray, " strength"]
) -> Float[np.ndarray, " prompt"]:
    """NaN for a prompt that does not move at all."""
    ranks = rankdata(values, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    order = rankdata(strengths) - (len(strengths) + 1) / 2
    size = np.linalg.norm(ranks, axis=1) * np.linalg.norm(order)
    return np.asarray(np.where(size > 0, ranks @ order / np.where(size > 0, size, 1), np.nan))
