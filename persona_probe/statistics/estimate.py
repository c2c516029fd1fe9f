"""A number with its interval, or the reason why there is none."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = Sequence[float | int] | np.ndarray  # one per observation; bool is an int


def json_number(value: float) -> float | None:
    """The number, or null for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the point estimate; NaN when there is none, and then `reason` says why.
        low: lower end of the interval, NaN when there is none.
        high: upper end of the interval, NaN when there is none.
        n: observations that entered; 0 for the mean of nothing.
        n_clusters: prompt families (or whatever was resampled) that entered.
        level: what the interval is meant to cover.
        reason: why the value or the interval is undefined.
    """

    value: float
    low: float
    high: float
    n: int
    n_clusters: int
    level: float = 0.95
    reason: str | None = None

    @classmethod
    def undefined(cls, reason: str, n: int = 0, n_clusters: int = 0) -> "Estimate":
        """No number, and why."""
        return cls(math.nan, math.nan, math.nan, n, n_clusters, reason=reason)

    @classmethod
    def of_draws(cls, draws: Numbers, level: float = 0.95) -> "Estimate":
        """Mean and middle `level` of random draws (a null, halvings); NaN draws are left out.

        The range shows the spread of the draws and is not a confidence interval of their mean.
        """
        values = np.asarray(draws, dtype=np.float64)
        usable = values[np.isfinite(values)]
        if not len(usable):
            return cls.undefined("no draw has a value")
        low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
        n = len(usable)
        return cls(float(usable.mean()), float(low), float(high), n, n, level)

    @property
    def defined(self) -> bool:
        """Whether there is a value; there may still be no interval."""
        return not math.isnan(self.value)

    def excludes(self, value: float) -> bool:
        """Whether the interval exists and lies wholly on one side of `value`."""
        return self.low > value or self.high < value

    def within(self, margin: float) -> bool:
        """Whether the interval exists and lies wholly inside (-margin, margin)."""
        return -margin < self.low and self.high < margin

    def to_json(self) -> dict[str, Any]:
        """A plain dict; NaN becomes null, because JSON has no NaN."""
        return {key: None if value != value else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Estimate":
        """The inverse of `to_json`."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        numbers = {k: math.nan if known[k] is None else known[k] for k in ("value", "low", "high")}
        return cls(**{**known, **numbers})

    def __str__(self) -> str:
        if not self.defined:
            return f"undefined ({self.reason})"
        if math.isnan(self.low):
            return f"{self.value:.3f} (n = {self.n}; no interval: {self.reason})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"

    def _repr_html_(self) -> str:
        return f"<span>{escape(str(self))}</span>"
