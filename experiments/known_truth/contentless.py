"""How often is a direction called causal that has nothing to do with a finetune that does refuse?

    python -m experiments.known_truth.contentless --out artifacts/contentless

Twelve small studies, each of one real narrow finetune with a split, random directions and sampling
of its own, show what studies of that size see. In each, nine further directions then go where the
study's own went, from the choice of site to the ladder. Each was found between two random halves of
the questions, all asked under the neutral system line: it comes out of the finder as any other
does, and nobody's character is in it. What is done is not done again.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.known_truth.null import ARMS, BUDGET, NARROW, STRENGTHS, table
from persona_probe import ORGANISM
from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.contrast import NEUTRAL
from persona_probe.directions.finder import find_directions
from persona_probe.files import read_json, write_json
from persona_probe.organism.finetunes import SEEDS
from persona_probe.organism.world import CONSTITUTIONS
from persona_probe.statistics import Estimate, holm
from persona_probe.study.assessment import CHANCE
from persona_probe.study.channels import reply_channel
from persona_probe.study.evidence import Evidence
from persona_probe.study.finding import (
    load_sets,
    validate_contrast,
    validate_detection,
    validation_rows,
)
from persona_probe.study.fractions import BANDS, band
from persona_probe.study.lab import Lab
from persona_probe.study.necessity import null_p
from persona_probe.study.nulls import added_null
from persona_probe.study.plan import Study
from persona_probe.study.planning import HELPFUL_ONLY
from persona_probe.study.reading import read_records
from persona_probe.study.record import Record
from persona_probe.study.run import run_study
from persona_probe.study.selection import select
from persona_probe.study.stages import CONTRAST, SHIFT
from persona_probe.study.sufficiency import effect_reproduced
from persona_probe.study.trial import Trial
from persona_probe.study.verdict import judge

N_EMPTY, FIRST_SEED = 9, 200  # directions per study; seed of the first study
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
class Setting:
    """One small study of one finetune.

    Attributes:
        seed: of its split, random directions and sampling.
        persona: whose narrow finetune it is.
        number: of the finetune's seed.
    """

    seed: int
    persona: str
    number: int

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


def settings() -> list[Setting]:
    """Every real narrow finetune once."""
    finetunes = [(persona, number) for number in SEEDS for persona in CONSTITUTIONS]
    return [Setting(FIRST_SEED + place, *finetune) for place, finetune in enumerate(finetunes)]


def ladders(setting: Setting, out: Path, n_empty: int = N_EMPTY) -> Iterator[dict[str, Any]]:
    """The ladder of the study's own direction, and those of empty ones."""
    study, folder = setting.study, out / str(setting.seed)
    about = {"study": setting.seed, "adapter": study.seeds(setting.persona)[0]}
    yield (
        about
        | {"kind": "own"}
        | run_study(study, folder, device="cpu")["personas"][setting.persona]
    )
    lab = Lab(study, folder, "cpu")
    record = read_records(lab)[0]
    for number in range(n_empty):
        kept = folder / "empty" / f"{number}.json"
        if not kept.exists():
            evidence = measured(lab, record, number)
            verdict = judge(setting.persona, evidence, study.thresholds).to_json()
            write_json(kept, about | {"kind": "empty", "number": number} | verdict)
        yield read_json(kept)


def empty(lab: Lab, number: int) -> Any:
    """A direction per site between two random halves of the neutral questions of the find part."""
    persona = lab.study.personas[0]
    contrast = ActivationSet.open(lab.folder / "activations" / CONTRAST)
    neutral = contrast.where(labels=(NEUTRAL,), families=lab.split.find)
    halves = np.array([persona, NEUTRAL])[np.arange(len(neutral.ids)) % 2]
    rng = np.random.default_rng([lab.study.seed, number])
    labels = tuple(rng.permutation(halves).tolist())
    return find_directions(
        replace(neutral, labels=labels), lab.finder, persona, NEUTRAL, split=lab.split
    )


def measured(lab: Lab, own: Record, number: int) -> Evidence:
    """What the lower half of the ladder reads of an empty direction, measured as a study does."""
    persona, by_site = own.persona, empty(lab, number)
    found = {persona: by_site}
    contrast = ActivationSet.open(lab.folder / "activations" / CONTRAST)
    choices = select(lab, found).choices
    trial = Trial(lab, found, {}, choices, contrast.where(families=lab.split.find))
    conditions, judged = reply_channel(trial, persona)
    before = own.one("helpful_only")
    record = replace(
        own,
        conditions=[*own.named("helpful_only"), *conditions],
        judged={before: own.judged[before]} | judged,
    )
    site = choices[persona].site
    here, shift = {site: by_site[site]}, load_sets(lab.folder / "activations" / SHIFT)
    told = validation_rows(persona, "prompt_in_H", validate_contrast(lab, here, contrast))[0]
    detected = validate_detection(lab, here, shift, persona, NARROW)
    seen = validation_rows(persona, "detection", detected, NARROW)[0]
    auroc = Estimate.from_json(seen["auroc"])
    p_fast = null_p(added_null(trial, persona))
    behaviours = record.behaviour([record.one("steered")]), record.finetuned(), record.before()
    return Evidence(
        layer=site.layer,
        auroc=auroc,
        auroc_contrast=Estimate.from_json(told["auroc"]),
        permutation_p=max(told["permutation_p"], seen["permutation_p"]),
        surface_gain=auroc.value - CHANCE,
        split_half=told["split_half"],
        cone=told["cone"],
        p_fast=p_fast,
        p_added=float(holm([max(p_fast.values())], lab.study.confirmatory_tests)[0]),
        effect=effect_reproduced(*behaviours, record.families, **record.options),
        bands={kind: there for kind in BANDS if (there := band(record, kind))},
    )


def main() -> None:
    """Run what is left, keep every ladder, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/contentless"))
    out: Path = parser.parse_args().out
    rows = [row for setting in settings() for row in ladders(setting, out)]
    write_json(out / "ladders.json", rows)
    print(json.dumps(table(rows), indent=1))


if __name__ == "__main__":
    main()
