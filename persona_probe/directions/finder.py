"""From labelled activations to directions: what a finder is, and what is the same for all."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import compress
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.activations.moments import Group
from persona_probe.directions.classes import both_classes, class_means, site_first
from persona_probe.directions.design import Design
from persona_probe.directions.direction import Direction, scaled_unit
from persona_probe.errors import DegenerateClassesError
from persona_probe.models.site import Site
from persona_probe.personas.splits import Split

ORTHOGONAL = " orthogonal to "  # in the label of a finder that was given nuisances


@runtime_checkable
class Finder(Protocol):
    """A way to turn two classes of activations into one vector.

    A finder is a frozen dataclass that holds its settings and never a result. It returns a raw
    vector in residual units; `find_directions` alone fixes its sign and scale. Subclass it, write
    `fit`, or `fit_many` where one batched solve serves all sites and draws, and list the class in
    `FINDERS`. `sklearn.base.clone` copies it; `DirectionClassifier` makes an estimator of it.

        @dataclass(frozen=True)
        class FirstDifference(Finder):
            name: ClassVar[str] = "first_difference"

            def fit(self, x, y, weights=None):
                return x[y][0] - x[~y][0]
    """

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """What `Direction.finder` says of what it finds."""
        return self.name

    @property
    def families_used(self) -> frozenset[str]:
        """Prompt families that its settings were found on, beside those it will be shown."""
        return frozenset()

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
        counts = torch.ones(len(y)) if weights is None else weights
        return self.fit_many(x[None], y[None], counts[None])[0, 0]

    def fit_many(
        self,
        x: Float[Tensor, "site example d_model"],
        labels: Bool[Tensor, "draw example"],
        weights: Float[Tensor, "draw example"],
        design: Design | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "draw site d_model"]:
        """`fit` at every site for every draw: resamples, folds, relabellings, personas.

        Args:
            x: activations of every site.
            labels: true for each draw's positive class.
            weights: how often each example counts in each draw; 0 leaves it out.
            design: sites, families and pairs, for finders that need them.
        """
        fits = [
            self.fit(at_site[w > 0], y[w > 0], w[w > 0])
            for y, w in zip(labels, weights, strict=True)
            for at_site in x
        ]
        return torch.stack(fits).reshape(len(labels), len(x), -1)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Its settings by name, as scikit-learn asks for them."""
        return {setting.name: getattr(self, setting.name) for setting in fields(cast(Any, self))}


@runtime_checkable
class MomentsFinder(Protocol):
    """A finder that needs no more of the examples than their moments."""

    def of_moments(self, positive: Group, negative: Group) -> Float[Tensor, "site d_model"]:
        """The raw vectors between two classes, at every site.

        Raises:
            RequestError: the classes' spread is needed and not known.
        """
        ...


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
    [found] = find_contrasts(
        activations,
        finder,
        [positive_label],
        negative_label,
        family=family,
        split=split,
        norms=norms,
    ).values()
    if persona is None:
        return found
    return {site: replace(direction, persona=persona) for site, direction in found.items()}


def find_contrasts(
    activations: ActivationSet,
    finder: Finder,
    positive_labels: Sequence[str],
    negative_label: str,
    *,
    family: str = "prompt_in_H",
    split: Split | None = None,
    norms: Mapping[Site, float] | None = None,
) -> dict[str, dict[Site, Direction]]:
    """`find_directions` of several labels against the same one, all solved together.

    Args:
        activations: examples with other labels are ignored.
        finder: an instance of a class in `FINDERS`.
        positive_labels: labels of the classes to point to.
        negative_label: label of the class to point away from.
        family: which contrast this is; see `Direction.family`.
        split: if given, all examples must belong to its find part.
        norms: as in `find_directions`.

    Raises:
        DegenerateClassesError: a class is empty, or the classes coincide at a site.
        SplitLeakError: an example is not in the find part of `split`.
    """
    chosen, labels, weights = _contrasts(activations, positive_labels, negative_label)
    if split is not None:
        split.require_part(chosen.families, "find")
    x = site_first(chosen)
    negative = ~labels[0] & (weights[0] > 0)
    raw = fit_oriented(finder, x, labels, weights, Design.of(chosen, ~negative))
    unit = raw / raw.norm(dim=-1, keepdim=True)
    means = class_means(torch.einsum("sed,gsd->gse", x, unit), labels, weights)
    residual_norms = x[:, negative].norm(dim=-1).median(dim=-1).values.tolist()
    provenance = chosen.provenance
    if split is not None:
        provenance = provenance.with_(split_hash=split.hash)
    found = {}
    for i, label in enumerate(positive_labels):
        families = frozenset(compress(chosen.families, weights[i].tolist()))
        found[label] = {
            site: direction_between(
                unit[i, s],
                float(means[0][i, s]),
                float(means[1][i, s]),
                site=site,
                norm=norms[site] if norms is not None else residual_norms[s],
                finder=finder.label,
                family=family,
                persona=label,
                position=chosen.position,
                provenance=provenance,
                split_hash=provenance.split_hash,
                families_used=families | finder.families_used,
                n_positive=chosen.labels.count(label),
                n_negative=chosen.labels.count(negative_label),
                positive_label=label,
                negative_label=negative_label,
            )
            for s, site in enumerate(chosen.sites)
        }
    return found


def direction_between(
    unit: Float[Tensor, " d_model"],
    positive: float,
    negative: float,
    *,
    site: Site,
    norm: float,
    positive_label: str,
    negative_label: str,
    **history: Any,
) -> Direction:
    """The direction between two class means along a unit vector.

    Args:
        unit: the vector; NaN where the raw one had no length.
        positive: mean of the positive class along it.
        negative: mean of the negative class along it.
        site: where the activations were read.
        norm: of the residual stream there.
        positive_label: label of the class to point to.
        negative_label: label of the class to point away from.
        history: the other fields of `Direction`.

    Raises:
        DegenerateClassesError: the classes coincide.
    """
    gap = positive - negative
    if not gap > 1e-9 * norm:  # NaN is not
        raise DegenerateClassesError(
            f"{positive_label!r} and {negative_label!r} coincide at {site.hook_name}: "
            "there is no direction between them"
        )
    return Direction(
        unit=scaled_unit(unit * gap, gap),
        gap=gap,
        midpoint=(positive + negative) / 2,
        site=site,
        norm=norm,
        positive_label=positive_label,
        negative_label=negative_label,
        **history,
    )


def _contrasts(
    activations: ActivationSet, positive_labels: Sequence[str], negative_label: str
) -> tuple[ActivationSet, Bool[Tensor, "draw example"], Float[Tensor, "draw example"]]:
    """The examples of all the classes, and of each contrast the positive ones and those in it."""
    for label in positive_labels:
        both_classes(activations, label, negative_label)
    chosen = activations.where(labels=(*positive_labels, negative_label))
    labels = torch.tensor([[of == label for of in chosen.labels] for label in positive_labels])
    negative = torch.tensor([of == negative_label for of in chosen.labels])
    return chosen, labels, (labels | negative).double()


def fit_oriented(
    finder: Finder,
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    design: Design | None = None,
) -> Float[Tensor, "draw site d_model"]:
    """Raw vectors of every draw at every site, each turned towards its own positive class."""
    raw = finder.fit_many(x, labels, weights, design).double()
    positive, negative = class_means(torch.einsum("gsd,sed->gse", raw, x), labels, weights)
    return torch.where((positive < negative)[..., None], -raw, raw)
