"""The two classes of a contrast: who is in them, and where they lie along a vector."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.direction import Direction
from persona_probe.errors import DegenerateClassesError, PersonaProbeError, SiteMismatchError
from persona_probe.models.site import Site


def both_classes(
    activations: ActivationSet, positive_label: str, negative_label: str
) -> tuple[ActivationSet, Bool[Tensor, " example"]]:
    """The examples of the two classes, and true for the positive ones.

    Raises:
        DegenerateClassesError: a class is empty.
    """
    chosen = activations.where(labels=(positive_label, negative_label))
    n_positive = chosen.labels.count(positive_label)
    if positive_label == negative_label or not 0 < n_positive < len(chosen):
        raise DegenerateClassesError(
            f"need examples of both classes, got {n_positive} labelled {positive_label!r} and "
            f"{chosen.labels.count(negative_label)} labelled {negative_label!r}"
        )
    return chosen, torch.tensor([label == positive_label for label in chosen.labels])


def require_both_classes(
    labels: Bool[Tensor, "draw example"], weights: Float[Tensor, "draw example"]
) -> None:
    """Raise `DegenerateClassesError` when a draw gives no weight to one of its classes."""
    in_class = [(of * weights).sum(dim=1) for of in (labels, ~labels)]
    lacking = torch.minimum(*in_class) <= 0
    if lacking.any():
        draw = int(torch.nonzero(lacking)[0])
        raise DegenerateClassesError(
            f"need examples of both classes, got {float(in_class[0][draw]):g} positive and "
            f"{float(in_class[1][draw]):g} negative ones"
        )


def class_contrast(
    labels: Bool[Tensor, "draw example"], weights: Float[Tensor, "draw example"]
) -> Float[Tensor, "draw example"]:
    """What the examples add to the mean of the positive class minus that of the negative one.

    Raises:
        DegenerateClassesError: a draw gives no weight to one of its classes.
    """
    require_both_classes(labels, weights)
    positive = labels * weights.double()
    negative = ~labels * weights.double()
    contrast = positive / positive.sum(dim=1, keepdim=True)
    return contrast.sub_(negative / negative.sum(dim=1, keepdim=True))


def site_first(
    activations: ActivationSet, sites: Sequence[Site] | None = None
) -> Float[Tensor, "site example d_model"]:
    """The values at `sites` (all if not given) in float64, one matrix per site.

    Raises:
        PersonaProbeError: an activation is NaN or infinite.
    """
    chosen = activations.sites if sites is None else sites
    x = torch.stack([activations.site(site) for site in chosen]).double()
    if not torch.isfinite(x).all():
        raise PersonaProbeError("the activations hold NaN or infinity; capture them in float32")
    return x


def require_found_in(directions: Iterable[Direction], activations: ActivationSet) -> None:
    """Raise `SiteMismatchError` unless the directions live where the activations were read."""
    here = activations.provenance.model_hash
    for direction in directions:
        if len(direction.unit) != activations.d_model:
            raise SiteMismatchError(
                f"{direction.name} has {len(direction.unit)} dimensions, the "
                f"activations have {activations.d_model}; find it again in this model"
            )
        if direction.site not in activations.sites:
            there = ", ".join(str(site.layer) for site in activations.sites)
            raise SiteMismatchError(
                f"{direction.name}: the activations hold layers {there} only; "
                "capture that layer too"
            )
        found_in = direction.provenance.model_hash
        if here is not None and found_in not in (None, here):
            raise SiteMismatchError(
                f"{direction.name} was found in a model with hash {found_in}, the "
                f"activations are of {here}; find it again in that model"
            )


def projections(
    directions: Sequence[Direction], activations: ActivationSet
) -> Float[Tensor, "direction example"]:
    """Each example's component along each direction, at the direction's own site."""
    units = torch.stack([direction.unit.double() for direction in directions])
    x = site_first(activations, [direction.site for direction in directions])
    return torch.einsum("sed,sd->se", x, units)


def class_means(
    along: Float[Tensor, "draw site example"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
) -> tuple[Float[Tensor, "draw site"], Float[Tensor, "draw site"]]:
    """Weighted mean of the positive and of the negative class."""
    means = [
        torch.einsum("gse,ge->gs", along, of) / of.sum(dim=1, keepdim=True)
        for of in (labels * weights.double(), ~labels * weights.double())
    ]
    return means[0], means[1]
