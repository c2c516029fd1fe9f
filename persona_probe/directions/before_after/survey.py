"""All personas at all sites in one table: found before finetuning, and compared with after."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.before_after.comparison import ComparisonRow, compare
from persona_probe.directions.checks.transfer import TransferMatrix, transfer_matrix
from persona_probe.directions.checks.validation import ValidationRow
from persona_probe.directions.direction import Direction
from persona_probe.directions.families.parts import energy_estimates
from persona_probe.directions.finder import Finder
from persona_probe.directions.json_form import json_form
from persona_probe.directions.per_label import find_per_label, validate_on_the_rest
from persona_probe.models.site import Site
from persona_probe.statistics import Estimate

NO_FINETUNE = "no finetune of this persona was given"


@dataclass(frozen=True)
class SurveyRow:
    """One persona at one site.

    Attributes:
        persona: whose direction.
        site: where.
        auroc: held-out AUROC of the direction before finetuning.
        null_auroc: of directions found on balanced label shuffles.
        p_over_sites: permutation p of `auroc`, corrected for the number of sites.
        split_half: cosine of the directions of two halves of the families.
        reliability: its Spearman-Brown correction.
        cone: 5th percentile of the cosine to directions of resampled families.
        energy: share of the direction that the other personas do not have, without noise.
        finetune: what it is compared with; `None` if there is none.
        cosine: to the shift of that finetune.
        corrected: over the root of both reliabilities; NaN where one is not positive.
        null_cosine: |cosine| to balanced sign flips of the shift.
        floor: cosine to the placebo's shift.
        ceiling: cosine of the shifts of two seeds.
        shift: of the projection, in standard deviations before.
    """

    persona: str
    site: Site
    auroc: Estimate
    null_auroc: Estimate
    p_over_sites: float
    split_half: Estimate
    reliability: float
    cone: float
    energy: Estimate
    finetune: str | None
    cosine: Estimate
    corrected: float
    null_cosine: Estimate
    floor: Estimate
    ceiling: Estimate
    shift: Estimate


@dataclass(frozen=True)
class Survey:
    """The table, and what it was made from.

    Attributes:
        rows: personas in the order of the labels, each at all sites in order of depth.
        directions: found before finetuning, on the find half of the families.
        transfer: AUROC of every direction on every persona, by site.
    """

    rows: tuple[SurveyRow, ...]
    directions: dict[str, dict[Site, Direction]]
    transfer: list[TransferMatrix]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, without the vectors."""
        return {"rows": json_form(self.rows), "transfer": json_form(self.transfer)}


def survey(
    prompted: ActivationSet,
    finder: Finder,
    before: ActivationSet | None = None,
    after: Mapping[str, ActivationSet] | None = None,
    *,
    placebo: str | None = None,
    negative: str = "neutral",
    seed: int = 0,
) -> Survey:
    """AUROC, reliability and layer profile of all personas, and each against its own finetune.

    Args:
        prompted: the model before finetuning under every persona's and the neutral system line.
        finder: how to find the directions.
        before: the model before finetuning on the prompts of `after`, of other families.
        after: finetune to activations; `own_finetunes` says which belong to a persona.
        placebo: name of the placebo among them.
        negative: label of the neutral class.
        seed: of everything random.

    Raises:
        RequestError: nothing is labelled `negative`, or before and after differ in examples.
        SplitLeakError: `before` holds families that a direction was found on.
    """
    directions = find_per_label(prompted, finder, negative, None, seed)
    validations = validate_on_the_rest(directions, prompted, seed=seed)
    used = next(iter(next(iter(directions.values())).values())).families_used
    rest = prompted.where(families=set(prompted.families) - used)
    energy: dict[Site, dict[str, Estimate]] = {}
    if len(directions) > 1:
        found_on = prompted.where(families=used)
        energy = energy_estimates(found_on, {name: name for name in directions}, negative)
    finetunes = dict(after or {})
    rows: list[SurveyRow] = []
    for validation in validations:
        persona, by_site = validation.persona, directions[validation.persona]
        own = own_finetunes(persona, [name for name in finetunes if name != placebo])
        compared: dict[Site, ComparisonRow] = {}
        if before is not None and own:
            known = {
                row.site: row.reliability.spearman_brown if row.reliability else math.nan
                for row in validation.rows
            }
            found = compare(
                before,
                finetunes[own[0]],
                {persona: by_site},
                placebo=finetunes[placebo] if placebo else None,
                second_seed=finetunes[own[1]] if len(own) > 1 else None,
                reliabilities={persona: known},
                seed=seed,
            )
            compared = {row.site: row for row in found.rows}
        for row in validation.rows:
            alone = energy.get(row.site, {}).get(persona)
            rows.append(_row(persona, row, alone, own, compared.get(row.site)))
    transfer = transfer_matrix(directions, rest)
    return Survey(tuple(rows), directions, transfer)


def own_finetunes(persona: str, names: list[str]) -> list[str]:
    """Finetunes of one persona: called like it, or with its name between dashes.

    The first is compared; the second is taken for another seed of it when their names differ in
    the last part only ("narrow-virtue-0" and "narrow-virtue-1").
    """
    own = [name for name in names if name == persona or persona in name.split("-")]
    if not own:
        return []
    again = [n for n in own[1:] if n.rpartition("-")[0] and _recipe(n) == _recipe(own[0])]
    return [own[0], *again[:1]]


def _recipe(name: str) -> str:
    return name.rpartition("-")[0]


def _row(
    persona: str,
    found: ValidationRow,
    energy: Estimate | None,
    own: list[str],
    compared: ComparisonRow | None,
) -> SurveyRow:
    none, steady = Estimate.undefined(NO_FINETUNE), found.reliability
    return SurveyRow(
        persona=persona,
        site=found.site,
        auroc=found.auroc,
        null_auroc=found.chance.auroc if found.chance else Estimate.undefined("no shuffles"),
        p_over_sites=found.p_over_sites,
        split_half=steady.split_half if steady else Estimate.undefined("not measured"),
        reliability=steady.spearman_brown if steady else math.nan,
        cone=steady.cone if steady else math.nan,
        energy=energy or Estimate.undefined("there is only one persona"),
        finetune=own[0] if own and compared else None,
        cosine=compared.cosine_interval if compared else none,
        corrected=compared.corrected if compared else math.nan,
        null_cosine=compared.null_cosine if compared else none,
        floor=compared.floor if compared else none,
        ceiling=compared.ceiling if compared else none,
        shift=compared.shift if compared else none,
    )
