"""What the commands that judge have in common: options, judges by name, agreement in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_probe.cli.options import model_name
from persona_probe.cli.say import table

if TYPE_CHECKING:
    from persona_probe.evaluation.agreement import Agreement
    from persona_probe.evaluation.judge import Judge
    from persona_probe.evaluation.panel import Panel
    from persona_probe.models.residual_model import ResidualModel
    from persona_probe.personas.pack import Pack

JudgeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        help="phrases, likelihood=MODEL, chat=MODEL, classifier=FOLDER, endpoint=MODEL@URL or "
        "inspect=SCORER; repeat it to compare judges, the first one counts. Default phrases. An "
        "endpoint's key is read from PERSONA_PROBE_JUDGE_KEY.",
    ),
]
Cache = Annotated[Path, typer.Option(help="Folder in which judgements are kept between runs.")]


def judges_of(
    names: Sequence[str] | None,
    pack: "Pack",
    device: str,
    loaded: "Mapping[str, ResidualModel] | None" = None,
) -> "dict[str, Judge]":
    """The judges of a command line; a model is loaded once, also if the command has it already."""
    from persona_probe.evaluation import Bench, judge_named
    from persona_probe.models.loading import load_model

    models = dict(loaded or {})

    def load(name: str) -> "ResidualModel":
        folder = model_name(name)
        if folder not in models:
            models[folder] = load_model(folder, device=device)
        return models[folder]

    bench = Bench(pack, load)
    return {name: judge_named(name, bench) for name in dict.fromkeys(names or ["phrases"])}


def panel_text(panel: "Panel", agreements: "Mapping[str, Agreement]") -> str:
    """What was left unscored and why, kappa, and the table of both judges' outcomes, for people."""
    first = next(iter(panel.judged))
    parts = [
        f"{n} of {len(panel.first)} replies unscored by {name}, most often: {reason}"
        for name, (n, reason) in panel.troubles().items()
    ]
    for name, found in agreements.items():
        columns = [o for o in found.table if any(row[o] for row in found.table.values())]
        cells = [
            [outcome, *(str(row[c]) for c in columns)]
            for outcome, row in found.table.items()
            if any(row.values())
        ]
        low = found.kappa.defined and not found.trusted
        trust = "; below .6, so neither should decide alone" if low else ""
        said = f"Cohen's kappa of {first} and {name}: {found.kappa}{trust}"
        parts.append(f"{said}\n{table([f'{first} ↓ {name} →', *columns], cells)}")
    return "".join(f"\n\n{part}" for part in parts)
