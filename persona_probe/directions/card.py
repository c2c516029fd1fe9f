"""The card of a folder of directions: what they are, how they were found, how to use them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from persona_probe.directions.direction import Direction
from persona_probe.models.site import Site

if TYPE_CHECKING:
    from persona_probe.directions.checks.validation_row import Validation

MARK = "<!-- persona_probe: card of directions, written by the package -->"
BySite = Mapping[Site, Direction]

FAMILIES = {
    "prompt_in_H": "the model under a character's system line, minus the same questions under a "
    "neutral one",
    "resp_in_H": "the model before finetuning reading finetuned replies, minus reading its own",
    "behav_in_F": "the finetuned model's aligned replies, minus its other ones",
    "model_diff": "the finetuned model minus the model before it, on the same tokens",
}

# Used as it stands: tests run it.
USE = """```python
from safetensors import safe_open

with safe_open("{persona}.safetensors", framework="pt") as file:
    vector = file.get_tensor("site_{layer}")  # float32, in residual units

def add(module, inputs, output):
    hidden = output[0] if isinstance(output, tuple) else output
    hidden = hidden + vector.to(hidden)
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

handle = model.get_submodule("model.layers")[{layer}].register_forward_hook(add)
```"""


def is_card(text: str) -> bool:
    """Whether a README was written here, and may be written again."""
    return MARK in text


def card(directions: Mapping[str, BySite], validations: Iterable["Validation"] = ()) -> str:
    """Markdown with the hub's front matter.

    Args:
        directions: persona → site → direction.
        validations: numbers to show, each with its n.
    """
    first = next((d for by_site in directions.values() for d in by_site.values()), None)
    if first is None:
        return f"{MARK}\n\n# Persona directions\n\nNo directions yet.\n"
    parts = [
        _front_matter(first),
        f"{MARK}\n\n# Persona directions",
        _what(first, directions),
        _files(directions),
        _numbers(list(validations)),
        _how_to_use(first),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(direction: Direction) -> str:
    lines = ["library_name: persona_probe", "tags:", "- steering-vector", "- interpretability"]
    if direction.licence:
        lines.insert(0, f"license: {_one_line(direction.licence).lower()}")
    return "\n".join(["---", *lines, "---"])


def _what(direction: Direction, directions: Mapping[str, BySite]) -> str:
    told = direction.provenance
    contrast = FAMILIES.get(direction.family, "the contrast of its two classes")
    finders = sorted({d.finder for by_site in directions.values() for d in by_site.values()})
    model = told.model or "not recorded"
    if told.adapter:
        model += f", adapter {told.adapter}"
    facts = {
        "model": f"{model} (weights {told.model_hash or 'not recorded'})",
        "chat template": told.chat_template_hash or "not recorded",
        "thinking mode": "the template's default" if told.thinking is None else str(told.thinking),
        "tokenizer": told.tokenizer_hash or "not recorded",
        "contrast": f"`{direction.family}`: {contrast}",
        "finder": ", ".join(finders),
        "read at": f"`{direction.position}`",
        "split": direction.split_hash or "not recorded",
        "licence": direction.licence
        or "not stated; that of the model applies to what is made from it",
    }
    return "\n".join(f"- {name}: {_one_line(fact)}" for name, fact in facts.items())


def _files(directions: Mapping[str, BySite]) -> str:
    head = (
        "| file | positive | negative | sites | examples | families | gap | residual norm |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(_file(persona, d) for persona, d in directions.items())])


def _file(persona: str, by_site: BySite) -> str:
    several = [by_site[site] for site in sorted(by_site)]
    first = several[0]
    known = first.n_positive is not None and first.n_negative is not None
    cells = [
        f"`{persona}.safetensors`",
        first.positive_label,
        first.negative_label,
        _span([str(d.site.layer) for d in several]),
        f"{first.n_positive} + {first.n_negative}" if known else "not recorded",
        str(len(first.families_used - first.families_selected)),
        _range([d.gap for d in several]),
        _range([d.norm for d in several]),
    ]
    return _row(cells)


def _row(cells: list[str]) -> str:
    """A line of a table, whatever a label or a model may be called."""
    return f"| {' | '.join(_one_line(cell).replace('|', '/') for cell in cells)} |"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _span(values: list[str]) -> str:
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]} ({len(values)})"


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    if low != low:
        return "not measured"
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _numbers(validations: list["Validation"]) -> str:
    """Held-out numbers at every site; nothing where nothing was measured."""
    if not validations:
        return ""
    lines = [
        "On prompt families that were used neither to find nor to select (95 % intervals over "
        "families; p by permutation, largest of all sites; null: 97.5 % of directions found on "
        "balanced shuffles):",
        "",
        "| direction | layer | AUROC | n | families | p | null | split-half | doubts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for validation in validations:
        for row in validation.rows:
            area, chance, steady = row.auroc, row.chance, row.reliability
            cells = [
                validation.persona,
                str(row.site.layer),
                f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]",
                str(area.n),
                str(area.n_clusters),
                f"{row.p_over_sites:.4f}",
                "" if chance is None or not chance.auroc.defined else f"{chance.auroc.high:.3f}",
                "" if steady is None else f"{steady.spearman_brown:.2f}",
                ", ".join(row.flags),
            ]
            lines.append(_row(cells))
    return "\n".join(lines)


def _how_to_use(direction: Direction) -> str:
    snippet = USE.replace("{persona}", direction.persona).replace(
        "{layer}", str(direction.site.layer)
    )
    return (
        "Tensor `site_l` belongs to the residual stream after block l, counted from 0, before any "
        "final norm. Added once, it moves the mean of the negative class onto that of the positive "
        "class along the direction. With PyTorch and transformers alone:\n\n"
        f"{snippet}\n\n"
        "The metadata key `persona_probe` of each file is JSON: gaps, midpoints, norms, split, "
        "prompt families, provenance."
    )
