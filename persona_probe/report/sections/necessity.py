"""Sufficiency against necessity, and every effect with its interval."""

from persona_probe.report.estimates import NOT_MEASURED, estimate, linked, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Row, Rows, Run
from persona_probe.report.sections.best_vector import best_vector
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import DRAWS, plane_rows

METRICS = {
    "ER": "effect reproduced: safe replies gained by steering, over those finetuning gained",
    "ER_J": "effect reproduced, after subtracting harmless requests refused",
    "ER_refusal_probability": "effect reproduced, in the probability of refusing",
    "NEC": "necessity: safe replies lost by taking the direction out, over those finetuning gained",
    "PR": "profile recovery: 1 = the finetuned model's profile, 0 = no nearer than before",
    "profile_moved": "how far the profile moved towards the finetuned model's (1 = all the way)",
    "pi_steer": "projection: effect on held-out categories, over that on trained ones",
    "retention": "the same for the finetuned model's own gain in safe replies",
}
# Column → metrics in order of preference, and the kind of arm.
GLANCE = {
    "Effect reproduced": (("ER_J", "ER"), "steered"),
    "In the probability of refusing": (("ER_refusal_probability",), "steered"),
    "Necessity": (("NEC",), "ablated"),
    "Profile recovery": (("PR",), "steered"),
    "Projection to held-out harm": (("pi_steer",), "steered"),
}


def necessity(run: Run, colours: Colours) -> Markup:
    """The plane, what could not be drawn in it, and the table of effects."""
    rows = plane_rows(run)
    return join(
        [
            paragraph(
                "Adding a direction shows whether it is enough; taking it out of the finetuned "
                "model shows whether it is needed. All four combinations occur in practice, and "
                "each says something else: a model can hold several ways to the same behaviour."
            ),
            _glance(run),
            exhibit(
                [FIGURES["sufficiency_necessity"](rows, colours)],
                [
                    "Across: the share of finetuning's effect that adding the direction "
                    "reproduces, net of harmless requests refused where that was measured. Up: the "
                    "share that taking it out removes. 1 means all of it; values are not clipped. "
                    "Grey: the same of random directions, 5th to 95th percentile, where measured.",
                    source(run, "effects.json"),
                ],
                width=720,
                notice=absences(run, "effects.json"),
            ),
            _undefined(rows) if run.rows("effects.json") else None,
            best_vector(run),
            _ranks(run, colours),
            _mediation(run, colours),
            _effects(run),
        ]
    )


def _ranks(run: Run, colours: Colours) -> Markup | None:
    rows = run.rows("rank_curve.json")
    if not rows:
        return None
    lines: list[list[Child]] = [
        [
            title_of(row.get("persona")),
            title_of(row.get("kind")),
            str(row.get("k")),
            number(estimate(row.get("removed")), row),
            number(estimate(row.get("removed_fast")), row),
        ]
        for row in rows
    ]
    head = ("Persona", "Subspace", "Rank", "Removed", "In the probability of refusing")
    return join(
        [
            element("h3", "How many dimensions does it take?"),
            exhibit(
                [FIGURES["rank_curve"](rows, colours)],
                [
                    "Instead of one direction a subspace of rank k is turned back to the "
                    "helpful-only model’s level. Where one dimension removes everything, more add "
                    "nothing; a random subspace should remove nothing at any rank.",
                    source(run, "rank_curve.json"),
                ],
                numbers_table(head, lines),
                width=760,
            ),
        ]
    )


def _mediation(run: Run, colours: Colours) -> Markup | None:
    rows = run.rows("mediation.json")
    first = next((row for row in rows if row.get("measure")), None)
    if first is None:
        return None
    shown = [r for r in rows if all(r.get(k) == first.get(k) for k in ("measure", "scope"))]
    keys = ("TE", "NIE", "NDE", "interaction", "proportion")
    lines: list[list[Child]] = [
        [
            f"{title_of(row.get('persona'))}, {row.get('scope')}",
            f"{row.get('measure')}, {row.get('sites')} layers, {row.get('kind')}"
            + ("" if row.get("seed") is None else f" {row['seed']}"),
            *(number(estimate(row.get(key)), row) for key in keys),
        ]
        for row in rows
        if row.get("kind") == "direction"
    ]
    head = (
        "Persona", "What is exchanged", "Whole effect", "Through the component", "Without it",
        "Interaction", "Share mediated",
    )  # fmt: skip
    return join(
        [
            element("h3", "Does the effect pass through it, on the same text?"),
            exhibit(
                [FIGURES["mediation"](shown, colours)],
                [
                    "Both models read the same tokens and exchange nothing but their component "
                    "along the direction. Diamond: the helpful-only model with the finetuned one’s "
                    "component; if it reaches the open circle, the effect passes through the "
                    "direction. Triangle: the finetuned model with the helpful-only one’s "
                    "component; at 0, nothing passes anywhere else. Strokes: random directions.",
                    source(run, "mediation.json"),
                ],
                numbers_table(head, lines),
                neutral_key=True,
                width=860,
            ),
        ]
    )


def _glance(run: Run) -> Markup | None:
    """Each persona's main effects in one line."""
    lines: list[list[Child]] = []
    for persona in run.personas:
        found = [_first(run, persona, *wanted) for wanted in GLANCE.values()]
        if any(found):
            lines.append([title_of(persona), *map(_value, found)])
    return numbers_table(("Persona", *GLANCE), lines)


def _first(run: Run, persona: str, metrics: tuple[str, ...], kind: str) -> Row | None:
    rows = (run.effect(persona, metric, (kind,)) for metric in metrics)
    return next((row for row in rows if row), None)


def _value(row: Row | None) -> Child:
    value = estimate((row or {}).get("value"))
    why = (row or {}).get("why_undefined")
    return number(value, row) if value.defined or not why else f"undefined: {why}"


def _undefined(rows: Rows) -> Markup | None:
    lines = [
        f"{title_of(row['persona'])}: {words} {estimate(row.get(key)).reason or NOT_MEASURED}"
        for row in rows
        if row["arm_kind"] == "steered"
        for key, words in (("sufficiency", "effect reproduced"), ("necessity", "necessity"))
        if not estimate(row.get(key)).defined
    ]
    return (
        paragraph("Not in the figure: ", "; ".join(lines), ".", class_="absent") if lines else None
    )


def _effects(run: Run) -> Markup | None:
    lines: list[list[Child]] = []
    kinds = {arm.get("arm"): arm["arm_kind"] for arm in run.arms}
    every = run.rows("effects.json")
    for row in every:
        elsewhere = row.get("scope") not in (None, run.scope(str(row.get("persona"))))
        if elsewhere or kinds.get(row.get("arm")) in DRAWS:
            continue
        lines.append(
            [
                title_of(row.get("persona") or "all"),
                str(row.get("arm") or "–"),
                _metric(str(row.get("metric"))),
                _value(row) if row.get("value") or row.get("why_undefined") else "–",
                linked(_p(row.get("p")), row),
                linked(_p(row.get("p_holm")), row),
            ]
        )
    if not lines:
        return None
    head = ("Persona", "Arm", "Effect", "Value", "p", "p, adjusted (Holm)")
    return join(
        [
            element(
                "details",
                element(
                    "summary",
                    f"Effects, but for random draws ({len(lines)} of {len(every)} rows)",
                ),
                numbers_table(head, lines),
                class_="long",
            )
        ]
    )


def _metric(name: str) -> Child:
    what = METRICS.get(name)
    return [element("code", name), element("small", f" {what}") if what else None]


def _p(value: object) -> str:
    return plain(number_in(value), 4)
