"""Several finetunes of one model, each against what was there before and against each other.

Narrow against broad, constitution against constitution, between a floor (a placebo finetune: what
any training does) and a ceiling (a second seed: as alike as the same training gets).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.before_after.cka import Similarity, similarity
from persona_probe.directions.before_after.comparison import Comparison, Reliabilities, compare
from persona_probe.directions.before_after.span import PreExisting, pre_existing
from persona_probe.directions.before_after.spectrum import ShiftSpectrum, spectrum
from persona_probe.directions.before_after.subspaces import SubspaceAngles, subspace_angles
from persona_probe.directions.before_after.whitening import Whitening
from persona_probe.directions.checks.relabelling import balanced_relabellings, random_halves
from persona_probe.directions.checks.reliability import noise_corrected, spearman_brown
from persona_probe.directions.classes import site_first
from persona_probe.directions.direction_set import DirectionSet, common_sites
from persona_probe.directions.families.products import NO_LENGTH, cosine_between, gram, jackknifed
from persona_probe.directions.families.shift import Shift
from persona_probe.directions.json_form import json_form
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate

FLOOR, CEILING = "floor", "ceiling"
HALVINGS = 25


@dataclass(frozen=True)
class ShiftPair:
    """The mean shifts of two finetunes at one site.

    Attributes:
        one: a finetune.
        other: another.
        role: "floor" where one of them is the placebo, "ceiling" for two seeds of the same, else
            `None`.
        site: where.
        cosine: between the mean shifts.
        whitened: in the metric of the inverse covariance before finetuning.
        corrected: `cosine` over the root of both split-half reliabilities. Both shifts were read on
            the same prompts, whose noise they share, so this is too large: see `debiased`.
        debiased: the cosine from products of different prompt families only, which hold neither
            the noise of one shift nor what both share; not clipped.
        null_cosine: |cosine| of one shift to balanced sign flips of the other: mean and middle
            95 % of draws.
        cka: debiased CKA of the two sets of shifts, and with the examples of one permuted.
    """

    one: str
    other: str
    role: str | None
    site: Site
    cosine: Estimate
    whitened: Estimate
    corrected: float
    debiased: Estimate
    null_cosine: Estimate
    cka: Similarity


@dataclass(frozen=True)
class Finetunes:
    """Everything about several finetunes.

    Attributes:
        comparisons: of each finetune with the directions found before; empty without directions.
        cka: between the activations before and after, by finetune.
        spectra: of each finetune's shifts, in order of finetunes and depth.
        pre_existing: share of each mean shift in the span of the directions found before.
        pairs: every pair of finetunes at every site.
        angles: principal angles of every pair at every site.
        reliability: split-half reliability of every mean shift, by finetune and site.
    """

    comparisons: dict[str, Comparison]
    cka: dict[str, list[Similarity]]
    spectra: list[ShiftSpectrum]
    pre_existing: list[PreExisting]
    pairs: list[ShiftPair]
    angles: list[SubspaceAngles]
    reliability: dict[str, dict[Site, float]]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, without the vectors."""
        return {
            "finetunes": {name: of.to_json() for name, of in self.comparisons.items()},
            "cka": json_form(self.cka),
            "spectra": json_form(self.spectra),
            "pre_existing": json_form(self.pre_existing),
            "pairs": json_form(self.pairs),
            "angles": json_form(self.angles),
            "shift_reliability": json_form(self.reliability),
        }


def compare_finetunes(
    before: ActivationSet,
    finetunes: Mapping[str, ActivationSet],
    directions: DirectionSet | None = None,
    *,
    placebo: str | None = None,
    second_seed: str | None = None,
    reliabilities: Reliabilities | None = None,
    k: int = 4,
    draws: int = 200,
    seed: int = 0,
) -> Finetunes:
    """Compare several finetunes of one model on the same tokens.

    Args:
        before: activations of the model that was finetuned.
        finetunes: name to activations on the same examples; the first is the one in question.
        directions: found before finetuning, on other prompt families.
        placebo: name of the finetune that is the floor.
        second_seed: name of the one that repeats the first with another seed: the ceiling.
        reliabilities: of the directions, as `Reliability.spearman_brown` has them.
        k: dimensions of the shift subspaces.
        draws: of every null.
        seed: of everything random.

    Raises:
        RequestError: `placebo` or `second_seed` is no finetune, or the examples differ.
        SiteMismatchError: sites, widths or models do not fit.
        SplitLeakError: a direction was found or selected on one of the families.
    """
    names = tuple(finetunes)
    for role in (placebo, second_seed):
        if role is not None and role not in names:
            raise RequestError(f"no finetune {role!r} among {', '.join(names)}")
    sites = common_sites(directions) if directions else list(before.sites)
    comparisons = {}
    if directions:
        for name, after in finetunes.items():
            comparisons[name] = compare(
                before,
                after,
                directions,
                placebo=None if placebo in (None, name) else finetunes[placebo],
                second_seed=finetunes[second_seed] if second_seed and name == names[0] else None,
                reliabilities=reliabilities,
                draws=draws,
                seed=seed,
            )
    shifts = [Shift.between(before, after, sites, name) for name, after in finetunes.items()]
    x = site_first(before, sites)
    older = [[by_site[site] for by_site in (directions or {}).values()] for site in sites]
    steady = {s.name: _reliability(s, seed) for s in shifts}
    return Finetunes(
        comparisons=comparisons,
        cka={s.name: similarity(x, x + s.delta, s.families, sites, seed=seed) for s in shifts},
        spectra=[row for s in shifts for row in spectrum(s, k)],
        pre_existing=[
            row
            for s in (shifts if directions else ())
            for row in pre_existing(s, x, older, draws=draws, seed=seed)
        ],
        pairs=_pairs(shifts, Whitening.of(x), steady, (placebo, second_seed), draws, seed),
        angles=subspace_angles(shifts, k, draws=draws, seed=seed) if len(shifts) > 1 else [],
        reliability=steady,
    )


def _pairs(
    shifts: Sequence[Shift],
    white: Whitening,
    steady: Mapping[str, Mapping[Site, float]],
    controls: tuple[str | None, str | None],
    draws: int,
    seed: int,
) -> list[ShiftPair]:
    own = {s.name: gram(s.family_sums, s.family_sums) for s in shifts}
    whitened = {s.name: white(s.family_sums) for s in shifts}
    rows = []
    for a, one in enumerate(shifts):
        for other in shifts[a + 1 :]:
            mixed = gram(one.family_sums, other.family_sums)
            statistic = cosine_between(mixed, own[one.name], own[other.name])
            cosine = jackknifed(statistic, one, NO_LENGTH)
            u, v = whitened[one.name], whitened[other.name]
            in_metric = cosine_between(gram(u, v), gram(u, u), gram(v, v))
            turned = jackknifed(in_metric, one, NO_LENGTH)
            null = _flipped_cosines(one, other, draws, seed)
            alike = similarity(one.delta, other.delta, one.families, one.sites, seed=seed)
            for i, site in enumerate(one.sites):
                trust = steady[one.name][site], steady[other.name][site]
                rows.append(
                    ShiftPair(
                        one=one.name,
                        other=other.name,
                        role=_role(one.name, other.name, shifts[0].name, controls),
                        site=site,
                        cosine=cosine[i],
                        whitened=turned[i],
                        corrected=noise_corrected(cosine[i].value, *trust),
                        debiased=cosine[len(one.sites) + i],
                        null_cosine=Estimate.of_draws(null[:, i]),
                        cka=alike[i],
                    )
                )
    return rows


def _role(
    one: str, other: str, subject: str, controls: tuple[str | None, str | None]
) -> str | None:
    placebo, second_seed = controls
    if placebo in (one, other):
        return FLOOR
    return CEILING if {one, other} == {subject, second_seed} else None


def _flipped_cosines(one: Shift, other: Shift, draws: int, seed: int) -> np.ndarray:
    """|cosine| of one mean shift to the other with the signs of half of its examples reversed."""
    n = other.n
    together = np.zeros(n, dtype=np.int64)
    rng = np.random.default_rng(seed)
    positive, weights = balanced_relabellings(
        torch.ones(n, dtype=torch.bool), np.arange(n), together, draws, rng
    )
    flipped = torch.einsum("gn,snd->gsd", (2.0 * positive - 1) * weights, other.delta)
    cosines = torch.cosine_similarity(flipped, one.mean, dim=-1).abs()
    moved = (one.mean.norm(dim=-1) > 0) & (other.mean.norm(dim=-1) > 0)
    return np.asarray(torch.where(moved, cosines, torch.nan).numpy())


def _reliability(shift: Shift, seed: int) -> dict[Site, float]:
    """Split-half reliability of a mean shift over its families, NaN where nothing moved."""
    counts = shift.family_sizes
    rng = np.random.default_rng(seed)
    halves = random_halves(np.zeros(len(counts), dtype=np.int64), HALVINGS, rng)
    if len(counts) < 2:
        return dict.fromkeys(shift.sites, float("nan"))
    one, other = (
        torch.einsum("hf,sfd->hsd", torch.from_numpy(of.astype(np.float64)), shift.family_sums)
        for of in (halves, ~halves)
    )
    cosines = torch.cosine_similarity(one, other, dim=-1).mean(dim=0)
    moved = shift.mean.norm(dim=-1) > 0
    half = torch.where(moved, cosines, torch.nan).tolist()
    return {site: spearman_brown(h) for site, h in zip(shift.sites, half, strict=True)}
