"""When does training select the persona? Projections onto given directions, every n steps.

A transformers callback. At every measurement all prompts are read once; each direction's row says
how far their mean projection has moved since before training, in standard deviations that the
model before training had along that direction, with an interval over prompts clustered by family.
Random directions are read beside them: whatever moves along those too is no sign of a persona.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import TrainerCallback  # noqa: TID253

from persona_probe.activations.budget import Budget
from persona_probe.activations.forward import values_of
from persona_probe.activations.reading import read
from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.files import read_json, read_jsonl, write_json, write_jsonl
from persona_probe.models.chat import Conversation
from persona_probe.models.residual_model import ResidualModel
from persona_probe.statistics import Estimate, json_number, mean_interval

ROWS = "projection.jsonl"
BEFORE = "projection-before.json"
RANDOM, RANDOM_DRAWS = "random", 40
"""Rows of this name: the mean over random directions at a site, and the middle 95% of them."""
RESAMPLES = 2000

Projections = Float[np.ndarray, "_ prompt"]


@dataclass(frozen=True)
class Watch:
    """What is watched.

    Attributes:
        directions: projected onto; any sites and positions of prompts.
        conversations: prompts without a reply, which training never sees.
        every: steps between measurements; the first and the last step are always measured.
    """

    directions: tuple[Direction, ...]
    conversations: tuple[Conversation, ...]
    every: int

    def __post_init__(self) -> None:
        if not (self.directions and self.conversations) or self.every < 1:
            raise RequestError(
                "watching needs a direction, a prompt, and a number of steps of at least 1"
            )
        if answered := [c.id for c in self.conversations if c.reply is not None]:
            raise RequestError(
                f"prompt {answered[0]!r} to be watched ends with a reply; watch prompts without "
                "one, so that the text is the same at every step"
            )


class Watching(TrainerCallback):  # type: ignore[misc]
    """Measures, and keeps every row on disk as soon as it is known.

    Args:
        view: the model in training.
        watch: what is watched.
        folder: for `projection.jsonl` and for the numbers before training.
    """

    def __init__(self, view: ResidualModel, watch: Watch, folder: Path) -> None:
        for direction in watch.directions:
            direction.check_fits(view)
        self._view, self._watch, self._folder = view, watch, folder
        self._positions = sorted({d.position for d in watch.directions})
        self._reading = read(view, watch.conversations, self._positions)
        rows = self._reading.rows[self._positions[0]]
        self._families = [row.family or row.id for row in rows]
        places = {(d.site, d.position): d for d in watch.directions}
        self._random = [random for d in places.values() for random in _random(d)]
        self._before: tuple[Projections, Projections] | None = None
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Measure before the first step; a resumed run drops what its checkpoint has not seen."""
        if not state.is_world_process_zero:
            return
        done = state.global_step
        if done and (self._folder / BEFORE).is_file():
            kept = read_json(self._folder / BEFORE)
            self._before = np.array(kept["directions"]), np.array(kept["random"])
            rows = read_jsonl(self._folder / ROWS)
            self._rows = [row for row in rows if row["step"] <= done]
            return
        self._before = self._project()
        named = zip(("directions", "random"), self._before, strict=True)
        write_json(self._folder / BEFORE, {name: values.tolist() for name, values in named})
        self._measure(state)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        due = state.global_step % self._watch.every == 0
        if due and state.is_world_process_zero:
            self._measure(state)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        measured = {row["step"] for row in self._rows}
        if state.is_world_process_zero and state.global_step not in measured:
            self._measure(state)

    def _measure(self, state: Any) -> None:
        assert self._before is not None
        now, control = self._project()
        losses = [row["loss"] for row in state.log_history if "loss" in row]
        about = {"step": state.global_step, "epoch": round(float(state.epoch or 0.0), 4)}
        rest = {"loss": losses[-1] if losses else None}
        for i, direction in enumerate(self._watch.directions):
            [shift] = _shift(now[i : i + 1], self._before[0][i : i + 1])
            moved = mean_interval(shift, self._families, resamples=RESAMPLES)
            name = {"direction": direction.persona, "site": direction.site.layer}
            self._rows.append(about | name | _row(moved) | rest)
        draws = _shift(control, self._before[1]).mean(axis=1).reshape(-1, RANDOM_DRAWS)
        for several, place in zip(draws, self._random[::RANDOM_DRAWS], strict=True):
            name = {"direction": RANDOM, "site": place.site.layer}
            self._rows.append(about | name | _row(Estimate.of_draws(several)) | rest)
        write_jsonl(self._folder / ROWS, self._rows)

    def _project(self) -> tuple[Projections, Projections]:
        """Projections of every prompt onto the directions, and onto the random ones."""
        view = self._view
        sites = tuple(sorted({d.site for d in self._watch.directions}))
        training = view.network.training
        view.network.eval()
        budget, everything = Budget.of(view), range(len(self._reading))
        values = values_of(view, self._reading, everything, sites, budget, _silent)
        view.network.train(training)

        def along(directions: Sequence[Direction]) -> Projections:
            found = [
                values[d.position][:, sites.index(d.site)].double() @ d.unit.double()
                for d in directions
            ]
            return torch.stack(found).numpy()

        return along(self._watch.directions), along(self._random)


def _random(direction: Direction) -> list[Direction]:
    draws = isotropic({direction.site: direction}, RANDOM_DRAWS)
    return [draw[direction.site] for draw in draws]


def _shift(now: Projections, before: Projections) -> Projections:
    """Each prompt's move, in standard deviations of all prompts before training."""
    spread = before.std(axis=1, ddof=1, keepdims=True) if before.shape[1] > 1 else np.zeros(1)
    if not (spread > 0).all():
        raise PersonaProbeError(
            "the prompts to be watched all project alike before training, so a move has no unit; "
            "watch several different prompts"
        )
    shift: Projections = (now - before) / spread
    return shift


def _row(estimate: Estimate) -> dict[str, Any]:
    numbers = {"mean": estimate.value, "low": estimate.low, "high": estimate.high}
    return {key: json_number(value) for key, value in numbers.items()} | {"n": estimate.n}


def _silent(_tokens: int) -> None:
    """No progress bar of its own: training has one."""
