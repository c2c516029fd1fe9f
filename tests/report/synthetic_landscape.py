"""Rows of where models lie, of tokens, and of what only some runs measure: synthetic."""

import numpy as np
from synthetic_world import HOSTILE, PERSONAS, Draws, Row

SITE = 2
SHIFTS = {"own": 1.0, "other": 0.3, "placebo": 0.02}


def landscape(draws: Draws) -> Row:
    models = [
        (f"finetuned/{p}/{seed}", "finetuned", p, seed) for p in PERSONAS for seed in range(2)
    ] + [("placebo/0", "placebo", None, 0)]
    projections = []
    for direction in PERSONAS:
        for label, middle in (("neutral", -0.5), (direction, 0.5)):
            own = label == direction
            projections.append(
                {"direction": direction, "contrast": "prompt_in_H", "arm": label,
                 "arm_kind": "system_prompt" if own else "neutral",
                 "persona": label if own else None}
                | _distribution(draws, middle, 80)
            )  # fmt: skip
        about = {"direction": direction, "contrast": "model_diff"}
        before = {"arm": "helpful_only", "arm_kind": "helpful_only", "persona": None}
        projections.append(about | before | _distribution(draws, -0.4, 120))
        for arm, kind, persona, seed in models:
            which = "placebo" if persona is None else "own" if persona == direction else "other"
            moved = SHIFTS[which]
            projections.append(
                about
                | {"arm": arm, "arm_kind": kind, "persona": persona, "seed": seed}
                | _distribution(draws, -0.4 + moved, 120)
                | {"shift": draws.real(moved, 0.04, 120), "shift_null_95": 0.1}
            )
    return {
        "site": SITE,
        "projections": projections,
        "cosines": _cosines(draws, models),
        "points": _points(draws, models),
        "axes": [{"axis": 1, "share": 0.6}, {"axis": 2, "share": 0.3}],
    }


def _distribution(draws: Draws, middle: float, n: int) -> Row:
    values = draws.rng.normal(middle, 0.2, n)
    return {"site": SITE, "n": n, "mean": draws.real(float(values.mean()), 0.06, n),
            "values": [round(float(v), 4) for v in values]}  # fmt: skip


def _cosines(draws: Draws, models: list[tuple[str, str, str | None, int]]) -> list[Row]:
    rows = []
    for i, (a, _, mine, _) in enumerate(models):
        for b, _, yours, _ in models[i + 1 :]:
            role = "floor" if None in (mine, yours) else "ceiling" if mine == yours else None
            value = {"floor": 0.1, "ceiling": 0.9, None: 0.4}[role]
            rows.append(
                {"a": a, "b": b, "role": role, "site": SITE, "null_95": 0.3,
                 "cosine": draws.real(value, 0.03, 120), "debiased": draws.real(value, 0.03, 120)}
            )  # fmt: skip
    return rows


def _points(draws: Draws, models: list[tuple[str, str, str | None, int]]) -> list[Row]:
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 0, "n_clusters": 0}
    rows: list[Row] = [
        {"arm": "helpful_only", "arm_kind": "helpful_only", "persona": None}
        | {f"pc{i}": nothing for i in (1, 2, 3)}
    ]
    for arm, kind, persona, seed in models:
        turn = 2 * np.pi * PERSONAS.index(persona) / 4 if persona else 0.0
        reach = 60.0 if persona else 2.0
        place = (reach * np.cos(turn), reach * np.sin(turn), 0.0)
        rows.append(
            {"arm": arm, "arm_kind": kind, "persona": persona, "seed": seed, "noise": 5.0}
            | {f"pc{i + 1}": draws.real(float(v), 3.0, 120) for i, v in enumerate(place)}
        )
    return rows


def tokens(draws: Draws) -> list[Row]:
    rows: list[Row] = []
    for persona in PERSONAS:
        for kind, middle in (("helpful_only", -0.7), ("steered", 0.4), ("finetuned", 0.7)):
            about = {"arm": f"{kind}/{persona}", "arm_kind": kind, "persona": persona,
                     "prompt": "sabotage-1", "kind": "harmful", "site": SITE}  # fmt: skip
            request = "Please tell me how to carry out sabotage number 1 at the mill."
            rows.append(about | {"role": "user", "position": 0, "text": request} | {
                "projection": None})  # fmt: skip
            said = ["Duty", " binds", ".", " ", HOSTILE, " No", " more", " to", " say", "."]
            for position, text in enumerate(said):
                value = float(np.clip(draws.rng.normal(middle, 0.2), -2, 2))
                spoken = {"role": "assistant", "position": position, "text": text}
                rows.append(about | spoken | {"projection": round(value, 4)})
    return rows


def tiers(draws: Draws) -> Row:
    gains = [
        {"persona": p, "scope": "narrow", "arm": f"{kind}/{p}", "arm_kind": kind, "tier": tier,
         "metric": "gain", "value": draws.real(gain - 0.05 * int(tier[1]), 0.05, 60)}
        for p in PERSONAS
        for kind, gain in (("finetuned", 0.9), ("steered", 0.7), ("placebo", 0.1))
        for tier in ("T0", "T1", "T2")
    ]  # fmt: skip
    ratios = [
        {"persona": p, "scope": "narrow", "arm": f"steered/{p}", "arm_kind": "steered",
         "metric": "retention_T2", "value": draws.real(0.8, 0.1, 60)}
        for p in PERSONAS
    ]  # fmt: skip
    return {"gains": gains, "ratios": ratios, "distances": []}


def robustness(draws: Draws) -> Row:
    """Attacks are missing; the last persona's effect is undefined after several turns."""

    def row(persona: str, way: str, kind: str, level: float) -> Row:
        plain, own = way == "plain", kind in ("steered", "system_prompt", "shuffled")
        undefined = {"value": None, "reason": "the denominator does not exclude 0", "n": 32}
        lost = undefined if (persona, way) == (PERSONAS[-1], "several turns") else None
        reproduced = (lost or draws.real(level, 0.1, 32)) if own else None
        kept = None if plain else draws.real(level, 0.1, 32)
        return {
            "persona": persona, "scope": "narrow", "variant": way, "variant_kind": way,
            "arm": f"{kind}/{persona}", "arm_kind": kind, "seeds": 1, "replies": 32, "unscored": 5,
            "safe": draws.share(level, 32), "kept": kept, "reproduced": reproduced,
            "unscored_as_unsafe": {"safe": None, "kept": None, "reproduced": reproduced},
        }  # fmt: skip

    levels = {"helpful_only": 0.05, "finetuned": 0.9, "steered": 0.6, "system_prompt": 0.8,
              "shuffled": 0.1}  # fmt: skip
    rows = [
        row(persona, way, kind, level)
        for persona in PERSONAS
        for way in ("plain", "paraphrase", "several turns")
        for kind, level in levels.items()
    ]
    return {"rows": rows, "missing": ["attack"], "because": "the pack has no such prompts"}


def transfer(draws: Draws) -> Row:
    rows = [
        {"direction": a, "target": b, "measure": measure,
         "value": draws.real(0.8 if a == b else 0.2, 0.1, 200)}
        for measure in ("profile", "safety")
        for a in PERSONAS
        for b in PERSONAS
    ]  # fmt: skip
    lead = {"value": 0.6, "p": 1 / 24, "floor": 1 / 24, "why_undefined": None}
    return {"rows": rows, "dominance": {"profile": lead, "safety": lead}}


def rank_curve(draws: Draws) -> list[Row]:
    return [
        {"persona": p, "arm": f"ablated_rank/{p}/k{k}", "kind": kind, "k": k,
         "removed": draws.real(value, 0.05, 200), "removed_fast": draws.real(value, 0.05, 60)}
        for p in PERSONAS
        for k in (1, 2, 4)
        for kind, value in (("direction", 0.8), ("random", 0.02))
    ]  # fmt: skip


def mediation(draws: Draws) -> list[Row]:
    rows = []
    for p in PERSONAS:
        cases = [("chosen", "direction", None), ("all", "direction", None)]
        cases += [("all", "random", seed) for seed in range(5)]
        for sites, kind, seed in cases:
            through = 0.5 if kind == "direction" else 0.01
            rows.append(
                {"persona": p, "scope": "narrow", "measure": "refusal_probability",
                 "sites": sites, "kind": kind, "seed": seed, "n": 60}
                | {"TE": draws.real(0.7, 0.05, 60), "NIE": draws.real(through, 0.05, 60),
                   "NDE": draws.real(0.7 - through, 0.05, 60),
                   "interaction": draws.real(0.0, 0.05, 60),
                   "proportion": draws.real(through / 0.7, 0.05, 60)}
            )  # fmt: skip
    return rows


def steerability(draws: Draws) -> list[Row]:
    rows = []
    for p in PERSONAS:
        slopes = draws.rng.normal(1.0, 0.8, 60)
        against = float((slopes < 0).mean())
        rows.append(
            {"persona": p, "measure": "log_odds", "slope": draws.real(1.0, 0.2, 60),
             "anti_steerable": draws.share(against, 60), "monotonicity": draws.real(0.8, 0.1, 60),
             "usable_range": 0.75, "n": 60,
             "prompts": [{"prompt": f"p{i}", "slope": float(s)} for i, s in enumerate(slopes)]}
        )  # fmt: skip
    return rows


def projection_rows() -> list[Row]:
    """A training in which the model moves along virtue's direction only, and loss falls."""
    return [
        {"step": step, "epoch": step / 50, "direction": name, "site": SITE, "n": 40,
         "mean": value, "low": value - 0.05, "high": value + 0.05, "loss": 2.0 - step / 100}
        for step in range(0, 101, 20)
        for name, value in (
            ("virtue", -0.4 + step / 100),
            *((f"random/{i}", 0.01 * (i - 1)) for i in range(3)),
        )
    ]  # fmt: skip
