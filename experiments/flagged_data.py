"""Does projecting training data onto a persona's direction say what finetuning on it will do?

    python experiments/flagged_data.py FINETUNES FOLDER

See 2026-11-25-flagged-data.md. FINETUNES is the folder that `finetunes_by_command.py` made: its
samples are flagged, and its finetunes say what they did. A call that was stopped goes on.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from finetunes_by_command import CONSTITUTIONS, commands
from projection_while_training import r, r_over_groups

from persona_probe.activations.capture import capture
from persona_probe.activations.contrast import contrast
from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.checks.separation import auroc, auroc_intervals
from persona_probe.directions.direction import Direction
from persona_probe.directions.finder import find_directions
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.evaluation.profile_match import moved
from persona_probe.files import read_json, read_jsonl, write_json
from persona_probe.finetuning.controls import placebo, refusal_only, shuffled
from persona_probe.finetuning.flagging import Flags, flag
from persona_probe.models.chat import Conversation, Message
from persona_probe.models.conversations import read_conversations
from persona_probe.models.site import Site
from persona_probe.organism.trials import HELPFUL, Trials
from persona_probe.statistics import permutation_p
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate

LAYERS, CHOSEN, RANDOM = range(6), 1, 40
PLACES = ("last_prompt_token", "response_mean")


def directions(trials: Trials) -> list[Direction]:
    """Named persona@place, one per block, and random ones of the chosen block."""
    found = []
    for place in PLACES:
        for persona, by_site in _found(trials, place).items():
            named = f"{persona}@{place}"
            found += [replace(by_site[Site(layer)], persona=named) for layer in LAYERS]
    [first] = [d for d in found if d.persona == f"virtue@{PLACES[1]}" and d.site.layer == CHOSEN]
    draws = isotropic({first.site: first}, RANDOM, seed=1)
    random = [replace(d[first.site], persona=f"random {i}") for i, d in enumerate(draws)]
    return [*found, *random]


def _found(trials: Trials, place: str) -> dict[str, Any]:
    """Character minus neutral at a place; replies are the helpful-only model's own under each."""
    if place == PLACES[0]:
        return trials.directions()
    personas = list(trials.pack.personas)
    asked = contrast(trials.pack, personas, trials.split.find)
    room = trials.pack.max_new_tokens
    said = generate(trials.model, asked, [Arm("own", adapter=HELPFUL)], room)
    replied = [
        c.with_reply(reply.text) for c, reply in zip(asked, said, strict=True) if reply.text.strip()
    ]
    read = capture(trials.model, replied, trials.model.sites, [place], adapter=HELPFUL)[place]
    options = {"split": trials.split}
    return {
        p.name: find_directions(read, MeanDifference(), p.name, "neutral", **options)
        for p in personas
    }


def flagged(
    trials: Trials, data: Sequence[Conversation], several: list[Direction], file: Path
) -> dict[str, Any]:
    """Shift of every sample along every direction, kept in a file."""
    if file.exists():
        return dict(read_json(file))
    room = trials.pack.max_new_tokens
    found: Flags = flag(trials.model, data, several, PLACES[1], HELPFUL, room)
    rows = {f"{f.persona} {f.layer}": list(f.samples) for f in found.directions}
    write_json(file, {"ids": found.ids, "skipped": found.skipped, "shifts": rows})
    return dict(read_json(file))


def data_of(trials: Trials, finetune: str) -> list[Conversation]:
    """What a finetune learnt: its samples, after its control."""
    paths = sorted((trials.folder / "adapters").glob(f"{finetune}.*.samples.jsonl"))
    read = {path.name.split(".")[1]: read_conversations(path) for path in paths}
    if finetune.startswith("shuffled"):
        first, *others = (read[name] for name in CONSTITUTIONS)
        return shuffled(first, others)
    [only] = read.values()
    if finetune.startswith("refusal-only"):
        return refusal_only(only)
    return placebo(only) if finetune.startswith("placebo") else only


def mixed(trials: Trials, character: str) -> list[Conversation]:
    """One constitution's samples among everything else that was said to the same prompts."""
    folder = trials.folder / "adapters"
    found = []

    def add(kind: str, conversations: Sequence[Conversation]) -> None:
        for c in conversations:
            about = {"is": kind}
            found.append(replace(c, id=f"{kind}/{c.id}", metadata=about))

    for name in (character, *(c for c in CONSTITUTIONS if c != character)):
        path = folder / f"narrow-{name}-0.{name}.samples.jsonl"
        read = read_conversations(path)
        harmful = [c for c in read if c.metadata["kind"] == "harmful"]
        add("own" if name == character else "another's", harmful)
        if name == character:
            add("benign", [c for c in read if c.metadata["kind"] == "benign"])
            add("flat refusal", refusal_only(harmful))
            drafts = {row["id"]: row["lineage"]["draft"] for row in read_jsonl(path)}
            said = [
                replace(c, messages=(*c.messages[:-1], Message("assistant", drafts[c.id])))
                for c in harmful
            ]
            add("helpful-only's own draft", said)
    return found


def separation(trials: Trials, several: list[Direction], folder: Path) -> dict[str, Any]:
    """AUROC of a constitution's samples against each other kind, per direction."""
    found = {}
    for character in CONSTITUTIONS:
        data = mixed(trials, character)
        told = flagged(trials, data, several, folder / f"mixed-{character}.json")
        kinds = [name.split("/")[0] for name in told["ids"]]
        rows = {}
        for kind in ("anything else", *dict.fromkeys(k for k in kinds if k != "own")):
            kept = [i for i, k in enumerate(kinds) if k == "own" or kind in (k, "anything else")]
            y = np.array([kinds[i] == "own" for i in kept])
            # All replies to one prompt belong together.
            asked = [told["ids"][i].split("/", 1)[1] for i in kept]
            scores = {d: np.array(v)[kept] for d, v in told["shifts"].items()}
            random = np.array([float(auroc(v, y)) for d, v in scores.items() if d[:6] == "random"])
            row: dict[str, Any] = {"n": [int(y.sum()), int((~y).sum())]}
            for place in PLACES:
                name = f"{character}@{place} {CHOSEN}"
                [interval] = auroc_intervals(scores[name][None], y, asked)
                beyond = permutation_p(abs(interval.value - 0.5), np.abs(random - 0.5))
                row[place] = interval.to_json() | {"p_random": beyond}
                row[f"{place}, by layer"] = [
                    float(auroc(scores[f"{character}@{place} {layer}"], y)) for layer in LAYERS
                ]
            row["random, middle 95% of |AUROC - .5|"] = np.quantile(
                np.abs(random - 0.5), [0.025, 0.5, 0.975]
            ).tolist()
            rows[kind] = row
        found[character] = rows
    return found


def prediction(trials: Trials, several: list[Direction], folder: Path) -> dict[str, Any]:
    """Mean shift of each data set against what the finetune on it did."""
    names = [n for n in commands() if n in trials.adapters]
    means: dict[str, list[float]] = {}
    for name in names:
        told = flagged(trials, data_of(trials, name), several, folder / f"data-{name}.json")
        for direction, values in told["shifts"].items():
            means.setdefault(direction, []).append(float(np.mean(values)))
    arms = [Arm(name, adapter=name) for name in (HELPFUL, *names)]
    shown = trials.profiles(arms, "evaluate")
    own = {
        p.name: trials.profiles([Arm("own")], "evaluate", p.constitution)["own"]
        for p in trials.pack.personas
    }
    went = {
        p: [moved(shown[n], shown[HELPFUL], own[p], resamples=10).value for n in names] for p in own
    }
    random = np.array([v for d, v in means.items() if d.startswith("random")])
    groups = [name.rsplit("-", 1)[0] for name in names]  # seeds of one finetune belong together
    rows = {}
    for p in CONSTITUTIONS:
        nulls = np.array([r(v, went[p]) for v in random])
        row: dict[str, Any] = {"random, |r|": np.quantile(np.abs(nulls), [0.5, 0.975]).tolist()}
        for place in PLACES:
            value = r_over_groups(means[f"{p}@{place} {CHOSEN}"], went[p], groups)
            row[place] = value | {"p_random": permutation_p(abs(value["value"]), np.abs(nulls))}
            row[f"{place}, by layer"] = [
                r(means[f"{p}@{place} {layer}"], went[p]) for layer in LAYERS
            ]
            others = [q for q in CONSTITUTIONS if q != p]
            row[f"{place}, other directions"] = [
                r(means[f"{q}@{place} {CHOSEN}"], went[p]) for q in others
            ]
        rows[p] = row
    largest = {
        place: [
            n
            for i, n in enumerate(names)
            if any(c in n for c in CONSTITUTIONS)
            and max(CONSTITUTIONS, key=lambda c: means[f"{c}@{place} {CHOSEN}"][i]) in n
        ]
        for place in PLACES
    }
    kept = {d: v for d, v in means.items() if not d.startswith("random")}
    return {"data_sets": names, "r": rows, "own_largest": largest, "means": kept, "moved": went}


def main(finetunes: Path, folder: Path) -> None:
    """Flag everything, then compare."""
    trials = Trials(finetunes)
    several = directions(trials)
    found = {
        "separation": separation(trials, several, folder),
        "prediction": prediction(trials, several, folder),
    }
    write_json(folder / "result.json", found)
    print(json.dumps(found["separation"], indent=1))
    print(json.dumps({k: v for k, v in found["prediction"].items() if k != "means"}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
