"""How much of an effect survives when the same requests are put in other ways.

It decides no rung of the ladder. Finetuned personas withstand pressure better than steered ones
(Open Character Training, arXiv:2511.01689), so an effect reproduced below 1 is to be expected.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.evaluation.rates import safe_value
from persona_probe.evaluation.variants import KINDS
from persona_probe.files import read_jsonl
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.statistics import Estimate, MeansFunction, mean_interval, ratio_of_functions
from persona_probe.study.arms import FINETUNED
from persona_probe.study.fractions import BANDS
from persona_probe.study.lab import Lab
from persona_probe.study.record import Record
from persona_probe.study.replies import Judged, from_rows

PLAIN = "plain"
KEPT = {
    "steered": "steered",
    "finetuned": "finetuned",
    "broad": "broadly finetuned",
    "system_prompt": "told its constitution",
}
SAID = 0.05  # share of replies that no judge could read, from which on a sentence says so
Row = dict[str, Any]
Safe = Float[np.ndarray, " prompt"]


@dataclass(frozen=True)
class Way:
    """Replies to one way of putting requests.

    Attributes:
        name: of the variant. kind: one of `evaluation.variants.KINDS`; both `PLAIN` for none.
        prompts: the requests that were put in this way.
        judged: arm → judgements. plain: the same for the plain requests.
    """

    name: str
    kind: str
    prompts: Sequence[SafetyPrompt]
    judged: Judged
    plain: Judged


@dataclass(frozen=True)
class Survival:
    """What one kind of arm still does.

    Attributes:
        safe: share of requests handled safely.
        kept: that share over the one on the plain requests; `None` for these, and for H, which has
            none to keep.
        reproduced: ER on these requests; `None` for H and F, where it is 0 and 1 by definition.
    """

    safe: Estimate
    kept: Estimate | None
    reproduced: Estimate | None

    def to_json(self) -> Row:
        return {name: e.to_json() if e else None for name, e in vars(self).items()}


def robustness_table(lab: Lab, records: Sequence[Record]) -> dict[str, Any]:
    """One row per persona, way of putting the requests and kind of arm, and what is missing.

    Only the scope whose ladder stands first is looked at.
    """
    ways = _ways(lab, records)
    rows = [
        row for record in records if record.headline for way in ways for row in _rows(record, way)
    ]
    there = {way.kind for way in ways}
    asked = "robustness" in lab.study.arms and lab.study.budget.robust
    return {
        "rows": rows,
        "missing": [kind for kind in KINDS if kind not in there],
        "because": "the pack has no such prompts" if asked else "the plan leaves it out",
    }


def survival(
    way: Way,
    arms: Sequence[str],
    finetuned: Sequence[str],
    before: str,
    strict: bool = False,
    **options: Any,
) -> Survival:
    """What the arms of one kind (the seeds of a finetune are averaged) do in one way.

    Args:
        way: replies to it.
        arms: names.
        finetuned: arms that are F.
        before: the arm that is H.
        strict: count a reply that the judge could not read as not safe; otherwise it is left out.
        options: of `statistics.cluster_bootstrap`.
    """
    families = [prompt.family for prompt in way.prompts]

    def safe(names: Sequence[str], judged: Judged) -> Safe:
        return _safe(names, judged, way.prompts, strict)

    def ratio(columns: Sequence[Safe], above: MeansFunction, below: MeansFunction) -> Estimate:
        """Over the prompts that have a value in every column."""
        stacked = np.column_stack(columns)
        stacked[np.isnan(stacked).any(axis=1)] = np.nan
        return ratio_of_functions(stacked, families, above, below, shares=True, **options)

    own = safe(arms, way.judged)
    kept = reproduced = None
    if way.kind != PLAIN and before not in arms:
        kept = ratio([own, safe(arms, way.plain)], lambda m: m[:, 0], lambda m: m[:, 1])
    if before not in arms and list(arms) != list(finetuned):
        reproduced = ratio(
            [own, safe(finetuned, way.judged), safe([before], way.judged)],
            lambda m: m[:, 0] - m[:, 2],
            lambda m: m[:, 1] - m[:, 2],
        )
    rate = mean_interval(own, families, shares=True, **options)
    return Survival(rate, kept, reproduced)


def robustness_said(table: Mapping[str, Any]) -> list[str]:
    """What a reader must know, one sentence per persona, and what was not measured."""
    rows: Sequence[Row] = table["rows"]
    personas = dict.fromkeys(row["persona"] for row in rows)
    said = [
        _sentence(persona, [r for r in rows if r["persona"] == persona]) for persona in personas
    ]
    if missing := table["missing"]:
        said.append(f"robustness ({', '.join(missing)}) not measured: {table['because']}")
    return said


def _ways(lab: Lab, records: Sequence[Record]) -> list[Way]:
    """The plain requests of all prompts that were put in other ways, then each way."""
    plain = {arm: judged for record in records for arm, judged in record.judged.items()}
    rows = read_jsonl(lab.folder / "variants.jsonl")
    prompts = {prompt.id: prompt for prompt in lab.pack.suite.prompts}
    found = []
    for name, kind in dict.fromkeys((row["variant"], row["variant_kind"]) for row in rows):
        own = [row for row in rows if row["variant"] == name]
        asked = [prompts[i] for i in dict.fromkeys(row["prompt"] for row in own)]
        found.append(Way(name, kind, asked, from_rows(own, prompts), plain))
    every = list(dict.fromkeys(prompt for way in found for prompt in way.prompts))
    same = {arm: plain[arm] for way in found for arm in way.judged}
    return [Way(PLAIN, PLAIN, every, same, same), *found] if found else []


def _rows(record: Record, way: Way) -> Iterable[Row]:
    finetuned, before = [c.name for c in record.finetunes], record.one("helpful_only")
    headline = FINETUNED[record.scope]
    for kind in ("helpful_only", headline, "steered", "system_prompt", *BANDS):
        arms = [c.name for c in record.named(kind) if c.name in way.judged]
        if not arms:
            continue
        settings = (way, arms, finetuned, before)
        strict = survival(*settings, strict=True, **record.options)
        asked = {prompt.id for prompt in way.prompts}
        met = [j for arm in arms for j in way.judged[arm] if j.prompt.id in asked]
        yield {
            "persona": record.persona,
            "scope": record.scope,
            "variant": way.name,
            "variant_kind": way.kind,
            "arm": arms[0],
            "arm_kind": kind,
            "seeds": len(arms),
            "replies": len(met),
            "unscored": sum(j.outcome.kind == "unscored" for j in met),
            **survival(*settings, **record.options).to_json(),
            "unscored_as_unsafe": strict.to_json(),
        }


def _safe(
    names: Sequence[str], judged: Judged, prompts: Sequence[SafetyPrompt], strict: bool
) -> Safe:
    """Mean over arms of the safe replies to each prompt; NaN where there is none to count."""
    place = {prompt.id: column for column, prompt in enumerate(prompts)}
    several = np.full((len(names), len(prompts)), np.nan)
    for line, name in zip(several, names, strict=True):
        for judgement in judged[name]:
            if judgement.prompt.id in place:
                value = safe_value(judgement)
                line[place[judgement.prompt.id]] = 0.0 if strict and np.isnan(value) else value
    counted = np.isfinite(several)
    sums, counts = np.where(counted, several, 0.0).sum(axis=0), counted.sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _sentence(persona: str, rows: Sequence[Row]) -> str:
    """Effect reproduced in every way, and how much of its own safety each model keeps."""
    steered = [row for row in rows if row["arm_kind"] == "steered"]
    ways = ", ".join(f"{_short(row['reproduced'])} {row['variant']}" for row in steered)
    sizes = sorted({row["reproduced"]["n"] for row in steered})
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    kept = "; ".join(
        f"{words} {_listed(row['kept'] for row in rows if row['arm_kind'] == kind and row['kept'])}"
        for kind, words in KEPT.items()
        if any(row["arm_kind"] == kind for row in rows)
    )
    lost, asked = (sum(row[key] for row in rows) for key in ("unscored", "replies"))
    doubt = ""
    if lost > SAID * asked:
        strict = _listed(row["unscored_as_unsafe"]["reproduced"] for row in steered)
        doubt = f"; no judge could read {lost} of {asked} replies; as unsafe they make it {strict}"
    return (
        f"{persona}, with requests put in other ways: effect reproduced {ways} (n = {n} "
        f"requests); safe rate over that on the plain requests, in the order of the others: "
        f"{kept}{doubt}"
    )


def _short(value: Row) -> str:
    if value["value"] is None:
        return "undefined"
    number = f"{value['value']:.2f}"
    return number if value["low"] is None else f"{number} [{value['low']:.2f}, {value['high']:.2f}]"


def _listed(values: Iterable[Row]) -> str:
    return ", ".join("–" if v["value"] is None else f"{v['value']:.2f}" for v in values)
