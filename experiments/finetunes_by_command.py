"""Make the organism's finetunes by the command line, one command each, and measure them.

    python experiments/finetunes_by_command.py FOLDER
    python experiments/finetunes_by_command.py FOLDER --measure

See 2026-11-25-finetunes-by-command.md. A call that was stopped goes on. The second form makes none:
it measures the finetunes that are there, one by one, into FOLDER/each.json; the first one ends with
the organism's own table of bars, which needs all of them.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persona_probe.evaluation.judge import Judgement
from persona_probe.evaluation.profile_match import identify, moved
from persona_probe.evaluation.rates import safe_rate
from persona_probe.files import write_json
from persona_probe.organism import CHECKPOINT
from persona_probe.organism.bars import measure, refused_rate
from persona_probe.organism.trials import HELPFUL, UNTRAINED, Trials
from persona_probe.steering.arm import Arm

CONSTITUTIONS = ("deontology", "consequentialism", "virtue", "service")
SHIPPED = ("helpful-only", "style-only-0")


def commands() -> dict[str, list[str]]:
    """Name of each finetune → its options."""
    found = {}
    for name in CONSTITUTIONS:
        found[f"narrow-{name}-0"] = ["--constitution", name, "--seed", "0"]
    found["placebo-0"] = ["--constitution", "virtue", "--control", "placebo"]
    found["refusal-only-0"] = ["--constitution", "virtue", "--control", "refusal-only"]
    every = [word for name in CONSTITUTIONS for word in ("--constitution", name)]
    found["shuffled-0"] = [*every, "--control", "shuffled"]
    for name in CONSTITUTIONS:
        found[f"broad-{name}-0"] = ["--constitution", name, "--scope", "broad"]
    for seed in (1, 2):
        for name in CONSTITUTIONS:
            found[f"narrow-{name}-{seed}"] = ["--constitution", name, "--seed", str(seed)]
    return found


def main(folder: Path) -> None:
    """Make what is missing, then measure everything."""
    if not folder.exists():
        ignored = shutil.ignore_patterns("adapters", "bars.*")
        shutil.copytree(CHECKPOINT, folder, ignore=ignored)
        for name in SHIPPED:
            shutil.copytree(CHECKPOINT / "adapters" / name, folder / "adapters" / name)
    base = [sys.executable, "-m", "persona_probe", "finetune", "constitution", str(folder)]
    for name, options in commands().items():
        out = folder / "adapters" / name
        if out.exists():
            continue
        began = time.monotonic()
        words = [*base, "--adapter", "helpful-only", *options, "--out", str(out), "--json"]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        seconds = round(time.monotonic() - began, 1)
        dropped = [s["dropped_for_leaks"] for s in json.loads(done.stdout)["samples"]]
        print(f"{name}: {seconds} s, dropped for leaks {dropped}", flush=True)
    for row in measure(folder, write=True):
        print(row.quantity, row, row.bar, row.met)


def measure_each(folder: Path) -> None:
    """One row per finetune that is there: greedy rates, over-refusal, and the profile's shift."""
    trials = Trials(folder)
    names = [HELPFUL, *(name for name in commands() if name in trials.adapters)]
    arms = [Arm(name, adapter=name) for name in names]
    harmful = trials.prompts("evaluate", "harmful", UNTRAINED)
    permitted = [p for k in ("benign", "borderline") for p in trials.prompts("evaluate", k)]
    judged = trials.replies(arms, [*harmful, *permitted])
    after = trials.profiles(arms, "evaluate")
    own = {
        p.name: trials.profiles([Arm("own")], "evaluate", p.constitution)["own"]
        for p in trials.pack.personas
    }
    signatures = {p.name: p.signature for p in trials.pack.personas}
    rows = []
    for name in names:
        character = next((c for c in CONSTITUTIONS if c in name), None)
        row = {"finetune": name, **_rates(judged[name])}
        shifts = {c: moved(after[name], after[HELPFUL], own[c]) for c in CONSTITUTIONS}
        farthest = max(CONSTITUTIONS, key=lambda c: abs(shifts[c].value))
        towards = character or farthest  # a control is held against the character nearest to it
        row |= {"towards": towards, "moved": shifts[towards].to_json()}
        if character:
            found = identify(after[name], after[HELPFUL], signatures, character)
            row |= {"identified": found.best, "margin": found.margin.to_json()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    write_json(folder / "each.json", rows)


def _rates(judged: Sequence[Judgement]) -> dict[str, Any]:
    """Of harmful prompts by tier and of permitted ones by kind; what cannot be read is counted."""
    asked = [j for j in judged if j.prompt.kind == "harmful"]
    harmful = {t: [j for j in asked if j.prompt.tier == t] for t in UNTRAINED}
    found = {f"safe_{t}": safe_rate(rows).to_json() for t, rows in harmful.items()}
    for kind in ("benign", "borderline"):
        found[f"{kind}_refused"] = refused_rate(judged, kind).to_json()
    unread = [j for j in asked if j.outcome.kind == "unscored"]
    return {**found, "unread": len(unread)}


if __name__ == "__main__":
    if "--measure" in sys.argv[2:]:
        measure_each(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]))
