"""What was used to find or to select can no longer evaluate."""

from collections.abc import Iterable

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.errors import SplitLeakError
from persona_probe.personas.splits import Part, Split


def require_part(
    directions: Iterable[Direction], activations: ActivationSet, part: Part, split: Split | None
) -> None:
    """Raise `SplitLeakError` unless the activations may serve `part` for all of the directions.

    Args:
        directions: none may have been found or selected on a family of the activations.
        activations: those to select or to evaluate on.
        part: what they are about to serve.
        split: if given, it is the one that the directions were found under, and all families must
            belong to the part.
    """
    for direction in directions:
        direction.check_held_out(activations.families)
        if split is not None and direction.split_hash not in (None, split.hash):
            raise SplitLeakError(
                f"{direction.name} was found under split {direction.split_hash}, this is split "
                f"{split.hash}: their parts overlap, so use the split it was found under"
            )
    if split is not None:
        split.require_part(activations.families, part)


def require_disjoint(found_on: ActivationSet, held_out: ActivationSet) -> None:
    """Raise `SplitLeakError` when the controls would be found on families that judge them."""
    if shared := sorted(set(found_on.families).intersection(held_out.families)):
        raise SplitLeakError(
            f"{len(shared)} prompt families, {shared[0]!r} first, are in `found_on` and in "
            "`held_out`: controls found on them would be judged by what they have seen"
        )


def as_found(directions: Iterable[Direction], found_on: ActivationSet) -> ActivationSet:
    """The examples of the families that all of the directions were found on.

    Families that only served to select, and those that the directions know nothing of, are left
    out; directions from elsewhere, which do not say what they were found on, get everything.
    """
    known = [d.families_used - d.families_selected for d in directions if d.families_used]
    if not known:
        return found_on
    return found_on.where(families=frozenset.intersection(*known))
