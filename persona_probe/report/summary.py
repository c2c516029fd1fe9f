"""The verdict for the terminal: one line per persona."""

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from persona_probe.report.estimates import NOT_MEASURED, estimate, plain
from persona_probe.report.palette import title_of
from persona_probe.report.run_folder import Row, Run, read_run
from persona_probe.study.verdict import RUNGS

if TYPE_CHECKING:
    from rich.table import Table

# Column → metrics in order of preference, and the kinds of arm that they are about.
EFFECTS = {
    "effect reproduced": (("ER_J", "ER"), ("steered",)),
    "necessity": (("NEC",), ("ablated",)),
    "profile recovered": (("PR",), ("steered",)),
}


def verdict_table(run_folder: Path) -> "Table":
    """Rung reached, effect reproduced, necessity, profile recovery and first failure, per persona.

    Raises:
        RequestError: there is no such folder, or it holds none of a run's files.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    run = read_run(run_folder)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("persona", "reaches", *EFFECTS, "first failed"):
        table.add_column(heading.replace(" ", "\n"), overflow="fold", vertical="top")
    for persona in run.personas:
        # Text, because names and reasons may hold what rich would take for markup.
        table.add_row(*(Text(cell) for cell in verdict_cells(run, persona)))
    return table


def verdict_cells(run: Run, persona: str) -> list[str]:
    """The line of one persona."""
    verdict = run.verdicts.get(persona)
    if verdict is None:
        reached, failed = NOT_MEASURED, NOT_MEASURED
    else:
        rung = str(verdict.get("highest_unbroken") or "")
        reached = f"{rung}\n{RUNGS.get(rung, '')}".strip() or "no rung"
        first = verdict.get("first_failed")
        failed = f"{first.get('rung')}\n{first.get('name')}" if isinstance(first, dict) else "none"
    return [title_of(persona), reached, *(_effect(run, persona, key) for key in EFFECTS), failed]


def verdict_text(run_folder: Path, width: int = 100) -> str:
    """`verdict_table` as plain text, for logs and pipes."""
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(verdict_table(run_folder))
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())


def ladder_text(verdict: Row, width: int = 100) -> str:
    """Every rung of every persona and scope in words, with its numbers, and the warnings."""
    lines: list[str] = []
    for scope, ladders in (("", verdict["personas"]), *verdict.get("scopes", {}).items()):
        for persona, ladder in ladders.items():
            which = scope or str(ladder.get("scope", ""))
            lines += ["", f"{title_of(persona)}{f', {which} finetuning' if which else ''}"]
            for rung in ladder["rungs"]:
                said = {True: "yes", False: "NO", None: "–"}[rung["passed"]]
                head = f"  {rung['rung']} {rung['name']:<17}{said:<4}"
                lines += wrap(head + rung["evidence"], width, subsequent_indent=" " * len(head))
    lines.append("")
    for flag in verdict.get("flags", []):
        lines += wrap(f"warning: {flag}", width, subsequent_indent=" " * 9)
    return "\n".join(lines).strip("\n")


def _effect(run: Run, persona: str, column: str) -> str:
    """The number, its interval and n; the metric's name where it is not the preferred one."""
    metrics, kinds = EFFECTS[column]
    for metric in metrics:
        row = run.effect(persona, metric, kinds)
        if row is None:
            continue
        value = estimate(row.get("value"))
        if not value.defined:
            return f"undefined: {row['why_undefined']}" if row.get("why_undefined") else "undefined"
        lines = [plain(value.value) + ("" if metric == metrics[0] else f" ({metric})")]
        if value.low == value.low:
            lines.append(f"[{plain(value.low)}, {plain(value.high)}]")
        if value.n:
            lines.append(f"n = {value.n}")
        return "\n".join(lines)
    return NOT_MEASURED
