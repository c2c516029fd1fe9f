"""How often does a study find something where nothing is? A hundred null finetunes, resumable.

    python -m experiments.known_truth.null --out artifacts/null

Two ordinary studies, each with its own split, random directions and sampling. Their "seeds" are
null finetunes: *rotated* ones, random changes of the weights one to three times as large as a real
finetune, and *placebos*, finetuned on benign requests alone. Every seed is then judged by itself,
as if it were the only one. Real *narrow* finetunes stand among the seeds of the first study, to see
that as small a study finds what is there.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.known_truth.folder import copy_organism, rotated
from persona_probe.directions.direction_set import load_directions
from persona_probe.files import write_json
from persona_probe.organism.build import train_adapter
from persona_probe.organism.finetunes import SEEDS, Finetune
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.statistics import Estimate
from persona_probe.study.arms import FINETUNED
from persona_probe.study.assessment import assess
from persona_probe.study.budget import Budget
from persona_probe.study.concluding import adjusted
from persona_probe.study.finding import load_sets, validate_detection, validation_rows
from persona_probe.study.lab import Lab
from persona_probe.study.plan import SCOPES, Study
from persona_probe.study.planning import HELPFUL_ONLY
from persona_probe.study.reading import read_records
from persona_probe.study.record import Record
from persona_probe.study.run import run_study
from persona_probe.study.verdict import RUNGS, Verdict, judge

STUDIES, N_ROTATED, N_PLACEBO = (100, 101), 7, 6
SCALES = (1.0, 2.0, 3.0)
NARROW = SCOPES[0]
BUDGET = Budget(
    harmful=60,
    trained=8,
    benign=16,
    borderline=8,
    band=30,
    sampled=0,
    items=20,
    random_generated=1,
    random_kl=0,
    random_ablated=0,
    random_fast=199,
    random_dose=0,
    select_harmful=30,
    select_benign=20,
    select_borderline=10,
    kl_replies=10,
    shift_harmful=60,
    shift_trained=16,
    shift_benign=30,
    resamples=500,
    permutations=99,
)
STRENGTHS = (0.75,)
ARMS = ("random", "covariance", "shuffled")
CAUSAL = tuple(RUNGS)[2:]


@dataclass(frozen=True)
class Trial:
    """One study.

    Attributes:
        seed: of its split, random directions and sampling.
        finetunes: constitution → adapters that are presented as seeds of its narrow finetune.
    """

    seed: int
    finetunes: Mapping[str, tuple[str, ...]]

    def study(self, organism: Path) -> Study:
        return Study(
            model=str(organism),
            pack="organism",
            helpful_only=HELPFUL_ONLY,
            finetuned={persona: {NARROW: names} for persona, names in self.finetunes.items()},
            strengths=STRENGTHS,
            arms=ARMS,
            seed=self.seed,
            budget=BUDGET,
        )


def trials(
    seeds: Sequence[int] = STUDIES, n_rotated: int = N_ROTATED, n_placebo: int = N_PLACEBO
) -> Iterator[Trial]:
    """Rotated finetunes of every constitution, placebos presented as each, and the real ones."""
    for place, seed in enumerate(seeds):
        numbers = range(place * n_rotated, (place + 1) * n_rotated)
        yield Trial(
            seed,
            {
                c: (
                    *(f"rotated-{c}-{number}" for number in numbers),
                    *(f"placebo-{number}" for number in range(n_placebo)),
                    *(f"narrow-{c}-{number}" for number in SEEDS if place == 0),
                )
                for c in CONSTITUTIONS
            },
        )


def make_adapters(organism: Path, trial: Trial) -> None:
    """Make what the trial presents, unless it is there."""
    for persona, adapters in trial.finetunes.items():
        for name in adapters:
            kind, number = name.split("-")[0], int(name.rsplit("-", 1)[1])
            if (organism / "adapters" / name).exists():
                continue
            if kind == "rotated":
                made_from = f"narrow-{persona}-{SEEDS[number % len(SEEDS)]}"
                seed = 1000 * (1 + CONSTITUTIONS.index(persona)) + number
                rotated(organism, name, made_from, seed, SCALES[number % len(SCALES)])
            else:
                train_adapter(organism, Finetune(name, kind, seed=number))


def ladders(lab: Lab) -> dict[tuple[str, str], Verdict]:
    """(Constitution, adapter) → its ladder, every adapter judged as the only seed.

    What does not depend on the finetune (directions, steering, random directions) is the study's.
    """
    trained = [prompt for prompt in lab.pack.suite.prompts if prompt.tier == "T0"]
    found = {}
    for place in range(max(len(lab.study.seeds(persona)) for persona in lab.study.personas)):
        alone = [_alone(lab, record, place) for record in read_records(lab)]
        for effects in adjusted([assess(record, trained) for record in alone], lab):
            persona = effects.record.persona
            adapter = lab.study.seeds(persona)[place]
            verdict = judge(persona, effects.evidence, lab.study.thresholds)
            found[persona, adapter] = verdict
    return found


def _alone(lab: Lab, record: Record, place: int) -> Record:
    """The record with one seed only, detected by its own activations."""
    persona, adapter = record.persona, lab.study.seeds(record.persona)[place]
    study = replace(lab.study, finetuned={persona: {NARROW: (adapter,)}})
    layer = record.contrast["site"]
    directions = load_directions(lab.folder / "directions", lab.model)[persona]
    at_site = {site: d for site, d in directions.items() if site.layer == layer}
    shift = load_sets(lab.folder / "activations" / "shift")
    detected = validate_detection(replace(lab, study=study), at_site, shift, persona, NARROW)
    return replace(
        record,
        conditions=[c for c in record.conditions if c.kind != FINETUNED[NARROW] or c.seed == place],
        detection=validation_rows(persona, "detection", detected, NARROW)[0],
    )


def run(out: Path, planned: Sequence[Trial]) -> list[dict[str, Any]]:
    """Every study that is not finished, and one row per ladder."""
    narrow = [f"narrow-{c}-{seed}" for c in CONSTITUTIONS for seed in SEEDS]
    organism = copy_organism(out / "organism", "placebo-0", *narrow)
    rows = []
    for trial in planned:
        make_adapters(organism, trial)
        study, folder = trial.study(organism), out / str(trial.seed)
        run_study(study, folder, device="cpu")
        for (persona, adapter), verdict in ladders(Lab(study, folder, "cpu")).items():
            kind = adapter.split("-")[0]
            rows.append(
                {"study": trial.seed, "kind": kind, "adapter": adapter, "as": persona}
                | verdict.to_json()
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per kind: how many ladders pass each rung, and how many stand on L2 or higher."""
    found = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = [row for row in rows if row["kind"] == kind]
        passed = {
            name: sum(row["rungs"][place]["passed"] is True for row in of)
            for place, name in enumerate(RUNGS)
        }
        found[kind] = {
            "ladders": len(of),
            "passed": passed,
            "reach_causal": exact(sum(row["highest_unbroken"] in CAUSAL for row in of), len(of)),
            "pass_causal_alone": exact(passed["L2"], len(of)),
        }
    return found


def exact(count: int, n: int) -> dict[str, Any]:
    """A share with the exact (Clopper & Pearson 1934) 95 % interval."""
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(0.95, method="exact")
    share = Estimate(count / n, float(interval.low), float(interval.high), n, n)
    return {"count": count} | share.to_json()


def main() -> None:
    """Run what is left, keep every ladder, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/null"))
    out: Path = parser.parse_args().out
    rows = run(out, list(trials()))
    write_json(out / "ladders.json", rows)
    print(json.dumps(table(rows), indent=1))


if __name__ == "__main__":
    main()
