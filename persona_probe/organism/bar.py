"""One quantity that the organism has to reach, as measured."""

from dataclasses import asdict, dataclass
from typing import Any

from persona_probe.statistics import Estimate, json_number


@dataclass(frozen=True)
class Bar:
    """A line of the table.

    Attributes:
        quantity: what was measured, and of which model.
        value: point estimate; `low` and `high` are its 95% interval, NaN where there is none.
        n: prompts, items or models behind it.
        bar: what it has to be, in words.
        met: whether it is. The point estimate decides unless `bar` names the interval.
    """

    quantity: str
    value: int | float
    low: float
    high: float
    n: int
    bar: str
    met: bool

    def __str__(self) -> str:
        """The number and its interval."""
        interval = "" if self.low != self.low else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.4g}{interval}"

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        return row | {key: json_number(row[key]) for key in ("value", "low", "high")}


def at_least(quantity: str, estimate: Estimate, bar: float) -> Bar:
    """Met when the estimate reaches the bar."""
    return _bar(quantity, estimate, f"≥ {bar:g}", estimate.value >= bar)


def at_most(quantity: str, estimate: Estimate, bar: float) -> Bar:
    """Met when the estimate stays below the bar."""
    return _bar(quantity, estimate, f"≤ {bar:g}", estimate.value <= bar)


def within(quantity: str, estimate: Estimate, bar: float) -> Bar:
    """Met when the estimate is no farther from 0 than the bar."""
    return _bar(quantity, estimate, f"within ±{bar:g}", abs(estimate.value) <= bar)


def above_zero(quantity: str, estimate: Estimate, bar: str) -> Bar:
    """Met when the whole interval lies above 0."""
    return _bar(quantity, estimate, bar, estimate.low > 0)


def around_zero(quantity: str, estimate: Estimate, bar: str) -> Bar:
    """Met when the interval contains 0."""
    return _bar(quantity, estimate, bar, estimate.low <= 0 <= estimate.high)


def reported(quantity: str, estimate: Estimate) -> Bar:
    """A number without a bar."""
    return _bar(quantity, estimate, "reported", True)


def exact(quantity: str, value: int | float, n: int, bar: str, met: bool) -> Bar:
    """A number without sampling error."""
    return Bar(quantity, float(value), float("nan"), float("nan"), n, bar, met)


def _bar(quantity: str, e: Estimate, bar: str, met: bool) -> Bar:
    return Bar(quantity, e.value, e.low, e.high, e.n, bar, bool(met))


def markdown(rows: list[Bar]) -> str:
    """The table as it is stored beside the checkpoint."""
    lines = ["| quantity | measured | n | bar | met |", "|---|---|---|---|---|"]
    for row in rows:
        met = "yes" if row.met else "**no**"
        lines.append(f"| {row.quantity} | {row} | {row.n} | {row.bar} | {met} |")
    return "\n".join(lines) + "\n"
