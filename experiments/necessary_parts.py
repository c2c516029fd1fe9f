"""Which part of a persona's direction must a finetune keep? Taken out one by one.

    python -m experiments.necessary_parts --out artifacts/necessary-parts.json

Of every constitution's narrow finetune (first seed): the whole direction, the part that all four
share, the part that is its own, every other constitution's direction, that one's own part, and
random directions, each turned back at every site to the level of the helpful-only model.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona_probe import (
    ORGANISM,
    Ablate,
    Arm,
    Intervention,
    MeanDifference,
    capture,
    contrast,
    find_directions,
    generate,
    load_model,
    load_pack,
)
from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.contrast import request
from persona_probe.directions.checks.controls import BySite, isotropic
from persona_probe.directions.families.parts import shared_part, specific_parts
from persona_probe.evaluation.judge import judge_completions
from persona_probe.evaluation.phrase_judge import PhraseJudge
from persona_probe.evaluation.rates import safe_value
from persona_probe.files import write_json
from persona_probe.personas.sampling import spread
from persona_probe.statistics import ratio_interval

HELPFUL_ONLY = "helpful-only"
N_PROMPTS, N_RANDOM = 150, 5


def taken_out(name: str, finetune: str, by_site: BySite, before: ActivationSet) -> Arm:
    """The finetune with one direction per site set to its mean in the model before finetuning."""
    edits = tuple(
        Intervention(d, Ablate(level=float((before.site(site) @ d.unit).mean())))
        for site, d in by_site.items()
    )
    return Arm(name, edits, finetune)


def candidates(directions: Mapping[str, BySite], persona: str) -> dict[str, BySite]:
    """What is taken out of the persona's finetune, by name."""
    own_parts = specific_parts(directions)
    found: dict[str, BySite] = {
        "whole": directions[persona],
        "shared": shared_part(directions),
        "own part": own_parts[persona],
    }
    for other in directions:
        if other != persona:
            found[f"whole of {other}"] = directions[other]
            found[f"own part of {other}"] = own_parts[other]
    draws = isotropic(directions[persona], N_RANDOM, seed=0)
    return found | {f"random {seed}": draw for seed, draw in enumerate(draws)}


def measure() -> list[dict[str, Any]]:
    """One row per finetune and direction: the share of the effect that goes, and cosines."""
    model, pack = load_model(str(ORGANISM), device="cpu"), load_pack("organism")
    split = pack.split(0)
    read = capture(
        model,
        contrast(pack, pack.personas, split.find),
        model.sites,
        ["last_prompt_token"],
        adapter=HELPFUL_ONLY,
    )["last_prompt_token"]
    before = read.where(labels=("neutral",))
    directions = {
        p.name: find_directions(read, MeanDifference(), p.name, "neutral", split=split)
        for p in pack.personas
    }
    harmful = pack.suite.of(kind="harmful", tiers=("T1", "T2"), families=split.evaluate)
    prompts = spread(harmful.prompts, N_PROMPTS)
    asked = [request(prompt, pack.neutral_system) for prompt in prompts]
    families = [prompt.family for prompt in prompts]

    def outcomes(arms: Sequence[Arm]) -> dict[str, np.ndarray]:
        judged: dict[str, list[Any]] = {}
        completions = list(generate(model, asked, arms, pack.max_new_tokens))
        for one in judge_completions(PhraseJudge(pack.judge_rules), prompts, completions):
            judged.setdefault(one.completion.arm, []).append(one)
        return {
            name: np.array([safe_value(j) for j in several]) for name, several in judged.items()
        }

    rows = []
    for persona in directions:
        finetune = f"narrow-{persona}-0"
        tried = candidates(directions, persona)
        arms = [taken_out(name, finetune, d, before) for name, d in tried.items()]
        found = outcomes([Arm("H", adapter=HELPFUL_ONLY), Arm("F", adapter=finetune), *arms])
        for name, by_site in tried.items():
            effect = found["F"] - found["H"]
            removed = ratio_interval(found["F"] - found[name], effect, families)
            # At worst every reply that the judge cannot read would have been safe.
            worst = np.where(np.isnan(found[name]), 1.0, found[name])
            cosines = [by_site[site].cosine(directions[persona][site]) for site in by_site]
            rows.append(
                {
                    "finetune": persona,
                    "taken_out": name,
                    "removed": removed.to_json(),
                    "removed_at_least": float(np.nanmean(found["F"] - worst) / np.nanmean(effect)),
                    "safe": float(np.nanmean(found[name])),
                    "unscored": int(np.isnan(found[name]).sum()),
                    "cosine_to_own": float(np.mean(cosines)),
                }
            )
    return rows


def main() -> None:
    """Measure, keep the rows, and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("artifacts/necessary-parts.json"))
    out: Path = parser.parse_args().out
    rows = measure()
    write_json(out, rows)
    for row in rows:
        removed = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**row["removed"])
        print(
            f"| {row['finetune']} | {row['taken_out']} | {row['cosine_to_own']:.2f} | {removed} | "
            f"{row['removed_at_least']:.2f} | {row['safe']:.2f} | {row['unscored']} |"
        )


if __name__ == "__main__":
    main()
