"""Which training data would push a model towards a persona, before anything is trained.

The projection difference of persona vectors (Chen et al. 2025, arXiv:2507.21509): the reply that
the data would teach, minus the reply that the model gives by itself, read over the same prompt
and projected onto a direction. Replies that the model would have given anyway push nowhere.

The unit is the standard deviation of the model's own replies along the direction. Random
directions are read beside it: a data set that merely differs in style or length moves along those
too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from persona_probe.activations.capture import capture
from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.statistics import Estimate, mean_interval, permutation_p
from persona_probe.steering.arm import Arm
from persona_probe.steering.generation import generate

RANDOM_DRAWS = 200
RESAMPLES = 2000


@dataclass(frozen=True)
class Flagged:
    """How far one data set would push a model along one direction.

    Attributes:
        persona: whose direction. layer: where.
        shift: mean over samples, in standard deviations of the model's own replies, with an
            interval over prompt families.
        random: the same along random directions: mean and middle 95% of them.
        p: share of random directions that are pushed at least as far, in either sense.
        unit: one standard deviation, in residual units.
        samples: each sample's shift, in the order of the data.
    """

    persona: str
    layer: int
    shift: Estimate
    random: Estimate
    p: float
    unit: float
    samples: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "persona": self.persona,
            "layer": self.layer,
            "shift": self.shift.to_json(),
            "random": self.random.to_json(),
            "p": self.p,
            "unit": self.unit,
        }


@dataclass(frozen=True)
class Flags:
    """All directions' results, and the data that they are about.

    Attributes:
        ids: of the samples. own: the model's own replies, in the same order.
        skipped: ids of samples to which the model gave no reply of its own.
        directions: one result each.
    """

    ids: tuple[str, ...]
    own: tuple[str, ...]
    skipped: tuple[str, ...]
    directions: tuple[Flagged, ...]

    def ranked(self) -> list[dict[str, Any]]:
        """One row per sample and direction, the farthest first; `rank` counts from 1."""
        rows = []
        for flagged in self.directions:
            order = np.argsort(-np.array(flagged.samples), kind="stable")
            for rank, i in enumerate(order, start=1):
                rows.append(
                    {
                        "id": self.ids[i],
                        "direction": flagged.persona,
                        "site": flagged.layer,
                        "shift": flagged.samples[i],
                        "rank": rank,
                        "of": len(self.ids),
                        "own_reply": self.own[i],
                    }
                )
        return rows


def flag(
    model: ResidualModel,
    conversations: Sequence[Conversation],
    directions: Sequence[Direction],
    position: str = "response_mean",
    adapter: str | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
) -> Flags:
    """Project what data would teach, minus what the model says by itself, onto directions.

    Args:
        model: the model before finetuning; left as it was found.
        conversations: training samples; each ends with the reply to be learnt.
        directions: found in this model; at a position of the reply, best at `position`.
        position: where replies are read: response_mean, or response_first:K.
        adapter: LoRA adapter of the model before.
        max_new_tokens: room for the model's own, greedy reply.
        seed: of the random directions and of the intervals.

    Raises:
        RequestError: a sample has no reply, there are fewer than two, or the position is not in
            the reply.
        PersonaProbeError: the model gives no reply of its own to any prompt.
    """
    if position != "response_mean" and not position.startswith("response_first:"):
        raise RequestError(
            f"the position {position!r} lies before the reply, where a sample and the model's own "
            "reply are alike; choose response_mean or response_first:K"
        )
    if unanswered := [c.id for c in conversations if c.reply is None]:
        raise RequestError(f"sample {unanswered[0]!r} has no reply that could be learnt")
    for direction in directions:
        direction.check_fits(model)
    named = [replace(c, id=f"{i}", metadata={}) for i, c in enumerate(conversations)]
    prompts = [replace(c, messages=c.messages[:-1]) for c in named]
    # Several samples may answer one prompt; the model's own reply to it is one.
    asked = list({prompt.messages: prompt for prompt in prompts}.values())
    written = generate(
        model, asked, [Arm("own", adapter=adapter)], max_new_tokens, description="Own replies"
    )
    said = {p.messages: reply.text for p, reply in zip(asked, written, strict=True)}
    own = [said[prompt.messages] for prompt in prompts]
    kept = [i for i, text in enumerate(own) if text.strip()]
    if len(kept) < 2:
        raise PersonaProbeError(
            f"{model.label} gives a reply of its own to {len(kept)} of {len(own)} prompts; two are "
            "needed to compare"
        )
    sites = sorted({d.site for d in directions})
    pairs = [named[i] for i in kept]
    answered = [p for p in asked if said[p.messages].strip()]
    place = {p.messages: len(pairs) + i for i, p in enumerate(answered)}
    pairs += [p.with_reply(said[p.messages]) for p in answered]
    pairs = [replace(c, id=f"{i}") for i, c in enumerate(pairs)]
    read = capture(model, pairs, sites, [position], adapter=adapter, description="Reading replies")
    values = read[position]
    rows = [*range(len(kept)), *(place[prompts[i].messages] for i in kept)]
    families = [conversations[i].family or str(conversations[i].id) for i in kept]

    def projected(several: Sequence[Direction]) -> Float[np.ndarray, "direction reply"]:
        along = [values.site(d.site).double() @ d.unit.double() for d in several]
        found: np.ndarray = torch.stack(along).numpy()[:, rows]
        return found

    found = []
    for direction in directions:
        random = isotropic({direction.site: direction}, RANDOM_DRAWS, seed)
        shifts, unit = _shifts(projected([direction]), len(kept))
        nulls, _ = _shifts(projected([draw[direction.site] for draw in random]), len(kept))
        means = nulls.mean(axis=1)
        estimate = mean_interval(shifts[0], families, resamples=RESAMPLES, seed=seed)
        found.append(
            Flagged(
                direction.persona,
                direction.site.layer,
                estimate,
                Estimate.of_draws(means),
                permutation_p(abs(estimate.value), np.abs(means)),
                float(unit[0]),
                tuple(shifts[0].tolist()),
            )
        )
    left = set(kept)
    names = [str(c.id if c.id is not None else i) for i, c in enumerate(conversations)]
    return Flags(
        ids=tuple(names[i] for i in kept),
        own=tuple(own[i] for i in kept),
        skipped=tuple(name for i, name in enumerate(names) if i not in left),
        directions=tuple(found),
    )


def _shifts(
    projections: Float[np.ndarray, "direction reply"], n: int
) -> tuple[Float[np.ndarray, "direction sample"], Float[np.ndarray, " direction"]]:
    """Each sample's reply minus the model's own, in standard deviations of the latter."""
    taught, own = projections[:, :n], projections[:, n:]
    unit = own.std(axis=1, ddof=1)
    if not (unit > 0).all() or not math.isfinite(float(unit.sum())):
        raise PersonaProbeError(
            "the model's own replies all project alike, so a shift has no unit; give more and "
            "different samples"
        )
    return (taught - own) / unit[:, None], unit
