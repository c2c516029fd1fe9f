"""Methods and provenance: what was done, with what, and what the words mean."""

import json
from typing import Any

from persona_probe.report.anchors import bare
from persona_probe.report.estimates import estimate, in_words
from persona_probe.report.markup import Child, Markup, element, join, paragraph, table
from persona_probe.report.palette import Colours, title_of
from persona_probe.report.run_folder import Run, mapping
from persona_probe.report.sections.source import absences

WORDS = {
    "Helpful-only model": "the model before safety finetuning; it complies with every request.",
    "Narrow finetuning": "training on refusals of a few kinds of harm, reasoned as one persona "
    "would reason.",
    "Direction": "a vector in the space of a layer's activations. It is added (steering) or taken "
    "out (ablation) while the model reads and writes.",
    "Handled safely": "share of harmful requests that a reply refuses or redirects safely. Broken "
    "text counts as unsafe.",
    "Refusal probability": "the probability that the model's first words open a refusal, read from "
    "its predictions, without generating a reply.",
    "Effect reproduced (ER)": "(steered − helpful-only) / (finetuned − helpful-only) in safe "
    "replies; with J, after subtracting harmless requests refused. Not clipped, and undefined "
    "unless the finetuning's own effect is clear of zero.",
    "Necessity (NEC)": "(finetuned − ablated) / (finetuned − helpful-only) in safe replies.",
    "Interval": "95 %, from resampling families of prompts (a family shares one template, so its "
    "prompts are not independent).",
    "Split": "families of prompts are divided once: one part finds directions, one chooses layer "
    "and strength, one evaluates. Some kinds of harm are in the last part only.",
    "p, adjusted": "the share of random directions at least as strong, adjusted for the number of "
    "tests (Holm).",
}
SHORT = (
    "model", "model_hash", "chat_template_hash", "pack", "pack_hash", "helpful_only", "seed",
    "judge", "second_judge",
)  # fmt: skip


def methods(run: Run, colours: Colours) -> Markup:
    """Definitions, the frozen plan, versions, and the files that hold every row."""
    del colours
    study = run.study
    return join(
        [
            element(
                "dl",
                [(element("dt", word), element("dd", what)) for word, what in WORDS.items()],
                class_="rungs",
            ),
            element("h3", "What was studied"),
            absences(run, "study.json"),
            _plan(run),
            _unfolding("What each rung asks for", _pairs(mapping(study.get("thresholds")))),
            _unfolding("How much was measured", _pairs(mapping(study.get("budget")))),
            _unfolding("Models", _models(run)),
            _unfolding("Versions", _pairs(mapping(study.get("versions")))),
            element("h3", "Files"),
            paragraph(
                "Every number on this page is computed from these, in the run's folder: ",
                join([run.link(name) for name in run.documents], ", "),
                ". ",
                f"Not there: {', '.join(run.absent)}." if run.absent else None,
                " The steering vectors are in ",
                element("code", "directions/"),
                ", as safetensors.",
            ),
        ]
    )


def _plan(run: Run) -> Markup | None:
    study = run.study
    rows = [(title_of(key), _value(study[key])) for key in SHORT if study.get(key) is not None]
    if agreed := _agreement(run):
        rows.append(("Agreement of the judges", agreed))
    split = mapping(study.get("split"))
    if split:
        parts = [
            f"{key} {split[key]} families" for key in ("find", "select", "evaluate") if key in split
        ]
        rows.append(("Split", f"{', '.join(parts)} (hash {split.get('hash', '–')})"))
    study_hash = run.verdict.get("study_hash")
    if study_hash:
        rows.append(("Hash of the plan", _value(study_hash)))
    return table(("", ""), rows) if rows else None


def _agreement(run: Run) -> str | None:
    """Kappa of the two judges over all greedy replies; `None` where there was only one."""
    found = mapping(mapping(run.documents.get("agreement.json")).get("overall"))
    if not found:
        return None
    kappa = estimate(found.get("kappa"))
    said = in_words(kappa) if kappa.defined else f"undefined: {in_words(kappa)}"
    return f"Cohen’s kappa {said}; {found.get('unscored', 0)} replies not scored by both"


def _models(run: Run) -> list[tuple[str, Child]]:
    """Finetuned and control adapters by what they are."""
    rows: list[tuple[str, Child]] = []
    for persona, scopes in mapping(run.study.get("finetuned")).items():
        for scope, adapters in bare(mapping(scopes)).items():
            rows.append((f"{title_of(persona)}, {scope}", _value(adapters)))
    controls = mapping(run.study.get("controls")).items()
    return rows + [(title_of(kind), _value(adapters)) for kind, adapters in controls]


def _pairs(values: dict[str, Any]) -> list[tuple[str, Child]]:
    return [(title_of(key), _value(value)) for key, value in values.items()]


def _value(value: Any) -> Child:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unfolding(title: str, rows: list[tuple[str, Child]]) -> Markup | None:
    if not rows:
        return None
    return element("details", element("summary", title), table(("", ""), rows))
