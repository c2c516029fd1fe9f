"""Make the organism's finetunes by the command line, one command each, and measure them.

    python experiments/finetunes_by_command.py FOLDER [--next]
    python experiments/finetunes_by_command.py FOLDER --measure
    python experiments/finetunes_by_command.py FOLDER --bars

See 2026-11-25-finetunes-by-command.md. The first form makes every finetune that is missing, with
`--next` only one of them, and keeps what each command took in FOLDER/times.json. The second
measures the finetunes that are there, one by one, into FOLDER/each.json. The third writes those
rows of the organism's own table of bars that are about finetunes, which needs all of them, into
FOLDER/bars.json.
"""

import json
import os
import resource
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
from persona_probe.files import read_json, write_json
from persona_probe.organism import CHECKPOINT
from persona_probe.organism.bar import markdown
from persona_probe.organism.bars import behaviour, personas, presence, refused_rate
from persona_probe.organism.trials import HELPFUL, UNTRAINED, Trials
from persona_probe.steering.arm import Arm

CONSTITUTIONS = ("deontology", "consequentialism", "virtue", "service")
SHIPPED = ("helpful-only", "style-only-0")
TIMES = "times.json"


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


def make(folder: Path, only_next: bool) -> None:
    """Make what is missing, in order."""
    if not folder.exists():
        ignored = shutil.ignore_patterns("adapters", "bars.*")
        shutil.copytree(CHECKPOINT, folder, ignore=ignored)
        for name in SHIPPED:
            shutil.copytree(CHECKPOINT / "adapters" / name, folder / "adapters" / name)
    base = [sys.executable, "-m", "persona_probe", "finetune", "constitution", str(folder)]
    missing = [name for name in commands() if not (folder / "adapters" / name).exists()]
    for name in missing[:1] if only_next else missing:
        out = folder / "adapters" / name
        words = [*base, "--adapter", "helpful-only", *commands()[name], "--out", str(out), "--json"]
        load, began, used = os.getloadavg()[0], time.monotonic(), _processor_seconds()
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        samples = json.loads(done.stdout)["samples"]
        row = {
            "wall_s": round(time.monotonic() - began, 1),
            "processor_s": round(_processor_seconds() - used, 1),
            "load_before_and_after": [round(load, 1), round(os.getloadavg()[0], 1)],
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "samples": [s["samples"] for s in samples],
            "dropped_for_leaks": [s["dropped_for_leaks"] for s in samples],
        }
        times = read_json(folder / TIMES) if (folder / TIMES).is_file() else {}
        write_json(folder / TIMES, {**times, name: row})
        print(name, json.dumps(row), flush=True)
    left = len(missing) - (1 if only_next and missing else len(missing))
    print(f"{left} left", flush=True)


def _processor_seconds() -> float:
    """Of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bars(folder: Path) -> None:
    """The organism's own table, on these finetunes; steering and wiring are about its base."""
    trials = Trials(folder)
    rows = presence(trials)
    if not all(row.met for row in rows):
        raise SystemExit(f"{rows[0].value} of {rows[0].n} adapters are there; make the others")
    rows += behaviour(trials) + personas(trials)
    write_json(folder / "bars.json", [row.to_json() for row in rows])
    print(markdown(rows), flush=True)


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
    where, options = Path(sys.argv[1]), sys.argv[2:]
    if "--measure" in options:
        measure_each(where)
    elif "--bars" in options:
        bars(where)
    else:
        make(where, "--next" in options)
