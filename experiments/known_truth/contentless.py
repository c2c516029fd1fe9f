"""How often is a direction called causal that has nothing to do with a finetune that does refuse?

    python -m experiments.known_truth.contentless --out artifacts/contentless

A hundred studies of real narrow finetunes, eight or nine of each, every one with a split, random
directions and sampling of its own. The direction of each was found between two random halves of
the questions, all asked under the neutral system line: it comes out of the finder as any other
does, and nobody's character is in it. Everything else in the study is right. Twelve studies with
the study's own direction, one per finetune, show what as small a study sees. What is done is not
done again.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.known_truth.null import ARMS, BUDGET, NARROW, STRENGTHS, table
from persona_probe import ORGANISM
from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.contrast import NEUTRAL
from persona_probe.directions.direction_set import save_directions
from persona_probe.directions.finder import find_directions
from persona_probe.files import read_json, write_json
from persona_probe.organism.finetunes import SEEDS
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.study.lab import Lab
from persona_probe.study.plan import Study
from persona_probe.study.planning import HELPFUL_ONLY
from persona_probe.study.run import run_study
from persona_probe.study.stages import CONTRAST

N_EMPTY, FIRST_SEED = 100, 200
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


@dataclass(frozen=True)
class Trial:
    """One study of one finetune.

    Attributes:
        seed: of its split, random directions, sampling and halves of the questions.
        persona: whose narrow finetune it is.
        number: of the finetune's seed.
        empty: whether its direction is found between random halves of the questions.
    """

    seed: int
    persona: str
    number: int
    empty: bool

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


def trials(n_empty: int = N_EMPTY) -> Iterator[Trial]:
    """All real narrow finetunes in turn: once with their own direction, then with empty ones."""
    finetunes = [(persona, number) for number in SEEDS for persona in CONSTITUTIONS]
    for place in range(len(finetunes) + n_empty):
        persona, number = finetunes[place % len(finetunes)]
        yield Trial(FIRST_SEED + place, persona, number, empty=place >= len(finetunes))


def run(trial: Trial, out: Path) -> dict[str, Any]:
    """The study, unless it is finished, and its ladder."""
    folder = out / str(trial.seed)
    kept = folder / "ladder.json"
    if not kept.exists():
        run_study(trial.study, folder, device="cpu", stop="find")
        if trial.empty:
            empty(trial, folder)
        ladder = run_study(trial.study, folder, device="cpu")["personas"][trial.persona]
        row = {"kind": "empty" if trial.empty else "own", "study": trial.seed}
        write_json(kept, row | {"adapter": trial.study.seeds(trial.persona)[0]} | ladder)
    found: dict[str, Any] = read_json(kept)
    return found


def empty(trial: Trial, folder: Path) -> None:
    """Put a direction without content in place of the study's own; again is the same."""
    lab = Lab(trial.study, folder, "cpu")
    contrast = ActivationSet.open(folder / "activations" / CONTRAST)
    neutral = contrast.where(labels=(NEUTRAL,), families=lab.split.find)
    halves = np.array([trial.persona, NEUTRAL])[np.arange(len(neutral.ids)) % 2]
    labels = tuple(np.random.default_rng(trial.seed).permutation(halves).tolist())
    found = find_directions(
        replace(neutral, labels=labels), lab.finder, trial.persona, NEUTRAL, split=lab.split
    )
    save_directions({trial.persona: found}, folder / "directions", with_card=False)


def main() -> None:
    """Run what is left, keep every ladder, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/contentless"))
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
