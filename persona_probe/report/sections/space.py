"""Where the models lie beside each other: persona space, and every pair of shifts."""

from persona_probe.report.anchors import bare
from persona_probe.report.estimates import estimate, linked, number, number_in, plain
from persona_probe.report.exhibit import exhibit, numbers_table
from persona_probe.report.figures import FIGURES
from persona_probe.report.markup import Child, Markup, element, join, paragraph
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Run, mapping
from persona_probe.report.sections.source import absences, source
from persona_probe.report.tables import cosine_rows, usual_layer


def space(run: Run, colours: Colours) -> Markup:
    """Points, cosines between finetunes, cosines between directions."""
    return join(
        [
            paragraph(
                "Finetuning moves the activations of the model, and so does telling it in words "
                "who it is. If finetuning selects a character that was there before, both should "
                "move it the same way: seeds of one constitution together, constitutions apart."
            ),
            _points(run, colours),
            element("h3", "How alike are two finetunes?"),
            _finetunes(run, colours),
            element("h3", "How alike are the personas’ directions?"),
            _directions(run, colours),
        ]
    )


def _points(run: Run, colours: Colours) -> Markup:
    rows = [*run.rows("landscape.json", "points"), *run.rows("landscape.json", "axes")]
    lines: list[list[Child]] = [
        [
            str(row.get("arm")),
            *(number(estimate(row.get(key)), row, 1) for key in ("pc1", "pc2", "pc3")),
            linked(plain(number_in(row.get("noise")), 1), row),
        ]
        for row in rows
        if "pc1" in row
    ]
    head = ("Model", "Component 1", "Component 2", "Component 3", "By chance, 95 %")
    return exhibit(
        [FIGURES["persona_space"](rows, colours)] if lines else [],
        [
            "Each mark is a model: how far, on average, it lies from the helpful-only model (the "
            "grey dot) along the two directions in which the models differ most, in units of the "
            "residual stream. Finetunes were read on held-out safety requests, system prompts on "
            "held-out persona questions. Grey discs are the size of displacement that chance "
            "alone gives. Components are those of these very displacements: a picture, not a "
            "test.",
            source(run, "landscape.json"),
        ],
        numbers_table(head, lines),
        width=760,
        notice=absences(run, "landscape.json"),
    )


def _finetunes(run: Run, colours: Colours) -> Markup:
    rows = run.rows("landscape.json", "cosines")
    lines: list[list[Child]] = [
        [
            f"{row.get('a')} × {row.get('b')}",
            str(row.get("role") or "–"),
            number(estimate(row.get("cosine")), row),
            number(estimate(row.get("debiased")), row),
            linked(plain(number_in(row.get("null_95"))), row),
        ]
        for row in rows
    ]
    head = ("Pair", "Role", "Cosine", "Without shared noise", "Swapped at random, 95 %")
    return exhibit(
        [FIGURES["cosine_map"](rows, colours)] if rows else [],
        [
            "Cosine between the mean changes that two finetunes brought about on the same text, "
            "and between each persona’s direction from before finetuning and those changes: blue "
            "opposed, orange alike. A second seed of the same training is as alike as it gets "
            "(ceiling); training on harmless replies shows what any training has in common "
            "(floor). Swapping before and after at random in half of the prompts keeps only "
            "noise, whose direction may itself be alike: it is a strict bound.",
            source(run, "landscape.json"),
        ],
        numbers_table(head, lines),
        width=820,
        notice=absences(run, "landscape.json"),
    )


def _directions(run: Run, colours: Colours) -> Markup:
    rows, layer = cosine_rows(run), usual_layer(run)
    energy = mapping(mapping(run.documents.get("comparison.json")).get("energy"))
    shares_at = mapping(energy.get(str(layer)))
    shares: list[list[Child]] = [
        [title_of(name), str(layer), number(estimate(share), shares_at)]
        for name, share in bare(shares_at).items()
    ]
    pairs: list[list[Child]] = [
        [f"{title_of(row['a'])} × {title_of(row['b'])}", str(layer),
         number(estimate(row["cosine"]), row)]
        for row in rows
        if str(row["a"]) < str(row["b"])
    ]  # fmt: skip
    return exhibit(
        [FIGURES["cosine_map"](rows, colours)] if rows else [],
        [
            "Personas that are all “not indifferent to harm” share much of their direction. Only "
            "what is left after the common part is taken away can tell them apart; the second "
            "table gives its share of the squared length.",
            source(run, "comparison.json"),
        ],
        join(
            [
                numbers_table(("Pair", "Layer", "Cosine"), pairs),
                numbers_table(("Persona", "Layer", "Own share of the squared length"), shares),
            ]
        ),
        width=620,
        notice=absences(run, "comparison.json"),
    )
