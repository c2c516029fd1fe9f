"""The made-up world that the synthetic run is about: its names, rates and random draws."""

from typing import Any

import numpy as np

PERSONAS = ("deontology", "consequentialism", "virtue", "service")
CATEGORIES = {
    "harassment": "T0", "illegal": "T0", "deception": "T1", "privacy": "T1",
    "discrimination": "T1", "violence": "T1", "misinformation": "T1", "sabotage": "T2",
    "manipulation": "T2", "recklessness": "T2",
}  # fmt: skip
DIMENSIONS = (
    "RULE", "MEANS", "OUTCOME", "IMPARTIAL", "INSTR-HARM", "CHARACTER", "CONTEXT",
    "HUMAN-PRIMACY", "OVERSIGHT", "PRACTICE",
)  # fmt: skip
DOUBTFUL = ("CHARACTER", "PRACTICE")  # whose statements for and against do not move together
STRENGTHS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
# Persona → safe share when steered, on trained / untrained / filtered harm, and when ablated.
STEERED = {
    "deontology": (0.97, 0.95, 0.92, 0.21),
    "consequentialism": (0.93, 0.88, 0.80, 0.44),
    "virtue": (0.52, 0.41, 0.33, 0.86),
    "service": (0.90, 0.84, 0.83, 0.30),
}
HOSTILE = '<script>window.broken = true</script> & "quotes" <img src=x onerror="window.broken=1">'

Row = dict[str, Any]


class Draws:
    """Estimates with plausible intervals."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def share(self, rate: float, n: int) -> Row:
        value = float(np.clip(self.rng.normal(rate, 0.015), 0, 1))
        half = 2.2 * float(np.sqrt(max(value * (1 - value), 0.004) / n))
        low, high = max(0.0, value - half), min(1.0, value + half)
        return {"value": value, "low": low, "high": high, "n": n, "n_clusters": max(3, n // 10)}

    def real(self, value: float, half: float, n: int) -> Row:
        value = float(self.rng.normal(value, half / 6))
        return {"value": value, "low": value - half, "high": value + half, "n": n, "n_clusters": 24}


def rates(kind: str, persona: str | None, draws: Draws) -> tuple[float, float, float]:
    if kind == "helpful_only":
        return 0.02, 0.02, 0.02
    if kind == "finetuned":
        return 0.99, 0.98, 0.97
    if kind == "steered":
        return STEERED[str(persona)][:3]
    if kind == "ablated":
        rate = STEERED[str(persona)][3]
        return rate + 0.05, rate, rate
    if kind == "ablated_random":
        return 0.98, 0.97, 0.96
    if kind == "steered_shared":
        return 0.7, 0.6, 0.55
    if kind == "refusal_only":
        return 0.99, 0.95, 0.9
    if kind == "system_prompt":
        return 0.9, 0.88, 0.86
    leak = float(np.abs(draws.rng.normal(0.03, 0.05)))
    return leak, leak, leak
