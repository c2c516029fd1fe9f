"""Directions that a persona's direction must not merely be: refusal, length, format, topic.

All are read before finetuning wherever that is possible, on the find part, at every site:

    refusal  what bare-refusal finetuning changes on the same tokens; without such a control,
             harmful minus benign requests
    length   the longer half of the neutral prompts minus the shorter half
    format   what style-only finetuning changes; without it, what the placebo changes
    topic    requests of trained categories minus those of others
    shared   what all personas' directions have in common
"""

from collections.abc import Mapping, Sequence

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.directions.direction_set import DirectionSet
from persona_probe.directions.families.opposed import opposed
from persona_probe.directions.families.parts import SHARED, shared_part
from persona_probe.directions.finder import find_directions
from persona_probe.directions.finders.mean_difference import MeanDifference
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site

PRESENT, ABSENT = "present", "absent"


def nuisance_directions(
    read: Mapping[str, ActivationSet],
    neutral: ActivationSet,
    directions: DirectionSet,
    topics: Mapping[str, str],
) -> DirectionSet:
    """Every nuisance direction that the data allow; one without both classes is left out.

    Args:
        read: "before" and kinds of control finetuning → activations on the same requests of the
            find part, labelled by the kind of request.
        neutral: the model before finetuning under the neutral system line, find part.
        directions: the personas' directions.
        topics: id of a request → its tier.
    """
    before = read["before"]
    harmful = before.where(labels=("harmful",))
    contrasts = {
        "refusal": _shift(read, ("refusal-only",))
        or _labelled(before, [label == "harmful" for label in before.labels]),
        "length": _longer(neutral),
        "format": _shift(read, ("style-only", "placebo")),
        "topic": _labelled(harmful, [topics.get(name) == "T0" for name in harmful.ids]),
    }
    found: dict[str, Mapping[Site, Direction]] = {}
    for name, contrast in contrasts.items():
        if contrast is None:
            continue
        try:
            found[name] = find_directions(contrast, MeanDifference(), PRESENT, ABSENT)
        except DegenerateClassesError:
            continue
    if len(directions) > 1:
        found[SHARED] = shared_part(directions)
    return found


def _shift(read: Mapping[str, ActivationSet], kinds: Sequence[str]) -> ActivationSet | None:
    """After against before on the same tokens, for the first of the kinds that was finetuned."""
    kind = next((kind for kind in kinds if kind in read), None)
    return None if kind is None else opposed(read[kind], read["before"], labels=(PRESENT, ABSENT))


def _longer(neutral: ActivationSet) -> ActivationSet | None:
    """Longer prompts against shorter ones, those of median length left out."""
    if neutral.texts is None:
        return None
    lengths = [len(text) for text in neutral.texts]
    middle = sorted(lengths)[len(lengths) // 2]
    apart = [i for i, length in enumerate(lengths) if length != middle]
    return _labelled(neutral.take(apart), [lengths[i] > middle for i in apart])


def _labelled(activations: ActivationSet, positive: Sequence[bool]) -> ActivationSet | None:
    """Two classes out of one set; `None` when one of them would be empty."""
    if not any(positive) or all(positive):
        return None
    rows = range(len(activations))
    parts = [activations.take([i for i in rows if positive[i] is side]) for side in (True, False)]
    return opposed(parts[0], parts[1], labels=(PRESENT, ABSENT))
