"""The directions of every class in one set of activations, and their validation on the rest of it.

Half of the prompt families find; the others stay untouched, for selection and for validation.
"""

from collections.abc import Sequence
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.checks.validation import Validation, validate
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.finder import Finder, find_contrasts
from persona_probe.directions.finders import finder_named
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split, split_families


def find_per_label(
    activations: ActivationSet,
    finder: Finder,
    negative: str,
    positive: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, dict[Site, Direction]]:
    """One direction per label and site, each pointing away from `negative`.

    Args:
        activations: labelled examples; their families are split.
        finder: how to find.
        negative: label of the class to point away from.
        positive: labels to point to; every other label if not given.
        seed: of the split.

    Raises:
        RequestError: a label does not occur, or there is no other label than `negative`.
    """
    wanted = wanted_labels(tuple(dict.fromkeys(activations.labels)), negative, positive)
    split = split_families(activations.families, seed)
    found = find_part(activations, split)
    return find_contrasts(found, finder, wanted, negative, split=split)


def find_part(activations: ActivationSet, split: Split) -> ActivationSet:
    """The examples of the families to find on.

    Raises:
        RequestError: there are so few families that all of them are kept for evaluation.
    """
    found = activations.where(families=split.find)
    if not len(found):
        n = len(set(activations.families))
        raise RequestError(
            f"{n} prompt famil{'y is' if n == 1 else 'ies are'} too few: half of them find, the "
            "others judge, and none is left to find on; extract more families"
        )
    return found


def wanted_labels(
    there: Sequence[str], negative: str, positive: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The labels to point to: `positive`, or every other label than `negative`.

    Raises:
        RequestError: a label does not occur, or there is no other label than `negative`.
    """
    wanted = tuple(positive or (label for label in there if label != negative))
    missing = [label for label in (negative, *wanted) if label not in there]
    if missing or not wanted:
        raise RequestError(
            f"no example is labelled {missing[0]!r}; the labels are {', '.join(there) or 'none'}"
            if missing
            else f"every example is labelled {negative!r}: there is nothing to point to"
        )
    return wanted


def validate_on_the_rest(
    directions: DirectionSet, activations: ActivationSet, **options: Any
) -> list[Validation]:
    """Validate each label's directions on the families that they were not found on.

    Args:
        directions: found in these activations.
        activations: all families, the used ones included: they give the reliability.
        options: further arguments of `validate`.

    Raises:
        RequestError: no family is left.
    """
    found = []
    for by_site in directions.values():
        first = next(iter(by_site.values()))
        rest = set(activations.families) - first.families_used
        if not rest:
            raise RequestError(
                f"the directions of {first.persona!r} were found on every family of these "
                "activations; validate them on others"
            )
        found.append(
            validate(
                by_site,
                activations.where(families=rest),
                activations.where(families=first.families_used),
                finder_named(first.finder),
                **options,
            )
        )
    return found
