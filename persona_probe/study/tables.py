"""The run's tables as CSV, flat, for spreadsheets and data frames."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from persona_probe.files import write_text

# Table → the document it comes from, and the key of its rows if these are not the document.
TABLES = {
    "arms": ("arms.json", None),
    "effects": ("effects.json", None),
    "profiles": ("profiles.json", "rows"),
    "steerability": ("steerability.json", None),
    "mediation": ("mediation.json", None),
    "tier_gains": ("tiers.json", "gains"),
    "tier_ratios": ("tiers.json", "ratios"),
    "transfer": ("transfer.json", "rows"),
    "rank_curve": ("rank_curve.json", None),
    "robustness": ("robustness.json", "rows"),
}
DROPPED = ("prompts", "reasons", "transitions")


def write_tables(folder: Path, documents: Mapping[str, Any]) -> None:
    """Write one CSV per table; an estimate becomes columns such as `safe.value`, `safe.low`."""
    for name, (document, key) in TABLES.items():
        content = documents[document]
        rows = [flat(row) for row in (content if key is None else content[key])]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / f"{name}.csv", text.getvalue())


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as dotted keys; lists and what is long are left out."""
    return dict(_flat(row, ""))


def _flat(row: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif not isinstance(value, list | tuple) and key not in DROPPED:
            yield name, value
