"""Two sets of activations as one labelled set, so that every contrast is found in the same way.

    model_diff   opposed(after, before): the same token ids read in both models
    resp_in_H    opposed(helpful-only reading F's replies, helpful-only reading its own)
    behav_in_F   opposed(F on aligned replies, F on the others)

A contrast of system prompts within one model (prompt_in_H) arrives labelled already.
"""

from dataclasses import replace

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.columns import Joined
from persona_probe.errors import RequestError, SiteMismatchError


def opposed(
    positive: ActivationSet,
    negative: ActivationSet,
    labels: tuple[str, str] = ("after", "before"),
) -> ActivationSet:
    """The examples of both, those of `positive` labelled `labels[0]`, the others `labels[1]`.

    Raises:
        SiteMismatchError: the two were captured at different sites or widths.
        RequestError: they were pooled at different positions.
    """
    if positive.sites != negative.sites or positive.d_model != negative.d_model:
        raise SiteMismatchError(
            f"cannot contrast activations of {len(positive.sites)} sites and width "
            f"{positive.d_model} with {len(negative.sites)} sites and width "
            f"{negative.d_model}; capture both at the same sites"
        )
    if positive.position != negative.position:
        raise RequestError(
            f"cannot contrast activations at {positive.position!r} with {negative.position!r}"
        )
    texts = metadata = None
    if positive.texts is not None and negative.texts is not None:
        texts = (*positive.texts, *negative.texts)
    if positive.metadata is not None and negative.metadata is not None:
        metadata = (*positive.metadata, *negative.metadata)
    columns = [positive.columns, negative.columns]
    return replace(
        positive,
        columns=Joined.of(columns, positive.sites, positive.d_model),
        ids=(*positive.ids, *negative.ids),
        labels=(labels[0],) * len(positive.ids) + (labels[1],) * len(negative.ids),
        families=(*positive.families, *negative.families),
        texts=texts,
        metadata=metadata,
    )
