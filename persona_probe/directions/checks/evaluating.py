"""Choose a site on the select part, validate on the evaluate part, one persona beside the others.

The parts are those that `find_per_label` made; where the directions were found under another split
nothing can be selected, and they are validated on all families that they were not found on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.selection import DEPTHS, select_site
from persona_probe.directions.checks.validation_row import Validation
from persona_probe.directions.classes import require_found_in
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.per_label import validate_on_the_rest
from persona_probe.errors import RequestError
from persona_probe.models.site import Site, parse_sites
from persona_probe.personas.splits import Split, split_families


@dataclass(frozen=True)
class Evaluated:
    """One persona's validation, and the site that the select part prefers.

    Attributes:
        validation: of all sites, on families that had no other use.
        chosen: by d' on the select part, at middle depth; `None` where no part was kept for that.
        n_select: examples that it was chosen on.
    """

    validation: Validation
    chosen: Site | None
    n_select: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        chosen = None if self.chosen is None else self.chosen.layer
        return {"chosen_layer": chosen, "n_select": self.n_select, **self.validation.to_json()}


def evaluate_all(
    directions: DirectionSet, activations: ActivationSet, split_seed: int = 0, **options: Any
) -> list[Evaluated]:
    """Validate every persona's directions, the other personas' as wrong constitutions.

    Args:
        directions: found in these activations by `find_per_label`.
        activations: all families.
        split_seed: the seed that the directions were found with.
        options: further arguments of `validate`.

    Raises:
        RequestError: there is no direction, or no family is left.
        SiteMismatchError: a direction lives in another model, or its site was not captured.
        SplitLeakError: the parts of the split are not what the directions say they are.
    """
    if not directions:
        raise RequestError("there are no directions to validate")
    return [
        _evaluate(by_site, activations, split_seed, _others(directions, persona, by_site), options)
        for persona, by_site in directions.items()
    ]


def _evaluate(
    by_site: Mapping[Site, Direction],
    activations: ActivationSet,
    split_seed: int,
    wrong: DirectionSet,
    options: Mapping[str, Any],
) -> Evaluated:
    require_found_in(by_site.values(), activations)
    first = by_site[min(by_site)]
    split = split_families(activations.families, split_seed)
    known = first.split_hash == split.hash
    kept = activations
    if known:
        kept = activations.where(families=split.find | split.evaluate)
    found = validate_on_the_rest(
        {first.persona: by_site}, kept, wrong=wrong, split=split if known else None, **options
    )[0]
    chosen, n_select = _select(by_site, activations, split) if known else (None, 0)
    return Evaluated(found, chosen, n_select)


def _select(
    by_site: Mapping[Site, Direction], activations: ActivationSet, split: Split
) -> tuple[Site | None, int]:
    first = by_site[min(by_site)]
    labels = first.positive_label, first.negative_label
    part = activations.where(labels=labels, families=split.select)
    if any(label not in part.labels for label in labels):
        return None, 0
    n_layers = max(activations.sites).layer + 1
    middle = set(parse_sites(DEPTHS, n_layers)).intersection(by_site)
    depths = DEPTHS if middle else "all"
    chosen = select_site(by_site, part, n_layers, depths=depths, split=split)
    return chosen.site, len(part)


def _others(
    directions: DirectionSet, persona: str, by_site: Mapping[Site, Direction]
) -> dict[str, dict[Site, Direction]]:
    """Other personas' directions at the sites that both have."""
    width = len(next(iter(by_site.values())).unit)
    return {
        name: shared
        for name, other in directions.items()
        if name != persona
        and (shared := {s: d for s, d in other.items() if s in by_site and len(d.unit) == width})
    }


def captured_in(named: Sequence[str]) -> dict[str, ActivationSet]:
    """Further baselines, written NAME=FOLDER each.

    Raises:
        RequestError: one has another form, or its folder holds no activations.
    """
    found = {}
    for entry in named:
        name, equals, folder = entry.partition("=")
        if not (name and equals and folder):
            raise RequestError(f"--baseline {entry!r}: write NAME=FOLDER")
        found[name] = ActivationSet.open(Path(folder))
    return found
