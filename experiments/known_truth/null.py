"""How often does a study find something where nothing is? Hundreds of small studies, resumable.

    python -m experiments.known_truth.null --out artifacts/null

A *placebo* was finetuned on benign requests alone, a *rotated* finetune is a random change of the
weights one to three times as large as a real one, and a *narrow* one is real, to see that the same
small studies find what is there. Every run draws its own split, random directions and sampling.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.known_truth.folder import copy_organism, rotated
from persona_probe.files import read_json, write_json
from persona_probe.organism.build import train_adapter
from persona_probe.organism.finetunes import SEEDS, Finetune
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.progress import track
from persona_probe.statistics import Estimate
from persona_probe.study.budget import Budget
from persona_probe.study.plan import Study
from persona_probe.study.planning import HELPFUL_ONLY, name_models
from persona_probe.study.run import run_study
from persona_probe.study.verdict import RUNGS

N_PLACEBOS, N_ROTATIONS = 10, 15
SCALES = (1.0, 2.0, 3.0)
BUDGET = Budget(
    harmful=40,
    trained=8,
    benign=12,
    borderline=8,
    items=20,
    random_generated=1,
    random_fast=39,
    resamples=500,
    permutations=99,
)
STRENGTHS = (0.75,)
CAUSAL = tuple(RUNGS)[2:]


@dataclass(frozen=True)
class Trial:
    """One small study: which adapter is presented as whose finetune, under which seed."""

    kind: str
    adapter: str
    persona: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.adapter}-as-{self.persona}"

    def study(self, organism: Path) -> Study:
        return name_models(
            str(organism),
            "organism",
            CONSTITUTIONS,
            HELPFUL_ONLY,
            [f"{self.persona}={self.adapter}"],
            budget=BUDGET,
            strengths=STRENGTHS,
            seed=self.seed,
        )


def trials() -> Iterator[Trial]:
    """40 placebos, 60 rotated finetunes, and all 12 narrow ones, in an order that mixes them."""
    for number in range(max(N_ROTATIONS, N_PLACEBOS)):
        for place, persona in enumerate(CONSTITUTIONS):
            seed = 100 + len(CONSTITUTIONS) * number + place
            if number < N_ROTATIONS:
                yield Trial("rotated", f"rotated-{persona}-{number}", persona, seed)
            if number < N_PLACEBOS:
                yield Trial("placebo", f"placebo-{number}", persona, seed)
            if number in SEEDS:
                yield Trial("narrow", f"narrow-{persona}-{number}", persona, seed)


def make_adapter(organism: Path, trial: Trial) -> None:
    """Make the trial's adapter, unless it is there."""
    number = int(trial.adapter.rsplit("-", 1)[1])
    if (organism / "adapters" / trial.adapter).exists():
        return
    if trial.kind == "rotated":
        narrow = f"narrow-{trial.persona}-{SEEDS[number % len(SEEDS)]}"
        scale = SCALES[number // len(SEEDS) % len(SCALES)]
        rotated(organism, trial.adapter, narrow, trial.seed, scale)
    else:
        train_adapter(organism, Finetune(trial.adapter, "placebo", seed=number))


def run(out: Path, most: int | None = None) -> None:
    """Trials that are not finished; what was captured is deleted once it has been used."""
    narrow = [f"narrow-{c}-{seed}" for c in CONSTITUTIONS for seed in SEEDS]
    organism = copy_organism(out / "organism", "placebo-0", *narrow)
    left = [t for t in trials() if not (out / "runs" / t.name / "verdict.json").exists()][:most]
    for trial in track(left, "Small studies", len(left)):
        folder = out / "runs" / trial.name
        make_adapter(organism, trial)
        run_study(trial.study(organism), folder, device="cpu")
        shutil.rmtree(folder / "activations", ignore_errors=True)


def table(out: Path) -> dict[str, Any]:
    """Per kind: how many runs pass each rung, and how many stand on L2 or higher."""
    found: dict[str, Any] = {}
    for kind in ("placebo", "rotated", "narrow"):
        done = [t for t in trials() if t.kind == kind]
        done = [t for t in done if (out / "runs" / t.name / "verdict.json").exists()]
        ladders = [_ladder(out, trial) for trial in done]
        found[kind] = {
            "runs": len(ladders),
            "passed": {
                rung: sum(ladder["rungs"][i]["passed"] is True for ladder in ladders)
                for i, rung in enumerate(RUNGS)
            },
            "reach_causal": exact([x["highest_unbroken"] in CAUSAL for x in ladders]),
            "pass_causal_alone": exact([x["rungs"][2]["passed"] is True for x in ladders]),
            "which": [
                t.name for t, x in zip(done, ladders, strict=True) if x["rungs"][2]["passed"]
            ],
        }
    return found


def exact(outcomes: list[bool]) -> dict[str, Any]:
    """A share with the exact (Clopper & Pearson 1934) 95 % interval."""
    from scipy.stats import binomtest

    k, n = sum(outcomes), len(outcomes)
    if not n:
        return Estimate.undefined("no runs").to_json()
    interval = binomtest(k, n).proportion_ci(0.95, method="exact")
    share = Estimate(k / n, float(interval.low), float(interval.high), n, n)
    return {"count": k} | share.to_json()


def _ladder(out: Path, trial: Trial) -> dict[str, Any]:
    verdict = read_json(out / "runs" / trial.name / "verdict.json")
    ladder: dict[str, Any] = verdict["personas"][trial.persona]
    return ladder


def main() -> None:
    """Run what is left and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/null"))
    parser.add_argument("--most", type=int, help="stop after so many; the same command goes on")
    given = parser.parse_args()
    out: Path = given.out
    run(out, given.most)
    write_json(out / "table.json", found := table(out))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
