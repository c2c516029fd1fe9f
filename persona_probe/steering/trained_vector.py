"""The best one vector there is, found by gradient: the ceiling of adding anything at one site.

A vector is trained so that the model gives other replies, say those of a finetuned one, their
likelihood (as in Subramani et al. 2022, arXiv:2205.05124), where and no longer than a direction is
added. What it reaches in likelihood says how much of a gap is the direction's fault, and how much
that of adding one vector at one place.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import RequestError
from persona_probe.models.chat import Tokens
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.progress import track
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention, require_fit
from persona_probe.steering.schedule import schedule_named
from persona_probe.steering.scoring import reply_log_probabilities

ROWS, RATE = 16, 0.1
MOST_KEPT = 2**15  # tokens of prompts whose keys and values are kept between steps
SNAPSHOTS = 4


@dataclass(frozen=True)
class TrainedVector:
    """A trained vector and what it gained.

    Attributes:
        direction: to be added as `Add(1, "gap")`: its `gap` is the vector's length.
        nats: mean negative log-likelihood per token of the replies to check by, replies counting
            alike: under "nothing", the "start" at the longest length, and the "trained" vector.
        step: of the snapshot that did best on these replies; 0 is the start.
        n_learnt, n_checked: replies trained on, and checked by.
    """

    direction: Direction
    nats: dict[str, float]
    step: int
    n_learnt: int
    n_checked: int


def train_vector(
    model: ResidualModel,
    start: Direction,
    longest: float,
    learnt: Sequence[Tokens],
    checked: Sequence[Tokens],
    adapter: str | None = None,
    steps: int = 48,
    seed: int = 0,
) -> TrainedVector:
    """Train a vector in place of a direction, with Adam inside the ball of `longest`.

    Begins at the direction itself, at full length. Of some snapshots on the way the one is kept
    under which the replies to check by are likeliest, the start among them: more training never
    ends with less than the direction gives.

    Args:
        model: left as it was found.
        start: a direction; its site and token positions are where the vector is added.
        longest: length in residual units that the vector may have.
        learnt: texts that end with the reply to be given, see `scoring.as_generated`.
        checked: others, which choose between snapshots and tell what was gained.
        adapter: LoRA adapter that is on; `None` for the bare weights.
        steps: of Adam, with 16 replies each and a rate that falls to 0 as a cosine does.
        seed: of the order of replies.

    Raises:
        RequestError: there is nothing to learn from or to check by, a text does not end with a
            reply, or the length is not positive.
        SiteMismatchError: the direction does not fit the model.
    """
    if not learnt or not checked:
        raise RequestError("a vector needs replies to be trained on and others to be checked by")
    if not all(t.response and t.response.stop > t.response.start for t in learnt):
        raise RequestError("there is nothing to learn from a text that does not end with a reply")
    if not (math.isfinite(longest) and longest > 0):
        raise RequestError(f"the longest length must be positive, got {longest}")
    require_fit(model, [Intervention(start, Add(1.0, "raw"))])
    snapshots = {0: longest * start.unit.float()}
    with model.adapter(adapter):
        for step, vector in _steps(model, start, longest, learnt, steps, seed):
            snapshots[step] = vector
    arms = [Arm("nothing", adapter=adapter)]
    arms += [
        Arm(str(step), (Intervention(start.with_raw(vector), Add(1.0, "gap")),), adapter)
        for step, vector in snapshots.items()
        if vector.norm() > 0
    ]
    found = reply_log_probabilities(model, checked, arms, description="Checking vectors")
    nats = dict(zip([a.name for a in arms], (-found.per_token.mean(dim=1)).tolist(), strict=True))
    best = min((name for name in nats if name != "nothing"), key=nats.__getitem__)
    direction = replace(start, finder="trained").with_raw(snapshots[int(best)])
    return TrainedVector(
        direction,
        {"nothing": nats["nothing"], "start": nats["0"], "trained": nats[best]},
        int(best),
        len(learnt),
        len(checked),
    )


def _steps(
    model: ResidualModel,
    start: Direction,
    longest: float,
    tokens: Sequence[Tokens],
    steps: int,
    seed: int,
) -> list[tuple[int, Float[Tensor, " d_model"]]]:
    """Snapshots of the vector, the last one at the end."""
    scaled = start.unit.float().to(model.device).clone().requires_grad_(True)  # in lengths
    adam = torch.optim.Adam([scaled], lr=RATE)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    rng = torch.Generator().manual_seed(seed)
    shuffled = [tokens[i] for i in torch.randperm(len(tokens), generator=rng).tolist()]
    keep = sum(row.prompt_length for row in tokens) <= MOST_KEPT
    batches = [
        Lesson.of(model, start, shuffled[first : first + ROWS], keep)
        for first in range(0, len(shuffled), ROWS)
    ]
    order: list[int] = []
    found = []
    for step in track(range(1, steps + 1), "Training vector", steps):
        order = order or torch.randperm(len(batches), generator=rng).tolist()
        adam.zero_grad()
        with torch.enable_grad():
            loss = batches[order.pop()].nats(model, start.site, longest * scaled)
            loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        fall.step()
        with torch.no_grad():
            scaled /= scaled.norm().clamp_min(1.0)
        if step == steps or step % max(1, steps // SNAPSHOTS) == 0:
            found.append((step, longest * scaled.detach().cpu().clone()))
    return found


@dataclass(frozen=True)
class Lesson:
    """Texts to learn from in one pass, laid out so that replies begin in the same column.

    Where the vector acts on nothing before the last prompt token, everything before that is read
    once and kept; only the columns from `cut` on are run.

    Attributes:
        ids, positions: of all columns; -1 at padding, in `positions`. On the CPU.
        weights: of the vector, in the columns that are run.
        replies: which columns hold a reply.
        prompt: columns of the longest prompt.
        cache: of the columns before `cut`; `None` where there are none.
    """

    ids: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"]
    weights: Float[Tensor, "row ran 1"]
    replies: Bool[Tensor, "row pos"]
    prompt: int
    cut: int
    cache: Any

    @classmethod
    def of(
        cls, model: ResidualModel, where: Direction, rows: Sequence[Tokens], keep: bool = True
    ) -> "Lesson":
        """Lay out texts for a vector where a direction acts; `keep` what can be read once."""
        lengths = torch.tensor([[row.prompt_length] for row in rows])
        prompt = int(lengths.max())
        width = prompt + max(len(row) - row.prompt_length for row in rows)
        positions = torch.arange(width) - (prompt - lengths)
        ids = torch.full((len(rows), width), model.pad_id)
        replies = torch.zeros(len(rows), width, dtype=torch.bool)
        for number, row in enumerate(rows):
            offset = prompt - row.prompt_length
            ids[number, offset : offset + len(row)] = torch.tensor(row.ids)
            positions[number, offset + len(row) :] = -1
            if row.response is not None:
                replies[number, offset + row.response.start : offset + row.response.stop] = True
        positions = positions.clamp_min(-1)
        added = Intervention(where, Add(1.0, "raw"))
        cut = prompt - 1 if keep and added.spares_the_prompt else 0
        weights = schedule_named(added.when)(positions, lengths)[:, cut:, None]
        cache = None
        if cut:
            mask, at = (positions[:, :cut] >= 0).long(), positions[:, :cut].clamp_min(0)
            before = (part.to(model.device) for part in (ids[:, :cut], mask, at))
            _, cache = model.decode_step(*before)
        return cls(ids, positions, weights, replies, prompt, cut, cache)

    def nats(
        self, model: ResidualModel, site: Site, vector: Float[Tensor, " d_model"]
    ) -> Float[Tensor, ""]:
        """Mean negative log-likelihood per token of the replies with the vector added."""

        def add(resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
            weights = self.weights.to(resid.device)
            return resid + (weights * vector.to(resid.device)).to(resid.dtype)

        device, first = model.device, self.prompt - 1
        with model.hooks([(site, add)]):
            output = model.network(
                input_ids=self.ids[:, self.cut :].to(device),
                attention_mask=(self.positions >= 0).long().to(device),
                position_ids=self.positions[:, self.cut :].clamp_min(0).to(device),
                past_key_values=copy.deepcopy(self.cache),  # a pass writes to it
                use_cache=self.cache is not None,
                logits_to_keep=self.ids.shape[1] - first,
            )
        log_p: Tensor = output.logits[:, :-1].float().log_softmax(dim=-1)
        targets = self.ids[:, first + 1 :].to(log_p.device)
        chosen = log_p.gather(-1, targets[..., None])[..., 0]
        inside = self.replies[:, first + 1 :].to(log_p.device)
        return -((chosen * inside).sum(dim=1) / inside.sum(dim=1)).mean()
