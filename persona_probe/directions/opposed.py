"""Two sets of activations as one labelled set, so that every contrast is found in the same way.

    model_diff   opposed(after, before): the same token ids read in both models
    resp_in_H    opposed(helpful-only reading F's replies, helpful-only reading its own)
    behav_in_F   opposed(F on aligned replies, F on the others)

A contrast of system prompts within one model (prompt_in_H) arrives labelled already.
"""

from dataclasses import replace

import torch

from persona_probe.activations.activation_set import ActivationSet
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
    if positive.sites != negative.sites or positive.values.shape[-1] != negative.values.shape[-1]:
        raise SiteMismatchError(
            f"cannot contrast activations of {len(positive.sites)} sites and width "
            f"{positive.values.shape[-1]} with {len(negative.sites)} sites and width "
            f"{negative.values.shape[-1]}; capture both at the same sites"
        )
    if positive.position != negative.position:
        raise RequestError(
            f"cannot contrast activations at {positive.position!r} with {negative.position!r}"
        )
    texts = None
    if positive.texts is not None and negative.texts is not None:
        texts = (*positive.texts, *negative.texts)
    return replace(
        positive,
        values=torch.cat([positive.values, negative.values]),
        ids=(*positive.ids, *negative.ids),
        labels=(labels[0],) * len(positive.ids) + (labels[1],) * len(negative.ids),
        families=(*positive.families, *negative.families),
        texts=texts,
    )
