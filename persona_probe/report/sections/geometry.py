"""Geometry: where the persona can be read, and how it lies to what finetuning changed."""

from persona_probe.report.estimates import estimate, linked, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.figures.layer_profile import FAMILIES, method_shown
from persona_probe.report.figures.projection_histogram import CONTRASTS
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Row, Run
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import layer_rows, shift_rows

AFTER = "model_diff"
SEPARATION = (
    "Persona", "What is told apart", "Layer", "AUROC", "Balanced accuracy", "d′",
    "Permutation p", "Selectivity", "Gain over surface cues", "Split-half cosine",
    "Bootstrap cone",
)  # fmt: skip


def geometry(run: Run, colours: Colours) -> Markup:
    """Layer profile, histograms, cosines to the finetuning shift, and how far it went."""
    return join(
        [
            paragraph(
                "Each layer of the network passes on a vector; a persona's direction at a layer "
                "is what tells that persona's replies from others there. The figures ask where it "
                "separates best, and whether finetuning moved the model along it."
            ),
            _separation(run, colours),
            element("h3", "How far apart do the groups lie?"),
            _histograms(run, colours),
            element("h3", "Does finetuning move the model along a direction it already held?"),
            _shift(run, colours),
            element("h3", "How far does each finetuning move the model along it?"),
            _moved(run, colours),
        ]
    )


def _separation(run: Run, colours: Colours) -> Markup:
    families = layer_rows(run)
    shown = [
        row
        for rows in families.values()
        for persona in run.personas
        for row in method_shown(rows, persona)
    ]
    finders = sorted({title_of(row.get("finder")).lower() for row in shown if row.get("finder")})
    return exhibit(
        [FIGURES["layer_profile"](rows, colours) for rows in families.values()],
        [
            "AUROC is the chance that an example of the first kind lies further along the "
            "direction than one of the second (0.5 = no better than a coin); d′ is the "
            "distance between both groups in standard deviations. Large symbols: the layer "
            "chosen for steering, on other prompts than these. The direction was found "
            "from the helpful-only model under the persona's system prompt and under a neutral "
            "one; finetuned models had no part in it.",
            f" Method: {', '.join(finders)}." if finders else None,
            source(run, "validation.json"),
        ],
        numbers_table(SEPARATION, [_separation_line(row) for row in shown]),
        width=860,
        notice=absences(run, "validation.json"),
    )


def _separation_line(row: Row) -> list[Child]:
    chosen = " (chosen)" if row.get("selected") else ""
    family = str(row.get("family"))
    return [
        title_of(row.get("persona")),
        FAMILIES.get(family, title_of(family)),
        f"{row.get('site')}{chosen}",
        *(number(estimate(row.get(k)), row) for k in ("auroc", "balanced_accuracy", "d_prime")),
        linked(plain(number_in(row.get("permutation_p")), 3), row),
        *(number(estimate(row.get(key)), row) for key in ("selectivity", "surface_gain")),
        linked(plain(number_in(row.get("split_half"))), row),
        linked(plain(number_in(row.get("cone"))), row),
    ]


def _shift(run: Run, colours: Colours) -> Markup:
    rows = {persona: shift_rows(run, persona) for persona in run.personas}
    keys = ("cosine", "whitened", "corrected", "cosine_floor", "cosine_ceiling", "shift")
    lines: list[list[Child]] = [
        [
            title_of(persona),
            f"{row.get('site')}{' (chosen)' if row.get('selected') else ''}",
            *(number(estimate(row.get(key)), row) for key in keys),
        ]
        for persona, own in rows.items()
        for row in own
    ]
    head = (
        "Persona", "Layer", "Cosine", "Whitened", "Corrected for noise", "Floor: placebo",
        "Ceiling: second seed", "Shift along it, standard deviations",
    )  # fmt: skip
    return exhibit(
        [FIGURES["shift_cosine"](own, colours) for own in rows.values() if own],
        [
            "The direction was found inside the helpful-only model; the shift is the mean change "
            "of its activations, on the same text, when it is finetuned. A cosine of 1 means the "
            "same direction, 0 unrelated; grey is what arises when before and after are swapped "
            "at random. Finetuning on harmless replies (placebo) shows what finetuning of any "
            "sort brings; a second training run shows how close two equal things come.",
            source(run, "comparison.json"),
        ],
        numbers_table(head, lines),
        neutral_key=True,
        notice=absences(run, "comparison.json"),
    )


def _histograms(run: Run, colours: Colours) -> Markup:
    rows = run.rows("landscape.json", "projections")
    panels = [
        [r for r in rows if r.get("direction") == persona and r.get("contrast") == contrast]
        for contrast in CONTRASTS
        for persona in run.personas
    ]
    lines: list[list[Child]] = [
        [
            title_of(row.get("direction")),
            CONTRASTS.get(str(row.get("contrast")), ""),
            str(row.get("arm")),
            number(estimate(row.get("mean")), row),
        ]
        for row in rows
    ]
    return exhibit(
        [FIGURES["projection_histogram"](own, colours) for own in panels if own],
        [
            "Held-out examples along each persona’s direction at the layer that steers; −0.5 and "
            "+0.5 are the means of the two groups that the direction was found between. First the "
            "helpful-only model told to be the persona, and told nothing; then the models before "
            "and after finetuning, on the same text. Marks above: the means, with 95 % intervals.",
            source(run, "landscape.json"),
        ],
        numbers_table(("Direction", "What is told apart", "Model", "Mean, class gaps"), lines),
        neutral_key=True,
        notice=absences(run, "landscape.json"),
    )


def _moved(run: Run, colours: Colours) -> Markup:
    rows = [r for r in run.rows("landscape.json", "projections") if r.get("contrast") == AFTER]
    panels = [[row for row in rows if row.get("direction") == name] for name in run.personas]
    lines: list[list[Child]] = [
        [
            title_of(row.get("direction")),
            str(row.get("arm")),
            number(estimate(row.get("shift")), row),
            linked(plain(number_in(row.get("shift_null_95"))), row),
        ]
        for row in rows
        if "shift" in row
    ]
    return exhibit(
        [FIGURES["projection_shift"](own, colours) for own in panels if own],
        [
            "One panel per direction, one line per finetuned model. The grey dots are the "
            "helpful-only model, where all of them started; marks of one line are finetuning "
            "seeds. If the direction is the persona’s own, its own finetunes (bold) go furthest; "
            "if others go as far, it is shared. Grey: what remains when before and after are "
            "swapped at random.",
            source(run, "landscape.json"),
        ],
        numbers_table(("Direction", "Model", "Moved, class gaps", "By chance, 95 %"), lines),
        neutral_key=True,
        notice=absences(run, "landscape.json"),
    )
