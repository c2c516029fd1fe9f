"""The five families of direction: one persona, asked for in five ways.

They answer different questions and need not agree; every claim names its family. All of them are
a contrast of two labelled classes, so `find_directions` finds them all, and each direction carries
its family, position, site, model hash, split hash and the prompt families it was found on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.directions.families.opposed import opposed
from persona_probe.directions.families.shift import require_paired
from persona_probe.directions.finder import Finder, find_directions
from persona_probe.directions.finders.linear_probe import LinearProbe
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split
from persona_probe.provenance import Provenance

AFTER, BEFORE = "after", "before"
WRITER = "written_by"


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two classes to find a direction between.

    Attributes:
        activations: labelled examples.
        positive: label of the class to point to.
        negative: label of the class to point away from.
    """

    activations: ActivationSet
    positive: str
    negative: str


@dataclass(frozen=True, eq=False)
class Sources:
    """What was captured; each family needs some of it.

    Attributes:
        before: the model before finetuning, on the prompts of `after`. For resp_in_H it has read
            replies of both models, and its metadata says under "written_by" who wrote them.
        after: the finetuned model on the same tokens; for behav_in_F with labelled replies.
        prompted: the model before finetuning under system prompts, labelled by persona.
        writers: names of the states that wrote, (after, before), as "written_by" has them.
        behaviour: labels of replies that express the persona, and of those that do not.
        persona: label in `prompted` of whom the direction points to.
        neutral: label in `prompted` of whom it points away from.
    """

    before: ActivationSet | None = None
    after: ActivationSet | None = None
    prompted: ActivationSet | None = None
    writers: tuple[str, str] | None = None
    behaviour: tuple[str, str] = ("aligned", "non-aligned")
    persona: str | None = None
    neutral: str = "neutral"


@dataclass(frozen=True)
class Family:
    """One way to ask for a direction.

    Attributes:
        name: as `Direction.family` has it.
        answers: what it answers.
        contrast: the two classes, from what was captured.
        finder: what finds it if nothing else is asked for.
    """

    name: str
    answers: str
    contrast: Callable[[Sources], Contrast]
    finder: Callable[[], Finder] = MeanDifference


def model_diff(sources: Sources) -> Contrast:
    """Finetuned minus original on the same tokens, paired by example."""
    before, after = _need(sources.before, "before"), _need(sources.after, "after")
    require_paired(before, after)
    both = opposed(after, before, (AFTER, BEFORE))
    return Contrast(
        replace(both, provenance=_of_both(before.provenance, after.provenance)), AFTER, BEFORE
    )


def resp_in_H(sources: Sources) -> Contrast:
    """Replies of the finetuned model minus its own, both read by the model before finetuning.

    Only prompts that both have answered count, so that the two classes differ in the reply alone.
    """
    before = _need(sources.before, "before")
    metadata = before.metadata or ({},) * len(before)
    writers = [str(about.get(WRITER, "")) for about in metadata]
    there = tuple(dict.fromkeys(name for name in writers if name))
    wanted = sources.writers
    if wanted is None or not set(wanted) <= set(there):
        raise RequestError(
            f"resp_in_H needs the names of the two writers, finetuned first, as the metadata has "
            f"them under {WRITER!r}: {', '.join(there) or 'none there; extract with --crossed'}"
        )
    # The crossed design calls the reply of STATE to the prompt ID "ID@STATE".
    prompts = [
        name.removesuffix(f"@{writer}") for name, writer in zip(before.ids, writers, strict=True)
    ]
    answered = [
        {prompt for prompt, writer in zip(prompts, writers, strict=True) if writer == state}
        for state in wanted
    ]
    both = answered[0] & answered[1]
    rows = [i for i, prompt in enumerate(prompts) if prompt in both and writers[i] in wanted]
    if not rows:
        raise RequestError(f"no prompt was answered by both {wanted[0]!r} and {wanted[1]!r}")
    kept = before.take(rows)
    relabelled = replace(
        kept, ids=tuple(prompts[i] for i in rows), labels=tuple(writers[i] for i in rows)
    )
    return Contrast(relabelled, *wanted)


def prompt_in_H(sources: Sources) -> Contrast:
    """The persona's system prompt minus the neutral one, in the model before finetuning."""
    prompted = _need(sources.prompted, "prompted")
    if sources.persona is None:
        raise RequestError("prompt_in_H needs the persona's label")
    return Contrast(prompted, sources.persona, sources.neutral)


def behav_in_F(sources: Sources) -> Contrast:
    """Replies that express the persona minus those that do not, within the finetuned model."""
    return Contrast(_need(sources.after, "after"), *sources.behaviour)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("model_diff", "what the weights changed", model_diff),
        Family("resp_in_H", "does the model before hold the persona already", resp_in_H),
        Family("prompt_in_H", "is it promptable", prompt_in_H),
        Family("behav_in_F", "what goes with behaving so, within the finetuned model", behav_in_F),
        Family("probe", "what reads it out best", prompt_in_H, LinearProbe),
    )
}


def require_family(name: str) -> Family:
    """The family of this name; a `RequestError` lists the choices if there is none."""
    if name not in FAMILIES:
        raise RequestError(f"no family {name!r}; choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def find_family(
    name: str,
    sources: Sources,
    finder: Finder | None = None,
    *,
    persona: str | None = None,
    split: Split | None = None,
    norms: Mapping[Site, float] | None = None,
) -> dict[Site, Direction]:
    """The directions of one family at every captured site.

    Args:
        name: a name in `FAMILIES`.
        sources: what was captured.
        finder: the family's own if not given: difference of means, or a logistic probe.
        persona: whose direction it is; the label pointed to if not given.
        split: if given, only its find part is used.
        norms: median residual norm per site on neutral text, as for `find_directions`.

    Raises:
        RequestError: there is no such family, something that it needs was not captured, or no
            example belongs to the find part.
        SiteMismatchError: the two sides were captured at different sites or widths.
        DegenerateClassesError: a class is empty, or the classes coincide.
    """
    family = require_family(name)
    contrast = family.contrast(sources)
    activations = contrast.activations
    if split is not None:
        activations = activations.where(families=split.find)
        if not len(activations):
            raise RequestError(f"{name}: no example belongs to the find part of the split")
    options: dict[str, Any] = {"persona": persona or sources.persona, "split": split}
    return find_directions(
        activations,
        finder or family.finder(),
        contrast.positive,
        contrast.negative,
        family=name,
        norms=norms,
        **options,
    )


def _need(activations: ActivationSet | None, name: str) -> ActivationSet:
    if activations is None:
        raise RequestError(f"this family needs the activations called {name!r}; capture them")
    return activations


def _of_both(before: Provenance, after: Provenance) -> Provenance:
    """Of a difference of two models: the weights of the first, the second as what was added to it.

    A direction belongs to the residual stream in which it can be added, that of `before`.
    """
    if before.model_hash == after.model_hash:
        return after
    return before.with_(adapter=after.model, adapter_hash=after.model_hash)
