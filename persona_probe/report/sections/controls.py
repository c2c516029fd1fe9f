"""The table of controls: every arm with its numbers, intervals, n and guards."""

from itertools import groupby

from persona_probe.report.canvas import spread
from persona_probe.report.estimates import estimate, in_words, linked, number, number_in, plain
from persona_probe.report.markup import Child, Markup, element, join, paragraph, table
from persona_probe.report.palette import KINDS, Colours, kind_of, title_of
from persona_probe.report.run_folder import Row, Rows, Run, mapping
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import DRAWS
from persona_probe.statistics import Estimate

HEAD = (
    "Persona and arm", "Harmful: handled safely", "Harmless: refused", "Safe minus refused",
    "Refusal probability", "Broken text", "Not scored", "Guards",
)  # fmt: skip
LISTED = 120  # draws and seeds; a page with more of them would be too large
MANY = 3  # draws of one control and persona are summarised from here on
GUARDS = {
    "first_token_kl": "KL at the first token",
    "per_token_kl": "per token",
    "length_ratio": "length ×",
    "distinct_2": "variety ×",
}


def controls(run: Run, colours: Colours) -> Markup:
    """Kinds of arms in the order of `KINDS`; random draws summarised, and listed below."""
    del colours
    places = {persona: index for index, persona in enumerate(run.personas)}
    arms = sorted(run.arms, key=lambda arm: _order(arm, places))
    body: list[Markup] = []
    for kind, group in groupby(arms, key=lambda arm: str(arm["arm_kind"])):
        style = kind_of(kind)
        words = [style.words, element("small", f" {style.what}") if style.what else None]
        body.append(element("tr", element("th", words, colspan=len(HEAD)), class_="group"))
        body.extend(_lines(list(group)))
    return join(
        [
            paragraph(
                "Whatever is claimed for a direction must not hold for these. Guards are limits "
                "on side effects set beforehand: harmless requests refused, broken text, length "
                "of replies, multiple-choice questions no longer answered right, and drift on "
                "harmless text (KL divergence, in nats: how much the predicted next words differ "
                "from those of the helpful-only model). What finetuning itself costs, in "
                "brackets, is always allowed. An arm outside its guards is shown, and marked."
            ),
            absences(run, "arms.json"),
            table(HEAD, body, class_="controls") if body else None,
            paragraph(
                "Below each number: its 95 % interval over families of prompts, and n. "
                "Broken text counts as unsafe; a reply that could not be scored is "
                "counted here and left out there.",
                source(run, "arms.json"),
                class_="quiet",
            )
            if body
            else None,
            _every_draw(run, arms),
        ]
    )


def _order(arm: Row, places: dict[str, int]) -> tuple[int, str, int]:
    kinds = list(KINDS)
    kind = str(arm["arm_kind"])
    place = kinds.index(kind) if kind in kinds else len(kinds)
    return place, kind, places.get(str(arm.get("persona")), -1)


def _lines(arms: Rows) -> list[Markup]:
    lines: list[Markup] = []
    for _, group in groupby(arms, key=lambda arm: str(arm.get("persona") or "")):
        members = list(group)
        draws = [arm for arm in members if arm.get("seed") is not None]
        folded = draws if len(draws) >= MANY and members[0]["arm_kind"] in DRAWS else []
        lines.extend([_summary(folded)] if folded else [])
        lines.extend(_line(arm) for arm in members if arm not in folded)
    return lines


def _line(arm: Row) -> Markup:
    cells: list[Child] = [
        [number(estimate(arm.get("safe")), arm), _whisker(estimate(arm.get("safe")))],
        [
            number(estimate(arm.get("over_refusal")), arm),
            _whisker(estimate(arm.get("over_refusal"))),
        ],
        number(estimate(arm.get("j")), arm),
        number(estimate(arm.get("refusal_probability")), arm),
        number(estimate(arm.get("degenerate")), arm),
        linked(str(arm.get("unscored", "–")), arm),
        _guards(arm),
    ]
    head = element("th", _name(arm), scope="row")
    return element("tr", head, [element("td", cell) for cell in cells])


def _summary(arms: Rows) -> Markup:
    """Median and 5-95 % over the draws of one control."""
    cells: list[Child] = []
    for key in ("safe", "over_refusal", "j", "refusal_probability", "degenerate"):
        found = spread(arm.get(key) for arm in arms)
        if found is None:
            cells.append("–")
            continue
        low, middle, high, _ = found
        small = element("small", f"{plain(low)} to {plain(high)}")
        cells.append(linked([plain(middle), small], arms[0]))
    unscored = sum(int(number_in(arm.get("unscored")) or 0) for arm in arms if _counted(arm))
    out = sum(mapping(arm.get("guards")).get("passed") is False for arm in arms)
    judged = sum(isinstance(arm.get("guards"), dict) for arm in arms)
    verdict = f"{out} of {judged} fail" if out else "all passed"
    cells += [str(unscored), verdict if judged else "–"]
    small = element("small", f"{len(arms)} draws: median, 5 to 95 %")
    head = element("th", _persona(arms[0]), small, scope="row")
    return element("tr", head, [element("td", cell) for cell in cells])


def _counted(arm: Row) -> bool:
    return number_in(arm.get("unscored")) == number_in(arm.get("unscored"))


def _every_draw(run: Run, arms: Rows) -> Markup | None:
    seeded = [arm for arm in arms if arm.get("seed") is not None]
    if len(seeded) < MANY:
        return None
    if len(seeded) > LISTED:
        told = f"Each of the {len(seeded)} draws and seeds has a line of its own in "
        return paragraph(told, run.link("arms.json"), ".", class_="quiet")
    return element(
        "details",
        element("summary", f"Every draw and seed, one line each ({len(seeded)})"),
        table(HEAD, [_line(arm) for arm in seeded]),
        class_="long",
    )


def _name(arm: Row) -> Child:
    details = [
        str(arm.get("arm", "?")).replace("/", "/\u200b"),  # may break there
        f"layer {arm['site']}" if arm.get("site") is not None else "",
        f"strength {number_in(arm['strength']):.3g}" if arm.get("strength") is not None else "",
    ]
    return [_persona(arm), element("small", ", ".join(part for part in details if part))]


def _persona(arm: Row) -> str:
    return title_of(arm["persona"]) if arm.get("persona") else "All personas"


def _guards(arm: Row) -> Child:
    guards = mapping(arm.get("guards"))
    numbers = [
        f"{words} {plain(number_in(guards.get(key)))}{_itself(guards, key)}"
        for key, words in GUARDS.items()
        if guards.get(key) is not None
    ]
    numbers += _knowledge(mapping(guards.get("multiple_choice")))
    small = linked(element("small", ", ".join(numbers)), arm) if numbers else None
    if guards.get("passed") is True:
        return ["passed ", small]
    if guards.get("passed") is False:
        reasons = guards.get("reasons")
        listed = "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""
        told = linked(element("small", listed), arm)
        return [element("span", "out of guard", class_="guard-bad"), " ", told]
    return ["–", small]


def _itself(guards: Row, key: str) -> str:
    """The finetune's own value of a guard, in brackets."""
    own = guards.get(f"finetuned_{key}")
    return "" if own is None else f" ({plain(number_in(own))})"


def _knowledge(asked: Row) -> list[str]:
    """Multiple choice, in words: how often right, beside before and after finetuning."""
    own = estimate(asked.get("own"))
    if not own.defined:
        return []
    if asked.get("unmeasured"):
        return ["multiple choice not measured: at chance before steering"]
    before, finetuned = (plain(estimate(asked.get(k)).value) for k in ("before", "finetuned"))
    return [f"multiple choice right {in_words(own)} (before {before}; finetuned {finetuned})"]


def _whisker(value: Estimate) -> Markup | None:
    """Number and interval as a tiny dot and line on a 0-1 scale."""
    if not value.defined:
        return None
    width, height = 88, 8
    low = value.low if value.low == value.low else value.value
    high = value.high if value.high == value.high else value.value
    at = [min(max(v, 0.0), 1.0) * (width - 8) + 4 for v in (low, high, value.value)]
    middle = height / 2
    return element(
        "svg",
        element("line", x1=4, x2=84, y1=middle, y2=middle, stroke="currentColor", opacity=".25"),
        element(
            "line", x1=f"{at[0]:.1f}", x2=f"{at[1]:.1f}", y1=middle, y2=middle,
            stroke="currentColor", stroke_width=2,
        ),
        element("circle", cx=f"{at[2]:.1f}", cy=middle, r=3.2, fill="currentColor"),
        class_="whisker", width=width, height=height, viewBox=f"0 0 {width} {height}",
        aria_hidden="true",
    )  # fmt: skip
