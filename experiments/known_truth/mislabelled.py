"""How often is a direction called causal that has nothing to do with a finetune that does refuse?

    python -m experiments.known_truth.mislabelled --out artifacts/mislabelled

A hundred studies of real narrow finetunes, eight or nine of each, every one with a split, random
directions and sampling of its own. In each, the direction was found under wrong labels: of exactly
half of the questions the answers as persona and as nobody in particular traded places, so that
the direction holds all that the finder does, and none of the persona. Everything else in the study
is right. Twelve studies with the right labels, one per finetune, show what as small a study sees.
Resumable; `--most N` stops after N studies.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.known_truth.null import ARMS, BUDGET, NARROW, STRENGTHS, table
from persona_probe import ORGANISM
from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.controls import balanced_shuffles
from persona_probe.directions.direction_set import load_directions, save_directions
from persona_probe.files import read_json, write_json
from persona_probe.organism.finetunes import SEEDS
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.study.lab import Lab
from persona_probe.study.plan import Study
from persona_probe.study.planning import HELPFUL_ONLY
from persona_probe.study.run import run_study
from persona_probe.study.stages import CONTRAST

N_WRONG, FIRST_SEED = 100, 200
SMALL = replace(
    BUDGET,
    harmful=32,
    benign=10,
    borderline=6,
    band=24,
    select_harmful=20,
    select_benign=12,
    select_borderline=8,
    kl_replies=8,
    shift_harmful=24,
    shift_trained=8,
    shift_benign=12,
)
RELABELLED = 10_000  # added to a study's seed: its own shuffled controls are other relabellings


@dataclass(frozen=True)
class Trial:
    """One study of one finetune.

    Attributes:
        seed: of its split, random directions, sampling and wrong labels.
        persona: whose narrow finetune it is.
        number: of the finetune's seed.
        wrong: whether the direction is found under wrong labels.
    """

    seed: int
    persona: str
    number: int
    wrong: bool

    @property
    def study(self) -> Study:
        return Study(
            model=str(ORGANISM),
            pack="organism",
            helpful_only=HELPFUL_ONLY,
            finetuned={self.persona: {NARROW: (f"narrow-{self.persona}-{self.number}",)}},
            strengths=STRENGTHS,
            arms=ARMS,
            seed=self.seed,
            budget=SMALL,
        )


def trials(n_wrong: int = N_WRONG) -> Iterator[Trial]:
    """All real narrow finetunes in turn: first once with the right labels, then with wrong ones."""
    finetunes = [(persona, number) for number in SEEDS for persona in CONSTITUTIONS]
    for place in range(len(finetunes) + n_wrong):
        persona, number = finetunes[place % len(finetunes)]
        yield Trial(FIRST_SEED + place, persona, number, wrong=place >= len(finetunes))


def run(trial: Trial, out: Path) -> dict[str, Any]:
    """The study, unless it is finished, and its ladder."""
    folder = out / str(trial.seed)
    kept = folder / "ladder.json"
    if not kept.exists():
        run_study(trial.study, folder, device="cpu", stop="find")
        if trial.wrong:
            mislabel(trial, folder)
        ladder = run_study(trial.study, folder, device="cpu")["personas"][trial.persona]
        row = {"kind": "wrong labels" if trial.wrong else "right labels", "study": trial.seed}
        write_json(kept, row | {"adapter": trial.study.seeds(trial.persona)[0]} | ladder)
    found: dict[str, Any] = read_json(kept)
    return found


def mislabel(trial: Trial, folder: Path) -> None:
    """Put a direction found under wrong labels in place of the study's own; again is the same."""
    lab = Lab(trial.study, folder, "cpu")
    own = load_directions(folder / "directions", lab.model)
    contrast = ActivationSet.open(folder / "activations" / CONTRAST)
    found = contrast.where(families=lab.split.find)
    seed = RELABELLED + trial.seed
    right = own[trial.persona]
    wrong = balanced_shuffles(right, found, lab.finder, 1, seed)[0]
    placed = {site: replace(d, midpoint=right[site].midpoint) for site, d in wrong.items()}
    save_directions({trial.persona: placed}, folder / "directions", with_card=False)


def main() -> None:
    """Run what is left, keep every ladder, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/mislabelled"))
    parser.add_argument("--most", type=int, help="studies to run now")
    given = parser.parse_args()
    planned: Sequence[Trial] = list(trials())
    left = [
        trial for trial in planned if not (given.out / str(trial.seed) / "ladder.json").exists()
    ]
    for trial in left[: given.most]:
        run(trial, given.out)
    if len(left) > len(left[: given.most]):
        print(f"{len(left) - len(left[: given.most])} of {len(planned)} studies are left")
        return
    rows = [run(trial, given.out) for trial in planned]
    write_json(given.out / "ladders.json", rows)
    print(json.dumps(table(rows), indent=1))


if __name__ == "__main__":
    main()
