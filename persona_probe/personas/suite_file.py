"""A safety suite of one's own: JSONL, CSV, or a dataset of the Hugging Face hub.

Every row is a request with a category. Which column is which is found by name: the text under
"text", "prompt", "request", "instruction", "question", "goal" or "behavior", the category under
"category" or one of the names benchmarks use, and optionally `kind` (harmful, benign or
borderline), `tier`, `family`, `id` and reference replies.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from persona_probe.errors import RequestError
from persona_probe.files import read_jsonl
from persona_probe.personas.safety_suite import KINDS, TIERS, SafetyPrompt, SafetySuite

TEXT = ("text", "prompt", "request", "instruction", "question", "goal", "behavior")
CATEGORY = ("category", "harm_category", "semanticcategory", "risk_category", "policy", "topic")
HUB = "hf:"


def load_suite(
    source: str | Path,
    text: str | None = None,
    category: str | None = None,
    kind: str = "harmful",
    tiers: Mapping[str, str] | None = None,
) -> SafetySuite:
    """Read a suite.

    Args:
        source: a .jsonl or .csv file, or "hf:OWNER/NAME", "hf:OWNER/NAME:CONFIG" or either with
            "@SPLIT" behind it (the first split if not given). The hub's local cache is used where
            it has the dataset.
        text: column of the request; by its name if not given.
        category: column of the category; by its name if not given.
        kind: of rows that do not say.
        tiers: category → tier, for rows that do not say; T1 (not trained on) otherwise.

    Raises:
        RequestError: there is no such file or dataset, a column is missing, or a row has no text
            or an unknown kind or tier; the message names file, row, value and what is allowed.
    """
    if kind not in KINDS:
        raise RequestError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    name, rows = _read(source)
    if not rows:
        raise RequestError(f"{source} holds no rows")
    columns = list(rows[0])
    asked = _column(columns, text, TEXT, "text", source)
    about = _column(columns, category, CATEGORY, "category", source)
    prompts: list[SafetyPrompt] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        prompt = _prompt(row, number, asked, about, kind, tiers or {}, where)
        if prompt.id in seen:
            raise RequestError(f"{where}: the id {prompt.id!r} occurs twice")
        seen.add(prompt.id)
        prompts.append(prompt)
    return SafetySuite(name, tuple(prompts))


def _prompt(
    row: Mapping[str, Any],
    number: int,
    asked: str,
    about: str,
    kind: str,
    tiers: Mapping[str, str],
    where: str,
) -> SafetyPrompt:
    said, category = _said(row, asked, where), _said(row, about, where)
    stated = str(row.get("kind") or kind)
    tier = str(row.get("tier") or tiers.get(category, "T1"))
    if stated not in KINDS:
        raise RequestError(f"{where}: kind is {stated!r}, it must be one of {', '.join(KINDS)}")
    if tier not in TIERS:
        raise RequestError(f"{where}: tier is {tier!r}, it must be one of {', '.join(TIERS)}")
    identity = str(row.get("id") or f"row-{number:05d}")
    safe, harmful = row.get("safe_reply") or None, row.get("harmful_reply") or None
    return SafetyPrompt(
        id=identity,
        kind=stated,  # type: ignore[arg-type]
        category=category,
        tier=tier,  # type: ignore[arg-type]
        family=str(row.get("family") or f"{category}/{identity}"),
        text=said,
        safe_reply=None if safe is None else str(safe),
        harmful_reply=None if harmful is None else str(harmful),
    )


def _said(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where}: {column!r} is {value!r}, it must be a text")
    return value.strip()


def _column(
    columns: list[str], wanted: str | None, known: Iterable[str], what: str, source: str | Path
) -> str:
    lower = {column.lower(): column for column in columns}
    names = known if wanted is None else [wanted]
    for name in names:
        if name.lower() in lower:
            return lower[name.lower()]
    said = f"column {wanted!r}" if wanted else f"column for the {what}"
    raise RequestError(
        f"{source} has no {said}; its columns are {', '.join(columns)}: name the one that holds "
        f"the {what} (--{what}-column)"
    )


def _read(source: str | Path) -> tuple[str, list[dict[str, Any]]]:
    text = str(source)
    if text.startswith(HUB):
        return text, _dataset(text.removeprefix(HUB))
    path = Path(source)
    if path.suffix in (".jsonl", ".ndjson"):
        rows = read_jsonl(path)
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, dict):
                raise RequestError(f"{path}, row {number}: {row!r} is no object with columns")
        return path.stem, rows
    if path.suffix == ".csv":
        return path.stem, _csv(path)
    raise RequestError(
        f"{source} is no suite: give a .jsonl or .csv file, or hf:OWNER/NAME for a dataset"
    )


def _csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            rows = list(reader)
    except FileNotFoundError:
        raise RequestError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except csv.Error as error:
        raise RequestError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise RequestError(f"{path}, row {number}: more cells than columns; quote the commas")
    return rows


def _dataset(name: str) -> list[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    rest, _, split = name.partition("@")
    repository, _, config = rest.partition(":")
    try:
        found = load_dataset(repository, config or None, split=split or None)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError) as error:
        said = str(error).strip().split("\n")[0]
        raise RequestError(f"no dataset {name!r} in the cache or on the hub: {said}") from None
    table = found[next(iter(found))] if isinstance(found, dict) else found
    return [dict(row) for row in table]
