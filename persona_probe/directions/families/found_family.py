"""The directions of one family for every persona that the captured activations tell of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.moments_file import MomentsFile
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import Directions, DirectionSet
from persona_probe.directions.families.family import (
    FAMILIES,
    WRITER,
    Sources,
    find_family,
    require_family,
)
from persona_probe.directions.families.parts import energy_estimates
from persona_probe.directions.finder import Finder, find_contrasts
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.directions.from_moments import find_per_label_from_moments
from persona_probe.directions.per_label import find_part, wanted_labels
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split, split_families
from persona_probe.statistics import Estimate

LABELLED = ("prompt_in_H", "probe", "behav_in_F")  # told apart by the labels of one set


def directions_of_family(
    family: str,
    activations: ActivationSet,
    finetunes: Mapping[str, ActivationSet] | None = None,
    finder: Finder | None = None,
    *,
    negative: str = "neutral",
    positive: Sequence[str] | None = None,
    seed: int = 0,
) -> Directions:
    """Persona → site → direction of one family, each on the find half of the prompt families.

    Args:
        family: a name in `FAMILIES`.
        activations: of the model before finetuning: under system prompts for prompt_in_H and probe,
            on the finetunes' prompts for model_diff, reading everybody's replies for resp_in_H. For
            behav_in_F of the finetuned model, its replies labelled.
        finetunes: for model_diff, name → activations of a finetune on the same examples.
        finder: the family's own if not given: difference of means, or a logistic probe.
        negative: label to point away from; for resp_in_H the state that wrote those replies.
        positive: labels or writers to point to; all others if not given.
        seed: of the split by prompt family.

    Raises:
        RequestError: there is no such family, or what it needs is not there.
        SiteMismatchError: two sets were captured at different sites or widths.
        DegenerateClassesError: a class is empty, or the classes coincide.
    """
    require_family(family)
    if finetunes and family != "model_diff":
        raise RequestError(f"only model_diff compares two models; {family} is found in one")
    split = split_families(activations.families, seed)
    if family == "model_diff":
        return _of_finetunes(activations, finetunes or {}, finder, split)
    if family == "resp_in_H":
        return _of_writers(activations, finder, negative, positive, split)
    wanted = wanted_labels(tuple(dict.fromkeys(activations.labels)), negative, positive)
    found = find_contrasts(
        find_part(activations, split),
        finder or FAMILIES[family].finder(),
        wanted,
        negative,
        family=family,
        split=split,
    )
    return Directions(found)


def found_in(
    source: ActivationSet | MomentsFile,
    family: str,
    finetunes: Mapping[str, ActivationSet],
    finder: Finder,
    negative: str,
    positive: Sequence[str] | None,
    seed: int,
) -> Directions:
    """`directions_of_family`, or from moments where only those were kept.

    Raises:
        RequestError: a family of which moments do not tell, or see `directions_of_family`.
    """
    if isinstance(source, ActivationSet):
        return directions_of_family(
            family, source, finetunes, finder, negative=negative, positive=positive, seed=seed
        )
    if family not in LABELLED:
        raise RequestError(f"{family} needs every example, and here are only moments")
    found = find_per_label_from_moments(source, finder, negative, positive, seed)
    return Directions(
        {
            persona: {site: replace(direction, family=family) for site, direction in of.items()}
            for persona, of in found.items()
        }
    )


def finetunes_in(folders: Sequence[Path]) -> dict[str, ActivationSet]:
    """Activations by the name of their state, as `extract` writes OUT/STATE/POSITION.

    Raises:
        RequestError: two have the same name.
    """
    found: dict[str, ActivationSet] = {}
    for folder in folders:
        name = folder.resolve().parent.name
        if name in found:
            raise RequestError(f"two finetunes are called {name!r}; rename one of their folders")
        found[name] = ActivationSet.open(folder)
    return found


def energy_of(
    directions: DirectionSet, activations: ActivationSet
) -> dict[Site, dict[str, Estimate]]:
    """Shares that are each one's own without sampling noise, of mean differences in one set."""
    several = [next(iter(by_site.values())) for by_site in directions.values()]
    plain = all(direction.finder == MeanDifference.name for direction in several)
    if not plain or several[0].family not in LABELLED:
        return {}
    found_on = activations.where(families=several[0].families_used)
    personas = {direction.persona: direction.positive_label for direction in several}
    return energy_estimates(found_on, personas, several[0].negative_label)


def _of_finetunes(
    before: ActivationSet,
    finetunes: Mapping[str, ActivationSet],
    finder: Finder | None,
    split: Split,
) -> Directions:
    if not finetunes:
        raise RequestError("model_diff needs the activations of a finetune on the same prompts")
    return Directions(
        {
            name: _find("model_diff", Sources(before=before, after=after), finder, name, split)
            for name, after in finetunes.items()
        }
    )


def _of_writers(
    activations: ActivationSet,
    finder: Finder | None,
    negative: str,
    positive: Sequence[str] | None,
    split: Split,
) -> Directions:
    there = dict.fromkeys(str(about.get(WRITER, "")) for about in activations.metadata or ())
    writers = wanted_labels(tuple(filter(None, there)), negative, positive) if any(there) else ()
    if not writers:
        raise RequestError(
            "resp_in_H needs replies of several states, and these activations do not say who wrote "
            "them; extract with --crossed"
        )
    return Directions(
        {
            name: _find(
                "resp_in_H",
                Sources(before=activations, writers=(name, negative)),
                finder,
                name,
                split,
            )
            for name in writers
        }
    )


def _find(
    family: str, sources: Sources, finder: Finder | None, name: str, split: Split
) -> dict[Site, Direction]:
    found = find_family(family, sources, finder, persona=name, split=split)
    return {site: replace(direction, persona=name) for site, direction in found.items()}
