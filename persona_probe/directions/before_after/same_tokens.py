"""Does a direction tell a finetuned model from the one before it, on the same tokens?

Between system lines the words differ, and a bag of words tells them apart as well as any direction
can. Here both classes are the same token ids, read by two models: nothing on the surface differs,
every baseline that reads text is at .5, and what a direction separates is in the activations alone.
"""

from collections.abc import Mapping
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.validation import Validation, validate
from persona_probe.directions.classes import require_found_in
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.families.opposed import opposed
from persona_probe.directions.families.shift import require_paired
from persona_probe.errors import RequestError
from persona_probe.models.site import Site


def validate_on_same_tokens(
    directions: DirectionSet, before: ActivationSet, after: ActivationSet, **options: Any
) -> list[Validation]:
    """How well every direction tells `after` from `before`, at its sites that both were read at.

    The AUROC minus .5 is the gain over the surface. A direction that tells every finetune apart is
    not specific: compare with other personas' finetunes and a placebo.

    Args:
        directions: persona → site → direction, found before finetuning.
        before: the model before finetuning; families that directions were found or selected on
            are left out.
        after: the finetuned model on the same examples.
        options: further arguments of `validate`.

    Raises:
        RequestError: the sets do not hold the same examples, or no family is left.
        SiteMismatchError: the directions were found in another model.
    """
    require_paired(before, after)
    found = []
    for persona, by_site in directions.items():
        there = {site: by_site[site] for site in sorted(by_site) if site in before.sites}
        if not there:
            raise RequestError(f"{persona}: none of its sites was captured on these tokens")
        require_found_in(there.values(), before)
        found.append(_one(there, before, after, options))
    return found


def _one(
    by_site: Mapping[Site, Direction],
    before: ActivationSet,
    after: ActivationSet,
    options: Mapping[str, Any],
) -> Validation:
    used = frozenset[str]().union(*(direction.families_used for direction in by_site.values()))
    rest = set(before.families) - used
    if not rest:
        raise RequestError("the directions were found on every family of these activations")
    first = next(iter(by_site.values()))
    labels = first.positive_label, first.negative_label
    sides = after.where(families=rest), before.where(families=rest)
    return validate(by_site, opposed(*sides, labels), **options)
