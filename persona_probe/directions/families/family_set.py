"""Every family of direction that the captured activations allow, with shared and specific parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.directions.families.family import WRITER, Sources, find_family
from persona_probe.directions.families.parts import SHARED, shared_part, specific_parts
from persona_probe.errors import DegenerateClassesError, RequestError
from persona_probe.models.site import Site
from persona_probe.personas.splits import split_families

BySite = dict[Site, Direction]


@dataclass(frozen=True)
class FamilySet:
    """What was found, ready for `save_directions`, and what was not.

    Attributes:
        directions: "FAMILY-NAME", "shared" and "specific-NAME" to directions by site.
        left_out: the same names to the reason why there is no such direction.
    """

    directions: dict[str, BySite]
    left_out: dict[str, str]


def find_families(
    before: ActivationSet,
    finetunes: Mapping[str, ActivationSet],
    prompted: ActivationSet | None = None,
    *,
    negative: str = "neutral",
    behaviour: tuple[str, str] | None = None,
    seed: int = 0,
) -> FamilySet:
    """Directions of all families, each on the find half of its prompt families.

    Args:
        before: activations of the model that was finetuned; for resp_in_H of the crossed design,
            in which the metadata says who wrote each reply.
        finetunes: name to activations on the same examples.
        prompted: the model before finetuning under system prompts, labelled by persona.
        negative: label of the neutral system prompt.
        behaviour: labels of replies that express the persona and of those that do not, if any.
        seed: of the splits by prompt family.
    """
    found, left_out = dict[str, BySite](), dict[str, str]()

    def attempt(name: str, find: Callable[[], BySite]) -> None:
        try:
            found[name] = _named(name, find())
        except (RequestError, DegenerateClassesError) as error:
            left_out[name] = str(error)

    split = split_families(before.families, seed)
    for name, after in finetunes.items():
        sources = Sources(before=before, after=after, writers=_writers(before, name))
        attempt(f"model_diff-{name}", partial(find_family, "model_diff", sources, split=split))
        if sources.writers is not None:
            attempt(f"resp_in_H-{name}", partial(find_family, "resp_in_H", sources, split=split))
        if behaviour is not None:
            labelled = replace(sources, behaviour=behaviour)
            attempt(f"behav_in_F-{name}", partial(find_family, "behav_in_F", labelled, split=split))
    if prompted is not None:
        prompts = split_families(prompted.families, seed)
        personas = [label for label in dict.fromkeys(prompted.labels) if label != negative]
        for family in ("prompt_in_H", "probe"):
            for persona in personas:
                asked = Sources(prompted=prompted, persona=persona, neutral=negative)
                attempt(f"{family}-{persona}", partial(find_family, family, asked, split=prompts))
        parts = {p: found[f"prompt_in_H-{p}"] for p in personas if f"prompt_in_H-{p}" in found}
        if len(parts) > 1:
            attempt(SHARED, partial(shared_part, parts))
            for persona, part in specific_parts(parts).items():
                found[f"specific-{persona}"] = _named(f"specific-{persona}", part)
    return FamilySet(found, left_out)


def _named(name: str, directions: Mapping[Site, Direction]) -> BySite:
    return {site: replace(direction, persona=name) for site, direction in directions.items()}


def _writers(before: ActivationSet, finetune: str) -> tuple[str, str] | None:
    """The finetune and the other one who wrote the replies; None where they do not come in two."""
    there = {str(about[WRITER]) for about in before.metadata or () if WRITER in about}
    others = there - {finetune}
    return (finetune, others.pop()) if finetune in there and len(others) == 1 else None
