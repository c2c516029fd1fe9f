"""Geometry: where the persona can be read, and how it lies to what finetuning changed."""

from persona_probe.report.estimates import estimate, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.figures.layer_profile import method_shown
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Run, mapping
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import cosine_rows, shift_rows


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
    rows = run.rows("validation.json")
    shown = {persona: method_shown(rows, persona) for persona in run.personas}
    methods = {(r.get("finder"), r.get("family")) for own in shown.values() for r in own}
    named = "; ".join(sorted(f"{title_of(f)}, {title_of(m)}" for f, m in methods if f))
    lines: list[list[Child]] = [
        [
            title_of(persona),
            f"{row.get('site')}{' (chosen)' if row.get('selected') else ''}",
            number(estimate(row.get("auroc"))),
            number(estimate(row.get("balanced_accuracy"))),
            plain(number_in(row.get("d_prime"))),
            plain(number_in(row.get("permutation_p")), 3),
            plain(number_in(row.get("selectivity"))),
            plain(number_in(row.get("surface_gain"))),
            plain(number_in(row.get("split_half"))),
            plain(number_in(row.get("cone"))),
        ]
        for persona, own in shown.items()
        for row in own
    ]
    head = (
        "Persona", "Layer", "AUROC", "Balanced accuracy", "d′", "Permutation p", "Selectivity",
        "Gain over surface cues", "Split-half cosine", "Bootstrap cone",
    )  # fmt: skip
    return join(
        [
            absences(run, "validation.json"),
            exhibit(
                [FIGURES["layer_profile"](rows, colours)] if rows else [],
                [
                    "AUROC is the chance that a reply of the persona lies further along the "
                    "direction than one without it (0.5 = no better than a coin); d′ is the "
                    "distance between both groups in standard deviations. Large dots: the layer "
                    "chosen for steering, on other prompts than these.",
                    f" Direction: {named}." if named else None,
                    source("validation.json"),
                ],
                numbers_table(head, lines),
                width=860,
            ),
        ]
    )


def _shift(run: Run, colours: Colours) -> Markup:
    rows = {persona: shift_rows(run, persona) for persona in run.personas}
    lines: list[list[Child]] = [
        [
            title_of(persona),
            str(row.get("site")),
            *(
                number(estimate(row.get(key)))
                for key in ("cosine_model_diff", "cosine_floor", "cosine_ceiling")
            ),
            number(estimate(row.get("projection_shift"))),
        ]
        for persona, own in rows.items()
        for row in own
    ]
    head = (
        "Persona", "Layer", "Cosine", "Floor: placebo", "Ceiling: second seed",
        "Shift along it, standard deviations",
    )  # fmt: skip
    return join(
        [
            absences(run, "comparison.json"),
            exhibit(
                [FIGURES["shift_cosine"](own, colours) for own in rows.values() if own],
                [
                    "The direction was found inside the helpful-only model; the shift is the mean "
                    "change of its activations, on the same tokens, when it is finetuned. A cosine "
                    "of 1 means the same direction, 0 unrelated. Finetuning on harmless replies "
                    "(placebo) shows what finetuning of any sort brings; a second training run "
                    "shows how close two equal things come.",
                    source("comparison.json"),
                ],
                numbers_table(head, lines),
                neutral_key=True,
            ),
        ]
    )


def _cosines(run: Run, colours: Colours) -> Markup:
    rows = cosine_rows(run)
    energy = mapping(mapping(run.documents.get("comparison.json")).get("shared_energy"))
    shares = [[title_of(name), number(estimate(share))] for name, share in energy.items()]
    return join(
        [
            absences(run, "comparison.json") if not rows else None,
            exhibit(
                [FIGURES["persona_cosines"](rows, colours)] if rows else [],
                [
                    'Personas that are all "not indifferent" share much of their length. Only '
                    "what is left after the common part is taken away can tell them apart.",
                    source("comparison.json"),
                ],
                numbers_table(("Persona", "Share of squared length common to all"), shares),
                width=620,
            ),
        ]
    )
