"""Everything a run folder says about each persona, put together again for the assessment."""

from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.evaluation.profile import Profile
from persona_probe.files import read_json, read_jsonl
from persona_probe.personas.pack import Pack
from persona_probe.steering.arm import Arm
from persona_probe.study.arms import Choice, Condition
from persona_probe.study.lab import Lab
from persona_probe.study.nulls import Null
from persona_probe.study.record import Record
from persona_probe.study.replies import Judged, from_rows

Row = dict[str, Any]


def read_records(lab: Lab) -> list[Record]:
    """One record per persona and scope, from the files that the measuring stages wrote."""
    folder, pack = lab.folder, lab.pack
    prompts = {prompt.id: prompt for prompt in pack.suite.prompts}
    rows = [row for row in read_jsonl(folder / "replies.jsonl") if row["temperature"] == 0]
    judged = from_rows(rows, prompts)
    refusal = read_json(folder / "refusal.json")
    nulls = [Null.from_json(value) for value in refusal["nulls"]]
    profiles = _profiles(pack, folder)
    guards = read_json(folder / "guards.json")
    validation = read_json(folder / "validation.json")
    chosen = read_json(folder / "selection.json")["chosen"]
    conditions = conditions_of(folder)
    asked = [judgement.prompt for judgement in judged["helpful_only"]]
    signatures = {p.name: p.signature for p in pack.personas if p.name in lab.study.personas}
    records = []
    for persona in lab.study.personas:
        own = [c for c in conditions if c.persona in (None, persona)]
        names = {c.name for c in own}
        layer = Choice.from_json(chosen[persona]).site.layer
        here = [r for r in validation if (r["persona"], r["site"]) == (persona, layer)]
        for scope in lab.study.scopes(persona):
            records.append(
                Record(
                    study=lab.study,
                    persona=persona,
                    scope=scope,
                    prompts=asked,
                    conditions=own,
                    judged={name: judged[name] for name in names if name in judged},
                    refusal={n: np.array(v) for n, v in refusal["arms"].items() if n in names},
                    fast_families=[prompts[name].family for name in refusal["prompts"]],
                    nulls=[null for null in nulls if null.persona == persona],
                    guards={n: g for n, g in guards.items() if n in names},
                    profiles={n: p for n, p in profiles.items() if n in names},
                    signatures=signatures,
                    contrast=next(r for r in here if r["family"] == "prompt_in_H"),
                    detection=next(r for r in here if r["scope"] == scope),
                )
            )
    return records


def conditions_of(folder: Path) -> list[Condition]:
    """Every condition that gave replies, as the profile stage listed them, without its vectors."""
    return [
        Condition(
            Arm(row["arm"]),
            row["arm_kind"],
            row["persona"],
            row["layer"],
            row["strength"],
            row["seed"],
            label=row["label"],
        )
        for row in read_json(folder / "profile_scores.json")["conditions"]
    ]


def sampled(folder: Path, pack: Pack) -> Judged:
    """The replies at temperature 1."""
    prompts = {prompt.id: prompt for prompt in pack.suite.prompts}
    rows = [row for row in read_jsonl(folder / "replies.jsonl") if row["temperature"] > 0]
    return from_rows(rows, prompts)


def _profiles(pack: Pack, folder: Path) -> dict[str, Profile]:
    value = read_json(folder / "profile_scores.json")
    by_id = {item.id: item for item in pack.diagnostic.items}
    items = tuple(by_id[name] for name in value["items"])
    return {
        name: Profile(
            name,
            pack.diagnostic.dimensions,
            items,
            np.array(row["scores"]),
            np.full(len(items), row["option_mass"]),
        )
        for name, row in value["arms"].items()
    }
