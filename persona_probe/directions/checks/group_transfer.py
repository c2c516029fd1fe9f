"""Does what one category or template of prompts shows of a persona hold in the others?

A direction that is found on one group of prompts and fails on another reads that group's wording.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.columns import InMemory
from persona_probe.directions.checks.transfer import TransferMatrix, transfer_matrix
from persona_probe.directions.classes import both_classes
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.finder import Finder, find_directions
from persona_probe.directions.finders import finder_named
from persona_probe.directions.json_form import json_form
from persona_probe.errors import RequestError

CATEGORIES, TEMPLATES = "categories", "templates"
CATEGORY_KEYS = ("category", "topic")


@dataclass(frozen=True)
class GroupTransfer:
    """Transfer of one persona's direction between groups of prompts, at every site.

    Attributes:
        persona: the positive label.
        finder: that found a direction in every group.
        by: what the groups are: "categories", "templates" or a key of the metadata.
        unit: what halves are made of and intervals leave out: "family", or "prompt" between
            templates, where a group is one family.
        matrices: one per site; row: the group that the direction was found on, column: the one it
            was tried on. Row and column of one cell share no unit, on the diagonal neither; the
            diagonal of templates does share the template, and is there to be compared with.
        left_out: group → why it is not in the matrices.
    """

    persona: str
    finder: str
    by: str
    unit: str
    matrices: tuple[TransferMatrix, ...]
    left_out: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        value: dict[str, Any] = json_form(self)
        return value


def transfer_between_groups(
    activations: ActivationSet,
    finder: Finder,
    positive_label: str,
    negative_label: str,
    by: str = CATEGORIES,
    seed: int = 0,
) -> GroupTransfer:
    """Find on half of every group, try on the other half of every group.

    Args:
        activations: of all groups; examples with other labels are ignored.
        finder: how to find.
        positive_label: label of the class to point to.
        negative_label: label of the class to point away from.
        by: "categories" (the metadata's category or topic, or else what stands before the first
            "/" of the prompt family), "templates" (the prompt families), or a key of the metadata.
            A negative example without a group is in that of the positive one with its id.
        seed: of the halves.

    Raises:
        DegenerateClassesError: a class is empty, or the classes coincide in a group.
        RequestError: fewer than two groups have two units with both classes.
    """
    chosen, _ = both_classes(activations, positive_label, negative_label)
    groups = _groups(chosen, by, positive_label)
    unit = "prompt" if by == TEMPLATES else "family"
    units = chosen.ids if by == TEMPLATES else chosen.families
    first = _first_half(groups, units, seed)
    left_out = _incomplete(chosen, groups, [name in first for name in units], unit)
    names = [group for group in dict.fromkeys(groups) if group and group not in left_out]
    if len(names) < 2:
        there = f"only {names[0]!r} can be used" if names else "none can be used"
        why = "".join(f"; {group!r} {reason}" for group, reason in list(left_out.items())[:3])
        raise RequestError(f"transfer between {by} needs two groups of prompts; {there}{why}")
    marked = replace(
        chosen,
        labels=tuple(map(_in_group, chosen.labels, groups)),
        families=tuple(units),
    )
    found_on, held_out = (marked.where(families=half) for half in (first, set(units) - first))
    directions = {
        name: find_directions(
            found_on,
            finder,
            _in_group(positive_label, name),
            _in_group(negative_label, name),
            persona=name,
        )
        for name in names
    }
    matrices = tuple(transfer_matrix(directions, held_out))
    return GroupTransfer(positive_label, finder.label, by, unit, matrices, left_out)


def transfer_of(
    directions: DirectionSet, activations: ActivationSet, by: str = CATEGORIES, seed: int = 0
) -> list[GroupTransfer]:
    """`transfer_between_groups` for every persona's contrast, finder and sites.

    Args:
        directions: found in these activations; they are found again, group by group.
        activations: all groups.
        by: as in `transfer_between_groups`.
        seed: of the halves.

    Raises:
        RequestError: as in `transfer_between_groups`.
        SiteMismatchError: a site was not captured.
    """
    found = []
    for by_site in directions.values():
        first, sites = by_site[min(by_site)], sorted(by_site)
        labels = first.positive_label, first.negative_label
        there = activations.where(labels=labels)
        values = torch.stack([there.site(site) for site in sites], dim=1)
        there = replace(there, columns=InMemory(values, tuple(sites)))
        found.append(transfer_between_groups(there, finder_named(first.finder), *labels, by, seed))
    return found


def _groups(chosen: ActivationSet, by: str, positive_label: str) -> list[str]:
    """The group of every example; "" where it has none."""
    if by == TEMPLATES:
        return list(chosen.families)
    about = chosen.metadata or ({},) * len(chosen)
    keys = CATEGORY_KEYS if by == CATEGORIES else (by,)
    said = [next((str(of[key]) for key in keys if of.get(key)), "") for of in about]
    if not any(said):
        if by != CATEGORIES:
            known = sorted({key for of in about for key in of})
            raise RequestError(
                f"the metadata of these activations has no {by!r}; choose {CATEGORIES}, {TEMPLATES}"
                + "".join(f", {key}" for key in known)
            )
        return [family.partition("/")[0] if "/" in family else "" for family in chosen.families]
    rows = zip(chosen.ids, chosen.labels, said, strict=True)
    of_pair = {name: group for name, label, group in rows if label == positive_label}
    return [group or of_pair.get(name, "") for group, name in zip(said, chosen.ids, strict=True)]


def _first_half(groups: Sequence[str], units: Sequence[str], seed: int) -> set[str]:
    """Half of every group's units, at random; a unit of several groups counts in its first."""
    members: dict[str, list[str]] = {}
    for unit, group in dict(zip(reversed(units), reversed(groups), strict=True)).items():
        members.setdefault(group, []).append(unit)
    rng = np.random.default_rng(seed)
    halves = (rng.permutation(sorted(of))[: len(of) // 2] for _, of in sorted(members.items()))
    return {str(unit) for half in halves for unit in half}


def _incomplete(
    chosen: ActivationSet, groups: Sequence[str], in_first: Sequence[bool], unit: str
) -> dict[str, str]:
    """Groups that lack a class in one of the halves, and the reason."""
    there = set(zip(groups, chosen.labels, in_first, strict=True))
    labels = sorted(set(chosen.labels))
    found = {"": "no group is known"} if "" in groups else {}
    for group in filter(None, dict.fromkeys(groups)):
        halves = [all((group, label, half) in there for label in labels) for half in (True, False)]
        if not all(halves):
            found[group] = f"has too few units ({unit}) with both classes to halve"
    return found


def _in_group(label: str, group: str) -> str:
    return f"{label} in {group}"
