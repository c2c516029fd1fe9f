"""Numbers as a run folder holds them, read tolerantly and written for people."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from persona_probe.report.anchors import href
from persona_probe.report.markup import Child, Markup, element
from persona_probe.statistics import Estimate

NOT_MEASURED = "not measured"


def estimate(value: Any) -> Estimate:
    """Read `{"value", "low", "high", "n", …}`, a bare number, or nothing.

    A bare number has no interval; anything unreadable is an undefined estimate, never a zero.
    """
    if not isinstance(value, dict):
        number = number_in(value)
        reason = NOT_MEASURED if math.isnan(number) else None
        return Estimate(number, math.nan, math.nan, 0, 0, reason=reason)
    number = number_in(value.get("value"))
    reason = value.get("reason") or value.get("why_undefined")
    return Estimate(
        value=number,
        low=number_in(value.get("low")),
        high=number_in(value.get("high")),
        n=_count(value.get("n")),
        n_clusters=_count(value.get("n_clusters")),
        reason=str(reason) if reason else (NOT_MEASURED if math.isnan(number) else None),
    )


def number_in(value: Any) -> float:
    """The finite number that `value` is, or NaN; True and "3" are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def site_in(row: Mapping[str, Any]) -> Any:
    """The layer that a row is about: `site` in a run's files, `layer` in rows of the library."""
    return row["site"] if row.get("site") is not None else row.get("layer")


def plain(value: float, digits: int = 2) -> str:
    """A number with a true minus sign; a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def in_words(value: Estimate, digits: int = 2) -> str:
    """`0.92 [0.88, 0.95], n = 240 in 24 families`, as far as it is known."""
    if not value.defined:
        return value.reason or NOT_MEASURED
    parts = [plain(value.value, digits) + _interval(value, digits), _sample(value)]
    return ", ".join(part for part in parts if part)


def number(value: Estimate, row: Mapping[str, Any] | None, digits: int = 2) -> Markup:
    """The same as a table cell: the number; smaller below it the interval, and n.

    Args:
        value: what is shown.
        row: where it comes from; the number links to it.
        digits: after the point.
    """
    if not value.defined:
        return element("span", value.reason or NOT_MEASURED, class_="absent")
    small = [_interval(value, digits).strip() or "no interval"]
    small += [_sample(value)] if value.n else []
    return linked([plain(value.value, digits), [element("small", line) for line in small]], row)


def linked(text: Child, row: Mapping[str, Any] | None) -> Markup:
    """A number of the page, as a link to the row behind it where there is one."""
    to = href(row)
    return element("span" if to is None else "a", text, class_="number", href=to)


def sample_sizes(values: Iterable[Estimate], what: str) -> str:
    """`n = 60–200 requests` over some estimates; empty when none says its n."""
    sizes = sorted({value.n for value in values if value.defined and value.n})
    if not sizes:
        return ""
    span = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"
    return f"n = {span} {what}"


def _interval(value: Estimate, digits: int) -> str:
    if math.isnan(value.low) and math.isnan(value.high):
        return ""
    return f" [{plain(value.low, digits)}, {plain(value.high, digits)}]"


def _sample(value: Estimate) -> str:
    if not value.n:
        return ""
    grouped = 0 < value.n_clusters < value.n
    return f"n = {value.n}" + (f" in {value.n_clusters} families" if grouped else "")


def _count(value: Any) -> int:
    number = number_in(value)
    return 0 if math.isnan(number) else int(number)
