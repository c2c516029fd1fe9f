"""Geometry: where the persona can be read, and how it lies to what finetuning changed."""

from persona_probe.report.estimates import estimate, in_words, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.figures.layer_profile import FAMILIES, method_shown
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Row, Run, mapping
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import cosine_rows, layer_rows, shift_rows, usual_layer

SEPARATION = (
    "Persona", "What is told apart", "Layer", "AUROC", "Balanced accuracy", "d′",
    "Permutation p", "Selectivity", "Gain over surface cues", "Split-half cosine",
    "Bootstrap cone",
)  # fmt: skip


def geometry(run: Run, colours: Colours) -> Markup:
    """Layer profile, cosines to the finetuning shift, cosines between personas."""
    return join(
        [
            paragraph(
                "Each layer of the network passes on a vector; a persona's direction at a layer "
                "is what tells that persona's replies from others there. The figures ask where it "
                "separates best, whether finetuning moved the model along it, and how much of it "
                "the personas share."
            ),
            _separation(run, colours),
            element("h3", "Does finetuning move the model along a direction it already held?"),
            _shift(run, colours),
            element("h3", "How alike are the personas?"),
            _cosines(run, colours),
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
            source("validation.json"),
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
        *(number(estimate(row.get(key))) for key in ("auroc", "balanced_accuracy", "d_prime")),
        plain(number_in(row.get("permutation_p")), 3),
        *(in_words(estimate(row.get(key))) for key in ("selectivity", "surface_gain")),
        plain(number_in(row.get("split_half"))),
        plain(number_in(row.get("cone"))),
    ]


def _shift(run: Run, colours: Colours) -> Markup:
    rows = {persona: shift_rows(run, persona) for persona in run.personas}
    keys = ("cosine", "whitened", "corrected", "cosine_floor", "cosine_ceiling", "shift")
    lines: list[list[Child]] = [
        [
            title_of(persona),
            f"{row.get('site')}{' (chosen)' if row.get('selected') else ''}",
            *(number(estimate(row.get(key))) for key in keys),
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
            source("comparison.json"),
        ],
        numbers_table(head, lines),
        neutral_key=True,
        notice=absences(run, "comparison.json"),
    )


def _cosines(run: Run, colours: Colours) -> Markup:
    rows, layer = cosine_rows(run), usual_layer(run)
    energy = mapping(mapping(run.documents.get("comparison.json")).get("energy"))
    shares = [
        [title_of(name), str(layer), number(estimate(share))]
        for name, share in mapping(energy.get(str(layer))).items()
    ]
    return exhibit(
        [FIGURES["persona_cosines"](rows, colours)] if rows else [],
        [
            "Personas that are all “not indifferent to harm” share much of their direction. Only "
            "what is left after the common part is taken away can tell them apart; the table "
            "gives its share of the squared length.",
            source("comparison.json"),
        ],
        numbers_table(("Persona", "Layer", "Own share of the squared length"), shares),
        width=620,
        notice=absences(run, "comparison.json"),
    )
