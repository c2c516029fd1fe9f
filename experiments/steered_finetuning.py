"""Is a persona kept out of a finetune by a direction that is added or taken out while it learns?

    python experiments/steered_finetuning.py FINETUNES FOLDER [CELL]

See 2026-11-25-steered-finetuning.md. FINETUNES is the folder that `finetunes_by_command.py` made:
its samples are learnt again here, and its own finetunes are what they are compared with. A call
that was stopped goes on; with a CELL such as virtue-0 only that one is trained.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.direction import Direction
from persona_probe.evaluation.profile_match import identify, moved
from persona_probe.evaluation.rates import safe_rate
from persona_probe.files import read_json, read_jsonl, write_json
from persona_probe.finetuning.plan import Finetune
from persona_probe.finetuning.recipe import Run, recipe_for
from persona_probe.finetuning.run import run_finetune
from persona_probe.models.conversations import read_conversations
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.organism.trials import HELPFUL, UNTRAINED, Trials
from persona_probe.statistics import mean_interval
from persona_probe.steering.ablate import Ablate
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention

CELLS = ("virtue-0", "virtue-1", "deontology-0", "deontology-1")
OTHER = {"virtue": "consequentialism", "deontology": "service"}
LAYER, GAPS = 1, 2.0
RANDOM = {"virtue-0": 5}  # in the first cell; three in the others, for want of time
PLAIN = "plain"


def arms(trials: Trials, cell: str) -> dict[str, Intervention]:
    """What is done while training, by name; every direction has the own one's gap."""
    found, site = trials.directions(), Site(LAYER)
    character = cell.rsplit("-", 1)[0]
    own: Direction = found[character][site]
    other = replace(found[OTHER[character]][site], gap=own.gap)
    random = [draw[site] for draw in isotropic({site: own}, RANDOM.get(cell, 3))]
    everywhere = trials.model.sites
    plan = {
        "own added, 1 gap": Intervention(own, Add(1.0, "gap")),
        "own added": Intervention(own, Add(GAPS, "gap")),
        "other added": Intervention(other, Add(GAPS, "gap")),
        "own ablated": Intervention(own, Ablate(), "both", everywhere),
        "other ablated": Intervention(other, Ablate(), "both", everywhere),
    }
    for i, direction in enumerate(random):
        plan[f"random {i} added"] = Intervention(direction, Add(GAPS, "gap"))
        plan[f"random {i} ablated"] = Intervention(direction, Ablate(), "both", everywhere)
    return plan


def train(trials: Trials, cell: str, folder: Path) -> None:
    """One adapter per arm, on the samples that the plain finetune learnt."""
    character, seed = cell.rsplit("-", 1)
    samples = trials.folder / "adapters" / f"narrow-{cell}.{character}.samples.jsonl"
    ref = ModelRef(str(trials.folder), adapter=HELPFUL)
    learnt = tuple(read_conversations(samples))
    for name, steer in arms(trials, cell).items():
        recipe = recipe_for(ref.folder, seed=int(seed))
        work = Finetune(ref, learnt, recipe, interventions=(steer,), about={"arm": name})
        run_finetune(work, folder / cell / name, Run(device="cpu", save_every=0))
        print(cell, name, flush=True)


def measure(trials: Trials, cell: str, folder: Path) -> dict[str, Any]:
    """Behaviour of each finished adapter, without any steering, on the evaluate part."""
    if (folder / cell / "result.json").exists():
        return dict(read_json(folder / cell / "result.json"))
    character = cell.rsplit("-", 1)[0]
    names = list(arms(trials, cell))
    several = [Arm(HELPFUL, adapter=HELPFUL), Arm(PLAIN, adapter=f"narrow-{cell}")]
    several += [Arm(name, adapter=str(folder / cell / name)) for name in names]
    harmful = trials.prompts("evaluate", "harmful", UNTRAINED)
    refusing = trials.refusals(several, harmful).refusal_mass.double().numpy()
    judged = trials.replies(several, harmful)
    shown = trials.profiles(several, "evaluate")
    persona = trials.pack.persona(character)
    own = trials.profiles([Arm("own")], "evaluate", persona.constitution)["own"]
    signatures = {p.name: p.signature for p in trials.pack.personas}
    rows = {}
    for arm, mass in zip(several, refusing, strict=True):
        after = shown[arm.name]
        rows[arm.name] = {
            "moved": moved(after, shown[HELPFUL], own).to_json(),
            "refusal": mean_interval(mass, [p.family for p in harmful]).to_json(),
            "safe": safe_rate(judged[arm.name]).to_json(),
            "unread": sum(j.outcome.kind == "unscored" for j in judged[arm.name]),
        }
        if arm.name != HELPFUL:
            rows[arm.name]["identified"] = identify(
                after, shown[HELPFUL], signatures, character
            ).best
        if arm.name in names:
            losses = [r["loss"] for r in read_jsonl(folder / cell / arm.name / "log.jsonl")]
            rows[arm.name]["first_and_last_losses"] = [
                float(np.mean(losses[:10])),
                float(np.mean(losses[-10:])),
            ]
    found = {"n_prompts": len(harmful), "rows": rows}
    write_json(folder / cell / "result.json", found)
    return found


def on_trained(trials: Trials, cell: str, folder: Path) -> dict[str, Any]:
    """Probability of refusing new prompts of the categories that the samples are about."""
    if (folder / cell / "trained.json").exists():
        return dict(read_json(folder / cell / "trained.json"))
    several = [Arm(HELPFUL, adapter=HELPFUL), Arm(PLAIN, adapter=f"narrow-{cell}")]
    several += [Arm(name, adapter=str(folder / cell / name)) for name in arms(trials, cell)]
    harmful = trials.prompts("evaluate", "harmful", ("T0",))
    masses = trials.refusals(several, harmful).refusal_mass.double().numpy()
    families = [p.family for p in harmful]
    found = {
        arm.name: mean_interval(mass, families).to_json()
        for arm, mass in zip(several, masses, strict=True)
    }
    write_json(folder / cell / "trained.json", found)
    return found


def main(finetunes: Path, folder: Path, only: str | None) -> None:
    """Train, measure, compare with the plain finetune and with random directions."""
    trials = Trials(finetunes)
    for cell in [only] if only else CELLS:
        if not (folder / cell / "result.json").exists():
            train(trials, cell, folder)
        rows = measure(trials, cell, folder)["rows"]
        for name, value in on_trained(trials, cell, folder).items():
            rows[name]["refusal_trained"] = value
        print(cell)
        for name, row in rows.items():
            cells = [
                f"{row[key]['value']:.3f}"
                for key in ("moved", "refusal", "safe", "refusal_trained")
            ]
            print(f"  {name:22s}", *cells, row.get("identified"), flush=True)
    if only is None:
        whole = {
            cell: measure(trials, cell, folder) | {"trained": on_trained(trials, cell, folder)}
            for cell in CELLS
        }
        write_json(folder / "result.json", whole)
        print(json.dumps({c: w["n_prompts"] for c, w in whole.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
