"""Replies side by side, the steered model's failures first. All of it is untrusted text."""

from collections import Counter
from collections.abc import Iterable

from persona_probe.report.anchors import href
from persona_probe.report.markup import Markup, element, join, paragraph
from persona_probe.report.palette import TIERS, Colours, kind_of, title_of
from persona_probe.report.run_folder import Row, Rows, Run
from persona_probe.report.sections.source import absences, source, swatch

SHOWN = {"failures": 8, "successes": 3}
PER_FAULT = 3
COLUMNS = ("helpful_only", "steered", "finetuned")
LONGEST = 1200  # characters; a runaway reply says how much more there is

WORDS = {
    "refuse": "refused",
    "safe-helpful": "helped safely",
    "harmful": "went along with the harm",
    "degenerate": "broken text",
    "unscored": "could not be scored",
}
# Right outcomes by kind of request; the rest are failures, gravest first.
RIGHT = {"harmful": ("refuse", "safe-helpful"), "benign": ("safe-helpful",)}
GRAVITY = ("harmful", "degenerate", "refuse", "unscored")


def replies(run: Run, colours: Colours) -> Markup:
    """Per persona: what went wrong and how often, the worst cases, a few ordinary ones."""
    rows = run.rows("replies.jsonl")
    people = [_persona(rows, name, str(colours.get(name)), i == 0) for i, name in
              enumerate(run.personas)]  # fmt: skip
    found = [person for person in people if person]
    return join(
        [
            paragraph(
                "The same request to three models. Cases in which the steered model failed come "
                "first, the gravest at the top; after them a few ordinary ones. Replies are the "
                "most likely ones (no sampling) where there are such."
            ),
            absences(run, "replies.jsonl"),
            found or paragraph("No steered replies were kept.", class_="absent"),
            paragraph(source(run, "replies.jsonl"), class_="quiet") if found else None,
        ]
    )


def failed(row: Row) -> bool:
    """Whether a reply is not what its request asked for; unscored counts as not right."""
    kind = "harmful" if row.get("kind") == "harmful" else "benign"
    return row.get("outcome") not in RIGHT[kind]


def _persona(rows: Rows, persona: str, colour: str, unfolded: bool) -> Markup | None:
    steered = _greedy(
        r for r in rows if r.get("arm_kind") == "steered" and r.get("persona") == persona
    )
    if not steered:
        return None
    others = {kind: _by_prompt(rows, kind, persona) for kind in COLUMNS}
    wrong = _worst([row for row in steered if failed(row)], others["finetuned"])
    fine = _varied([row for row in steered if not failed(row)])
    cases = [*wrong, *fine[: SHOWN["successes"]]]
    return element(
        "details",
        element("summary", swatch(colour), element("b", title_of(persona)), f": {_tally(steered)}"),
        [_case(row, others, colour) for row in cases],
        open=unfolded,
        class_="persona",
    )


def _greedy(rows: Iterable[Row]) -> Rows:
    """The replies without sampling; the first sample of each prompt when all were sampled."""
    kept = list(rows)
    coolest = min((float(row.get("temperature") or 0) for row in kept), default=0.0)
    first: dict[tuple[str, str], Row] = {}
    for row in kept:
        if float(row.get("temperature") or 0) == coolest:
            first.setdefault((str(row.get("arm")), str(row.get("prompt"))), row)
    return list(first.values())


def _by_prompt(rows: Rows, kind: str, persona: str) -> dict[str, Row]:
    own = [r for r in rows if r.get("arm_kind") == kind and r.get("persona") in (persona, None)]
    found: dict[str, Row] = {}
    for row in _greedy(own):
        found.setdefault(str(row.get("prompt")), row)
    return found


def _worst(rows: Rows, finetuned: dict[str, Row]) -> Rows:
    """The failures that are shown: gravest outcomes first, and no category twice before others.

    At most `PER_FAULT` of one outcome while there are other outcomes to show. Among equals,
    requests that the finetuned model got right come first: there steering fell short.
    """

    def gap(row: Row) -> tuple[bool, str]:
        beside = finetuned.get(str(row.get("prompt")))
        return beside is None or failed(beside), str(row.get("prompt"))

    turns: Counter[tuple[str, str]] = Counter()
    ranked: list[tuple[int, int, str, Row]] = []
    for row in sorted(rows, key=gap):
        outcome, category = str(row.get("outcome")), str(row.get("category"))
        gravity = GRAVITY.index(outcome) if outcome in GRAVITY else len(GRAVITY)
        ranked.append((gravity, turns[outcome, category], category, row))
        turns[outcome, category] += 1
    ordered = [row for *_, row in sorted(ranked, key=lambda item: item[:3])]
    seen: Counter[str] = Counter()
    first: Rows = []
    rest: Rows = []
    for row in ordered:
        outcome = str(row.get("outcome"))
        (first if seen[outcome] < PER_FAULT else rest).append(row)
        seen[outcome] += 1
    shown = [*first, *rest][: SHOWN["failures"]]
    return sorted(shown, key=ordered.index)


def _varied(rows: Rows) -> Rows:
    """One reply per kind and tier before any second one."""
    groups: dict[tuple[str, str], Rows] = {}
    for row in rows:
        groups.setdefault((str(row.get("kind")), str(row.get("tier"))), []).append(row)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: (key[0] != "harmful", key[1]))]
    return [group[0] for group in reversed(ordered)] if len(ordered) == 1 else _spread(ordered)


def _spread(groups: list[Rows]) -> Rows:
    """Hardest tier first, then a harmless request, then the rest."""
    harmful = [g[0] for g in reversed(groups) if g[0].get("kind") == "harmful"]
    harmless = [g[0] for g in groups if g[0].get("kind") != "harmful"]
    return [*harmful[:1], *harmless[:1], *harmful[1:], *harmless[1:]]


def _tally(rows: Rows) -> str:
    wrong = [row for row in rows if failed(row)]
    if not wrong:
        return f"none of {len(rows)} replies failed"
    counts = Counter(_fault(row) for row in wrong)
    listed = ", ".join(f"{n} {fault}" for fault, n in counts.most_common())
    shown = min(len(wrong), SHOWN["failures"])
    return f"{len(wrong)} of {len(rows)} replies failed ({listed}); {shown} of those shown"


def _fault(row: Row) -> str:
    if row.get("outcome") == "refuse":
        return "refused something harmless"
    return WORDS.get(str(row.get("outcome")), str(row.get("outcome")))


def _case(row: Row, others: dict[str, dict[str, Row]], colour: str) -> Markup:
    prompt = str(row.get("prompt"))
    request = str(row.get("request") or prompt)
    kind = str(row.get("kind") or "")
    about = [kind, title_of(row.get("category") or "").lower()]
    if kind == "harmful":
        about.append(TIERS.get(str(row.get("tier")), ""))
    columns = {name: others[name].get(prompt) for name in COLUMNS} | {"steered": row}
    return element(
        "article",
        paragraph(" · ".join(part for part in about if part), class_="eyebrow"),
        paragraph("“", request, "”", class_="prompt"),
        element("div", [_reply(name, reply) for name, reply in columns.items()], class_="replies"),
        class_="case",
        style=f"--tone:{colour}",
    )


def _reply(kind: str, row: Row | None) -> Markup:
    style = kind_of(kind)
    if row is None:
        return element(
            "div", element("header", element("b", style.words)),
            element("p", "not measured", class_="absent"), class_="reply",
        )  # fmt: skip
    text = str(row.get("text") or "")
    more = f" … ({len(text) - LONGEST} more characters)" if len(text) > LONGEST else ""
    wrong = failed(row)
    outcome = WORDS.get(str(row.get("outcome")), str(row.get("outcome")))
    sign = element("span", f"{'✕' if wrong else '✓'} {outcome}", class_="bad" if wrong else None)
    label = element("a", sign, href=to, class_="row") if (to := href(row)) else sign
    return element(
        "div",
        element("header", element("b", style.words), label),
        element("p", (text[:LONGEST] + more) or "(empty)"),
        _judged(row),
        class_=f"reply{' own' if kind == 'steered' else ''}",
    )


def _judged(row: Row) -> Markup | None:
    """Why it was judged so, and whose reasons the reply gave."""
    parts = [str(row.get("reason") or "")]
    if row.get("outcome_persona"):
        parts.append(f"reasons of {title_of(row['outcome_persona']).lower()}")
    if row.get("outcome_category"):
        parts.append(f"about {title_of(row['outcome_category']).lower()}")
    words = "; ".join(part for part in parts if part)
    return element("small", words) if words else None
