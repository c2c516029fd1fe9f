"""From labelled activations to directions: what a finder is, and what is the same for all."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.directions.classes import both_classes, class_means, site_first
from persona_probe.directions.direction import Direction, scaled_unit
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split


@runtime_checkable
class Finder(Protocol):
    """A way to turn two classes of activations into one vector.

    A finder is a frozen dataclass that holds its settings and never a result. It returns a raw
    vector in residual units; `find_directions` alone fixes its sign and scale. Subclass it, write
    `fit`, and list the class in `FINDERS`; override `fit_many` where one batched solve serves all
    sites and draws.

        @dataclass(frozen=True)
        class FirstDifference(Finder):
            name: ClassVar[str] = "first_difference"

            def fit(self, x, y, weights=None):
                return x[y][0] - x[~y][0]
    """

    name: ClassVar[str]

    def fit(
        self,
        x: Float[Tensor, "example d_model"],
        y: Bool[Tensor, " example"],
        weights: Float[Tensor, " example"] | None = None,
    ) -> Float[Tensor, " d_model"]:
        """The raw vector between the classes.

        Args:
            x: activations at one site, in residual units.
            y: true for the positive class.
            weights: how often each example counts; 1 each if not given.
        """
        ...

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
    ) -> Float[Tensor, "draw site d_model"]:
        """`fit` at every site for every draw: resamples, folds, relabellings."""
        fits = [
            self.fit(at_site[w > 0], y[w > 0], w[w > 0])
            for y, w in zip(labels, weights, strict=True)
            for at_site in x
        ]
        return torch.stack(fits).reshape(len(labels), len(x), -1)


def find_directions(
    activations: ActivationSet,
    finder: Finder,
    positive_label: str,
    negative_label: str,
    *,
    family: str = "prompt_in_H",
    persona: str | None = None,
    split: Split | None = None,
    norms: Mapping[Site, float] | None = None,
) -> dict[Site, Direction]:
    """Find one direction per captured site, pointing towards `positive_label`.

    Args:
        activations: examples with other labels are ignored.
        finder: an instance of a class in `FINDERS`.
        positive_label: label of the class to point to, usually the persona's name.
        negative_label: label of the class to point away from.
        family: which contrast this is; see `Direction.family`.
        persona: whose direction it is; `positive_label` if not given.
        split: if given, all examples must belong to its find part.
        norms: median residual norm per site on neutral text; measured on the negative class of
            `activations` if not given.

    Raises:
        DegenerateClassesError: a class is empty, or the classes coincide at a site.
        SplitLeakError: an example is not in the find part of `split`.
    """
    chosen, y = both_classes(activations, positive_label, negative_label)
    if split is not None:
        split.require_part(chosen.families, "find")
    x = site_first(chosen)
    ones = torch.ones(1, len(y))
    raw = fit_oriented(finder, x, y[None], ones)[0]
    unit = raw / raw.norm(dim=-1, keepdim=True)
    along = torch.einsum("sed,sd->se", x, unit)
    positive, negative = (mean[0] for mean in class_means(along[None], y[None], ones))
    gap, midpoint = positive - negative, (positive + negative) / 2
    residual_norm = x[:, ~y].norm(dim=-1).median(dim=-1).values
    provenance = chosen.provenance
    if split is not None:
        provenance = provenance.with_(split_hash=split.hash)
    directions = {}
    for i, site in enumerate(chosen.sites):
        size = float(gap[i])
        if not size > 1e-9 * float(residual_norm[i]):  # NaN, from a vector of no length, is not
            raise DegenerateClassesError(
                f"{positive_label!r} and {negative_label!r} coincide at {site.hook_name}: "
                "there is no direction between them"
            )
        directions[site] = Direction(
            unit=scaled_unit(unit[i] * size, size),
            gap=size,
            midpoint=float(midpoint[i]),
            site=site,
            finder=finder.name,
            family=family,
            persona=persona or positive_label,
            position=chosen.position,
            norm=norms[site] if norms is not None else float(residual_norm[i]),
            provenance=provenance,
            split_hash=provenance.split_hash,
            families_used=frozenset(chosen.families),
            positive_label=positive_label,
            negative_label=negative_label,
        )
    return directions


def fit_oriented(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
) -> Float[Tensor, "draw site d_model"]:
    """Raw vectors of every draw at every site, each turned towards its own positive class."""
    raw = finder.fit_many(x, labels, weights).double()
    positive, negative = class_means(torch.einsum("gsd,sed->gse", raw, x), labels, weights)
    return torch.where((positive < negative)[..., None], -raw, raw)
