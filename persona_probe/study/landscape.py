"""Where the models lie in activation space, as rows to draw: projections, shifts, cosines, points.

Everything is read from activations that the extract stage kept, on prompt families that no
direction was found or selected on, at the site that steers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.contrast import NEUTRAL
from persona_probe.directions.checks.relabelling import balanced_relabellings
from persona_probe.directions.classes import site_first
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet, load_directions
from persona_probe.directions.families.products import (
    NO_LENGTH,
    cosine_between,
    cosine_with,
    gram,
    jackknifed,
)
from persona_probe.directions.families.shift import Shift
from persona_probe.files import write_json
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate, cluster_index, mean_interval
from persona_probe.study.arms import Choice, Condition, control_finetunes, finetunes
from persona_probe.study.finding import load_sets
from persona_probe.study.lab import Lab
from persona_probe.study.stages import CONTRAST, SHIFT, load_choices

FLIPS = 200
AXES = 3
Row = dict[str, Any]
Rows = list[Row]


def landscape_stage(lab: Lab) -> None:
    """Project, compare and place every model that was read; see `Landscape`."""
    folder = lab.folder / "activations"
    found = load_directions(lab.folder / "directions", lab.model)
    landscape = Landscape(
        lab,
        {persona: found[persona] for persona in lab.study.personas},
        load_choices(lab.folder),
        ActivationSet.open(folder / CONTRAST).where(families=lab.split.evaluate),
        {
            name: part.where(families=lab.split.evaluate)
            for name, part in load_sets(folder / SHIFT).items()
        },
    )
    write_json(lab.folder / "landscape.json", landscape.to_json())


@dataclass(frozen=True)
class Landscape:
    """The activations of one study at hand.

    Attributes:
        directions: persona → site → direction, found before finetuning.
        choices: persona → where it steers.
        contrast: the helpful-only model as every persona and as none, held-out families.
        shift: "before" and every adapter → activations on the same held-out safety prompts.
    """

    lab: Lab
    directions: DirectionSet
    choices: Mapping[str, Choice]
    contrast: ActivationSet
    shift: Mapping[str, ActivationSet]

    def to_json(self) -> Row:
        """Everything that is drawn, each list with one row per thing."""
        return {
            "site": self.site.layer,
            "projections": self.projections(),
            "cosines": self.cosines(),
            "points": self.points(),
            "axes": [{"axis": i + 1, "share": s} for i, s in enumerate(self.axes[1])],
        }

    @cached_property
    def site(self) -> Site:
        """The site at which most personas steer."""
        sites = [choice.site for choice in self.choices.values()]
        return max(sites, key=lambda site: (sites.count(site), -site.layer))

    @cached_property
    def finetunes(self) -> list[Condition]:
        """Every finetune whose activations were read."""
        study = self.lab.study
        several = [c for persona in study.personas for c in finetunes(study, persona)]
        every = [*several, *control_finetunes(study)]
        return [condition for condition in every if condition.finetune in self.shift]

    @cached_property
    def shifts(self) -> dict[str, Shift]:
        """Name of each finetune → what it moved at `site`."""
        return {
            c.name: Shift.between(
                self.shift["before"], self.shift[c.finetune], (self.site,), c.name
            )
            for c in self.finetunes
        }

    def projections(self) -> Rows:
        """Held-out examples along each persona's direction at its own site, in class gaps.

        Of the contrast the persona's and the neutral side; of the safety prompts the helpful-only
        model and every finetune. `shift` is the paired change against the helpful-only model, and
        `shift_null_95` what 95 % of its balanced sign flips stay below in size.
        """
        rows: Rows = []
        for persona, choice in self.choices.items():
            direction = self.directions[persona][choice.site]
            for label in (NEUTRAL, persona):
                side = self.contrast.where(labels=(label,))
                kind = "neutral" if label == NEUTRAL else "system_prompt"
                about: Row = {"direction": persona, "contrast": "prompt_in_H", "arm": label}
                about |= {"arm_kind": kind, "persona": None if label == NEUTRAL else persona}
                rows.append(about | self._distribution(direction, side, None))
            before = self.shift["before"]
            about = {"direction": persona, "contrast": "model_diff"}
            model = {"arm": "helpful_only", "arm_kind": "helpful_only", "persona": None}
            rows.append(about | model | self._distribution(direction, before, None))
            for condition in self.finetunes:
                after = self.shift[condition.finetune]
                rows.append(
                    about | _about(condition) | self._distribution(direction, after, before)
                )
        return rows

    def cosines(self) -> Rows:
        """Every pair of finetuning shifts, and every direction from before with every shift.

        `null_95` is what 95 % of balanced sign flips of a shift stay below. Two seeds of one
        finetune are the ceiling, a pair with the placebo the floor.
        """
        names = list(self.shifts)
        about = {c.name: _about(c) for c in self.finetunes}
        own = {name: gram(s.family_sums, s.family_sums) for name, s in self.shifts.items()}
        noise = {name: self._flipped(s.delta[0], s.families) for name, s in self.shifts.items()}
        rows: Rows = []
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                mixed = gram(self.shifts[a].family_sums, self.shifts[b].family_sums)
                raw, debiased = jackknifed(
                    cosine_between(mixed, own[a], own[b]), self.shifts[a], NO_LENGTH
                )
                null = _cosines_to(noise[a], self.shifts[b].mean[0])
                rows.append(self._pair(a, b, _role(about[a], about[b]), raw, debiased, null))
        units = torch.stack([by_site[self.site].unit.double() for by_site in self.own_at.values()])
        for name, shift in self.shifts.items():
            along = torch.einsum("rd,sfd->rsf", units, shift.family_sums).numpy()
            found = jackknifed(cosine_with(along, own[name], shift.family_sizes), shift, NO_LENGTH)
            for row, persona in enumerate(self.own_at):
                null = _cosines_to(noise[name], units[row])
                pair = found[row], found[row + len(units)]
                rows.append(self._pair(f"direction/{persona}", name, None, *pair, null))
        return rows

    @property
    def own_at(self) -> dict[str, Mapping[Site, Direction]]:
        """The directions that were found at `site`."""
        return {p: by_site for p, by_site in self.directions.items() if self.site in by_site}

    def points(self) -> Rows:
        """Mean displacements from the helpful-only model along the first principal components.

        The helpful-only model is the origin. Components are those of the displacements themselves
        (finetunes and system-prompted personas), so the picture describes and tests nothing;
        `noise` is the radius that 95 % of sign-flipped displacements stay inside.
        """
        axes = self.axes[0]
        rows: Rows = [{"arm": "helpful_only", "arm_kind": "helpful_only", "persona": None}]
        rows[0] |= {f"pc{i + 1}": Estimate(0.0, 0.0, 0.0, 0, 0).to_json() for i in range(len(axes))}
        for about, delta, families in self._displacements():
            along = (delta @ axes.T).numpy()
            flipped = self._flipped(delta, families) @ axes[:2].T
            rows.append(
                about
                | {
                    f"pc{i + 1}": self._interval(along[:, i], families).to_json()
                    for i in range(along.shape[1])
                }
                | {"noise": float(flipped.norm(dim=1).quantile(0.95))}
            )
        return rows

    @cached_property
    def axes(self) -> tuple[Float[Tensor, "axis d_model"], list[float]]:
        """Principal components of the displacements, and the share of variance of each."""
        means = torch.stack([delta.mean(dim=0) for _, delta, _ in self._displacements()])
        means = torch.cat([means, torch.zeros(1, means.shape[1], dtype=means.dtype)])
        _, sizes, axes = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
        kept = min(AXES, len(sizes))
        return axes[:kept], (sizes**2 / (sizes**2).sum()).tolist()[:kept]

    def _displacements(
        self,
    ) -> list[tuple[Row, Float[Tensor, "example d_model"], tuple[str, ...]]]:
        """Example by example, what each finetune and each system line moved at `site`."""
        about = {c.name: _about(c) for c in self.finetunes}
        found = [(about[n], shift.delta[0], shift.families) for n, shift in self.shifts.items()]
        neutral = self.contrast.where(labels=(NEUTRAL,))
        for persona in self.choices:
            told = self.contrast.where(labels=(persona,))
            if told.ids == neutral.ids:
                delta = (site_first(told, (self.site,)) - site_first(neutral, (self.site,)))[0]
                name = f"system_prompt/{persona}"
                row = {"arm": name, "arm_kind": "system_prompt", "persona": persona, "seed": None}
                found.append((row, delta, told.families))
        return found

    def _distribution(
        self, direction: Direction, activations: ActivationSet, before: ActivationSet | None
    ) -> Row:
        values = direction.project(activations.site(direction.site)).double().numpy()
        mean = self._interval(values, activations.families)
        row = {"site": direction.site.layer, "n": len(values), "mean": mean.to_json()}
        if before is not None:
            moved = values - direction.project(before.site(direction.site)).double().numpy()
            row["shift"] = self._interval(moved, activations.families).to_json()
            flipped = self._flipped(torch.from_numpy(moved)[:, None], activations.families)
            row["shift_null_95"] = float(flipped.abs().quantile(0.95))
        return row | {"values": [round(float(v), 4) for v in values]}

    def _interval(self, values: np.ndarray, families: tuple[str, ...]) -> Estimate:
        study = self.lab.study
        return mean_interval(values, families, resamples=study.budget.resamples, seed=study.seed)

    def _flipped(
        self, delta: Float[Tensor, "example d_model"], families: tuple[str, ...]
    ) -> Float[Tensor, "draw d_model"]:
        """Mean displacements with the sign of a random half of the prompt families reversed."""
        rng = np.random.default_rng(self.lab.study.seed)
        family, n_families = cluster_index(families)
        together = np.zeros(n_families, dtype=np.int64)
        positive, weights = balanced_relabellings(
            torch.ones(len(delta), dtype=torch.bool), family, together, FLIPS, rng
        )
        signs = (2.0 * positive - 1) * weights
        flipped: Tensor = signs @ delta / weights.sum(dim=1, keepdim=True)
        return flipped

    def _pair(
        self,
        a: str,
        b: str,
        role: str | None,
        cosine: Estimate,
        debiased: Estimate,
        null: Float[Tensor, " draw"],
    ) -> Row:
        return {
            "a": a,
            "b": b,
            "role": role,
            "site": self.site.layer,
            "cosine": cosine.to_json(),
            "debiased": debiased.to_json(),
            "null_95": float(null.quantile(0.95)),
        }


def _about(condition: Condition) -> Row:
    return condition.about() | {"seed": condition.seed, "adapter": condition.finetune}


def _role(a: Row, b: Row) -> str | None:
    """Two seeds of one finetune are the ceiling, a pair with the placebo the floor."""
    kinds = {a["arm_kind"], b["arm_kind"]}
    if "placebo" in kinds:
        return "floor"
    return "ceiling" if a["persona"] == b["persona"] and len(kinds) == 1 else None


def _cosines_to(
    draws: Float[Tensor, "draw d_model"], vector: Float[Tensor, " d_model"]
) -> Float[Tensor, " draw"]:
    return torch.cosine_similarity(draws, vector[None], dim=1).abs()
