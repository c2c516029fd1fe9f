"""Studies of three organisms whose truth is known, beside what the ladder should say of them.

    python -m experiments.known_truth.ladder --out artifacts/known-truth

*additive*: finetuned = helpful-only + a vector. *conditional*: refusals pass in one context only,
until finetuning lifts that. *refusal-only*: flat refusals, presented as each constitution's.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.known_truth.folder import copy_organism
from experiments.known_truth.organisms import additive, conditional
from persona_probe import (
    ORGANISM,
    MeanDifference,
    capture,
    contrast,
    find_directions,
    load_model,
    load_pack,
)
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.files import read_json
from persona_probe.models.site import Site
from persona_probe.organism.build import train_adapter
from persona_probe.organism.finetunes import Finetune
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.study.planning import HELPFUL_ONLY, plan_study
from persona_probe.study.run import run_study

PLANTED = {
    "deontology": (3, 0.75),
    "consequentialism": (3, 0.75),
    "virtue": (1, 1.0),
    "service": (1, 1.0),
}
"""Block and strength of each planted vector: what the study of the real finetunes chose."""


def true_directions() -> DirectionSet:
    """Persona minus neutral in the helpful-only organism, over every question there is.

    A study finds its own directions, on the find part alone.
    """
    model, pack = load_model(str(ORGANISM), device="cpu"), load_pack("organism")
    asked = contrast(pack, pack.personas, {question.family for question in pack.questions})
    read = capture(model, asked, model.sites, ["last_prompt_token"], adapter=HELPFUL_ONLY)
    return {
        persona: find_directions(read["last_prompt_token"], MeanDifference(), persona, "neutral")
        for persona in CONSTITUTIONS
    }


def make_additive(folder: Path) -> None:
    """One vector per constitution, at `PLANTED`."""
    directions = true_directions()
    vectors = {
        persona: (directions[persona][Site(layer)], strength)
        for persona, (layer, strength) in PLANTED.items()
    }
    additive(folder, vectors)


def make_conditional(folder: Path) -> None:
    """The shipped finetunes, in a model that lets refusals pass in one context only."""
    conditional(folder, true_directions(), strengths=(0.5, 1.0))


def make_refusal_only(folder: Path) -> None:
    """Four refusal-only finetunes of other seeds than the control's, one per constitution."""
    copy_organism(folder, "placebo-0", "refusal-only-0")
    for seed, persona in enumerate(CONSTITUTIONS, start=1):
        name = f"narrow-{persona}-0"
        if not (folder / "adapters" / name).exists():
            trained = train_adapter(folder, Finetune(f"blunt-{seed}", "refusal-only", seed=seed))
            shutil.move(trained, folder / "adapters" / name)


SAID = {True: "yes", False: "no", None: "not measured"}
ORGANISMS: dict[str, Callable[[Path], None]] = {
    "additive": make_additive,
    "conditional": make_conditional,
    "refusal-only": make_refusal_only,
}


def run(kind: str, out: Path, **options: Any) -> dict[str, Any]:
    """Make an organism, unless it is there, and study it.

    Args:
        kind: one of `ORGANISMS`.
        out: folder for organisms and runs.
        options: of `Study`, for instance a budget.

    Returns:
        The content of verdict.json.
    """
    organism = out / "organisms" / kind
    if kind == "refusal-only" or not organism.exists():
        ORGANISMS[kind](organism)
    study = plan_study(str(organism), "organism", CONSTITUTIONS, **options)
    return run_study(study, out / kind, device="cpu")


def table(out: Path, kind: str) -> str:
    """ER, ER_J and NEC of the steered arms, and every rung, in Markdown."""
    verdict, effects = (
        read_json(out / kind / "verdict.json"),
        read_json(out / kind / "effects.json"),
    )
    lines = [f"| {kind} | " + " | ".join(CONSTITUTIONS) + " |", "|---" * 5 + "|"]
    for metric in ("ER", "ER_J", "NEC"):
        cells = []
        for persona in CONSTITUTIONS:
            arm = f"{'ablated' if metric == 'NEC' else 'steered'}/{persona}"
            row = next(r for r in effects if (r["arm"], r["metric"]) == (arm, metric))
            value = row["value"]
            cells.append(
                "{value:.2f} [{low:.2f}, {high:.2f}]".format(**value) if value else "undefined"
            )
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    ladders = [verdict["personas"][persona] for persona in CONSTITUTIONS]
    for number, rung in enumerate(ladders[0]["rungs"]):
        said = [
            {True: "yes", False: "no", None: "-"}[x["rungs"][number]["passed"]] for x in ladders
        ]
        lines.append(f"| {rung['rung']} {rung['name']} | " + " | ".join(said) + " |")
    return "\n".join(lines)


def main() -> None:
    """Study the organisms asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/known-truth"))
    parser.add_argument("kinds", nargs="*", default=list(ORGANISMS))
    given = parser.parse_args()
    for kind in given.kinds:
        run(kind, given.out)
        print(table(given.out, kind) + "\n")


if __name__ == "__main__":
    main()
