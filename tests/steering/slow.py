"""What steering means, written down slowly: one sequence, no cache, position by position.

Every formula is spelled out a second time here, in float64 and without the package's operations,
so that an error in one of them shows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add, Clamp, Patch, Rotate, Subspace
from persona_probe.steering.arm import Intervention


def weight(schedule: str, position: int, prompt_length: int) -> float:
    """How much of an operation a position of a sequence gets."""
    span, _, shape = schedule.rpartition("/")
    if ":" not in shape:
        span, shape = shape, ""
    span = span or "response"
    inside = {
        "prompt": position < prompt_length,
        "last_prompt_token": position == prompt_length - 1,
        "response": position >= prompt_length,
        "both": True,
    }[span]
    if not inside or not shape:
        return float(inside)
    t = position - prompt_length if span == "response" else position
    kind, setting = shape.split(":")
    k = float(setting)
    return {
        "first": float(t < k),
        "from": float(t >= k),
        "linear": max(0.0, 1 - t / k),
        "exponential": 0.5 ** (t / k),
    }[kind]


def changed(
    i: Intervention, h: torch.Tensor, site: Site, weight: float, ids: Sequence[int], at: int
) -> torch.Tensor:
    """One residual vector after one intervention."""
    op, v, h = i.operation, i.direction.unit.double(), h.double()
    p = h @ v

    def here(value: Any) -> Any:
        return value[site] if isinstance(value, Mapping) else value

    if isinstance(op, Add):
        size = {"norm": i.direction.norm, "gap": i.direction.gap, "raw": 1.0}[op.units]
        return h + weight * op.strength * size * v
    if isinstance(op, Ablate):
        return h - p * v + (here(op.level) or 0.0) * v
    if isinstance(op, Clamp):
        low, high = here(op.low), here(op.high)
        if op.units == "gap":
            low, high = (i.direction.midpoint + b * i.direction.gap for b in (low, high))
        return h - p * v + min(max(float(p), low), high) * v
    if isinstance(op, Patch):
        return h - p * v + op.projections[tuple(ids)][site][at].double() * v
    if isinstance(op, Subspace):
        vectors = torch.stack([v, *(d.unit.double() for d in op.others)])
        projector = torch.linalg.pinv(vectors) @ vectors
        x = torch.zeros_like(h) if op.offset is None else here(op.offset).double()
        return h + projector @ ((op.scale - 1) * h + x)
    assert isinstance(op, Rotate)
    angle = float(torch.acos(p / h.norm()))
    turn = math.radians(op.strength) * weight
    if op.units == "share":
        turn = op.strength * weight * (angle if op.strength > 0 else math.pi - angle)
    after = min(max(angle - turn, 0.0), math.pi)
    sideways = h - p * v
    return h.norm() * (math.cos(after) * v + math.sin(after) * sideways / sideways.norm())


def steered_logits(
    model: Any, ids: Sequence[int], prompt_length: int, interventions: Sequence[Intervention]
) -> torch.Tensor:
    """Logits [pos vocab] of one sequence under interventions, the whole of it recomputed."""
    on: dict[int, bool] = {}

    def hook(site: Site) -> Any:
        def change(resid: torch.Tensor) -> torch.Tensor:
            resid = resid.clone()
            for number, i in enumerate(interventions):
                c = i.condition
                if c is not None and c.site == site:
                    first = prompt_length - 1 if c.at == "last_prompt_token" else 0
                    read = resid[0, first:prompt_length].double() @ c.direction.unit.double()
                    found = float(read.mean())
                    if c.units == "gap":
                        found = (found - c.direction.midpoint) / c.direction.gap
                    on[number] = found > c.threshold
                if site not in i.where or (c is not None and not on[number]):
                    continue
                for at in range(len(ids)):
                    if w := weight(i.when, at, prompt_length):
                        resid[0, at] = changed(i, resid[0, at], site, w, ids, at).float()
            return resid

        return change

    sites = sorted({site for i in interventions for site in i.touched})
    row = torch.tensor([list(ids)])
    with torch.no_grad(), model.hooks([(site, hook(site)) for site in sites]):
        logits: torch.Tensor = model.logits(row, torch.ones_like(row), torch.arange(len(ids))[None])
    return logits[0]
