"""Studies of three organisms whose truth is known, beside what the ladder should say of them.

    python -m experiments.known_truth.ladder additive virtue

*additive*: finetuned = helpful-only + a vector, planted where the study of that finetune steers.
*conditional*: refusals pass in one context only, until finetuning lifts that. *refusal-only*: flat
refusals, presented as each constitution's.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

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
from persona_probe.statistics import Estimate
from persona_probe.study.budget import Budget
from persona_probe.study.plan import Study
from persona_probe.study.planning import HELPFUL_ONLY, name_models
from persona_probe.study.run import run_study
from persona_probe.study.stages import load_choices

Places = dict[str, tuple[int, float]]  # persona → block and strength
PLANTED: Places = {
    "deontology": (3, 0.75),
    "consequentialism": (3, 0.75),
    "virtue": (1, 1.0),
    "service": (1, 1.0),
}
"""Where vectors are planted at first: what the study of the real finetunes chose."""
ROUNDS = 5


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


def make_additive(folder: Path, planted: Places | None = None) -> None:
    """One vector per constitution, at `PLANTED` if not told where."""
    directions = true_directions()
    vectors = {
        persona: (directions[persona][Site(layer)], strength)
        for persona, (layer, strength) in (planted or PLANTED).items()
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


BUDGET = Budget(
    harmful=80,
    trained=24,
    benign=30,
    borderline=20,
    band=30,
    sampled=0,
    items=80,
    random_generated=2,
    random_ablated=2,
    random_fast=199,
    random_dose=0,
    select_harmful=40,
    select_benign=24,
    select_borderline=16,
    kl_replies=16,
    shift_harmful=60,
    shift_trained=16,
    shift_benign=30,
    resamples=1000,
    permutations=199,
)
ARMS = ("parts", "sign_flip", "wrong", "random", "covariance", "shuffled", "ablation")
SMALL = {"budget": BUDGET, "arms": ARMS}
WITH_PROFILES = {"budget": replace(BUDGET, items=240), "arms": (*ARMS, "system_prompt")}
"""For flat refusals, which the profile tells from a persona. Whether its dimensions hold together
is seen over models that differ in it: none of these finetunes does, constitutions in words do."""
CONTROL_FINETUNES = ("placebo=placebo-0", "refusal-only=refusal-only-0")


def run(kind: str, personas: Sequence[str], out: Path, default: bool = False) -> Path:
    """Make an organism, unless it is there, and study it.

    Args:
        kind: one of `ORGANISMS`.
        personas: whose finetunes are presented.
        out: folder for organisms and runs.
        default: with the budget and the arms of a study nobody configured, not the smaller ones.

    Returns:
        The run folder.
    """
    if kind == "additive":
        study, folder = settled(personas, out, default)
    else:
        organism = out / "organisms" / kind
        if kind == "refusal-only" or not organism.exists():
            ORGANISMS[kind](organism)
        study = study_of(organism, kind, personas, default)
        folder = out / "-".join((kind, *personas))
    run_study(study, folder, device="cpu")
    return folder


def study_of(organism: Path, kind: str, personas: Sequence[str], default: bool) -> Study:
    """The study of one organism's finetunes."""
    small = WITH_PROFILES if kind == "refusal-only" else SMALL
    return name_models(
        str(organism),
        "organism",
        CONSTITUTIONS,
        HELPFUL_ONLY if kind == "refusal-only" else None,
        [f"{persona}=narrow-{persona}-0" for persona in personas],
        CONTROL_FINETUNES,
        **({} if default else small),
    )


def settled(personas: Sequence[str], out: Path, default: bool) -> tuple[Study, Path]:
    """The additive organism whose vectors stand where the study of it steers, and that study.

    A vector elsewhere is a finetune that the study's own choice of site does not look for. What is
    chosen depends on the finetune through its side effects, which are the yardstick of a
    candidate's; so vectors are planted anew where the last round's study steers, until it steers
    where they are. Only the find and the select part are read for that.
    """
    planted = PLANTED
    for number in range(ROUNDS):
        name = "-".join(("additive", str(number), *personas))
        organism, folder = out / "organisms" / name, out / name
        if not organism.exists():
            make_additive(organism, planted)
        study = study_of(organism, "additive", personas, default)
        run_study(study, folder, device="cpu", stop="select")
        chosen = {
            p: (choice.site.layer, choice.strength) for p, choice in load_choices(folder).items()
        }
        print(f"round {number}: planted {planted}, chosen {chosen}")
        if all(planted[persona] == chosen[persona] for persona in personas):
            return study, folder
        planted = planted | chosen
    raise RuntimeError(f"the choice of {personas} has not settled in {ROUNDS} rounds")


def table(folder: Path) -> str:
    """ER, ER_J and NEC, and every rung, in Markdown."""
    ladders = read_json(folder / "verdict.json")["personas"]
    effects = read_json(folder / "effects.json")
    lines = ["| | " + " | ".join(ladders) + " |", "|---" * (1 + len(ladders)) + "|"]
    for metric, arm in (("ER", "steered/{}"), ("ER_J", "steered/{}"), ("NEC", "ablated/{}/0")):
        cells = []
        for persona in ladders:
            name = arm.format(persona)
            row = next(r for r in effects if (r["arm"], r["metric"]) == (name, metric))
            found = Estimate.from_json(row["value"]) if row["value"] else row["why_undefined"]
            cells.append(str(found))
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    for place, rung in enumerate(next(iter(ladders.values()))["rungs"]):
        said = [SAID[ladder["rungs"][place]["passed"]] for ladder in ladders.values()]
        lines.append(f"| {rung['rung']} {rung['name']} | " + " | ".join(said) + " |")
    return "\n".join(lines)


def main() -> None:
    """Study one organism and print its table and the evidence of every rung."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/known-truth"))
    parser.add_argument("--default", action="store_true", help="budget and arms of a plain study")
    parser.add_argument("kind", choices=list(ORGANISMS))
    parser.add_argument("personas", nargs="+", choices=CONSTITUTIONS)
    given = parser.parse_args()
    folder = run(given.kind, given.personas, given.out, given.default)
    print(table(folder))
    for persona, ladder in read_json(folder / "verdict.json")["personas"].items():
        for rung in ladder["rungs"]:
            print(f"{persona} {rung['rung']}: {rung['evidence']}")


if __name__ == "__main__":
    main()
