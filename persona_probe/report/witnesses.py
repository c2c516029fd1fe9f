"""Which rows a rung of the ladder was judged by."""

from persona_probe.report.anchors import href
from persona_probe.report.markup import Markup, element
from persona_probe.report.run_folder import Row, Rows, Run

# Rung → metric of effects.json, and the kind of arm that it is about.
EFFECTS = {
    "L3": ("ER_J", "steered"),
    "L4": ("Y(F) - Y(S)", "steered"),
    "L6": ("NEC", "ablated"),
    "L7": ("pi_steer", "steered"),
}
CONTRASTS = {"L0": ("detection", "prompt_in_H"), "L1": ("prompt_in_H",)}


def witnesses(run: Run, persona: str, rung: str) -> Rows:
    """The rows of one persona's rung, as far as the run has them; its own answer first."""
    verdict = run.verdicts.get(persona)
    found: list[Row | None] = [verdict]
    if rung in CONTRASTS:
        layer = run.chosen.get(persona, {}).get("layer")
        found += [
            row
            for row in run.rows("validation.json")
            if row.get("persona") == persona
            and row.get("site") == layer
            and row.get("family") in CONTRASTS[rung]
        ]
    if rung == "L2":
        found += [
            row
            for row in run.rows("effects.json")
            if row.get("persona") == persona
            and str(row.get("metric")).startswith("p against")
            and row.get("scope") in (None, run.scope(persona))
        ]
    if rung in EFFECTS:
        metric, kind = EFFECTS[rung]
        found.append(run.effect(persona, metric, (kind,)))
    if rung == "L5":
        found += [
            row
            for row in run.rows("profiles.json", "identification")
            if row.get("persona") == persona and row.get("arm_kind") == "steered"
        ]
    return [row for row in found if row]


def witness_links(run: Run, persona: str, rung: str) -> list[Markup]:
    """A short link to each of them, by file and number."""
    links = []
    for row in witnesses(run, persona, rung):
        if (to := href(row)) is not None:
            place = to.removeprefix(f"#{run.mark}")
            links.append(element("a", element("code", place), href=to, class_="row"))
    return links
