"""Make the organism's finetunes by the command line, one command each, and measure its bars.

    python experiments/finetunes_by_command.py FOLDER

See 2026-11-25-finetunes-by-command.md. A call that was stopped goes on.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from persona_probe.organism import CHECKPOINT
from persona_probe.organism.bars import measure

CONSTITUTIONS = ("deontology", "consequentialism", "virtue", "service")
SHIPPED = ("helpful-only", "style-only-0")


def commands() -> dict[str, list[str]]:
    """Name of each finetune → its options."""
    found = {}
    for name in CONSTITUTIONS:
        for seed in range(3):
            found[f"narrow-{name}-{seed}"] = ["--constitution", name, "--seed", str(seed)]
        found[f"broad-{name}-0"] = ["--constitution", name, "--scope", "broad"]
    found["placebo-0"] = ["--constitution", "virtue", "--control", "placebo"]
    found["refusal-only-0"] = ["--constitution", "virtue", "--control", "refusal-only"]
    every = [word for name in CONSTITUTIONS for word in ("--constitution", name)]
    found["shuffled-0"] = [*every, "--control", "shuffled"]
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
