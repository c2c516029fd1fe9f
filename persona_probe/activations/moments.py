"""Counts, means and covariances of activations that are read once and never kept.

Means are kept per label and prompt family, so that any choice of both has one; scatter (the
centred sum of outer products) per label. Batches are joined exactly, by the update of Chan, Golub
and LeVeque (1983, https://doi.org/10.1080/00031305.1983.10483115), in float64: a plain sum of
squares loses a small variance around a large mean.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    RequestError,
    SiteMismatchError,
)
from persona_probe.models.site import Site


@dataclass(frozen=True)
class Group:
    """The examples of one label and one prompt family.

    Attributes:
        n: how many.
        mean: float64, of their activations.
    """

    n: int
    mean: Float[Tensor, "site d_model"]

    def merged(self, other: "Group") -> "Group":
        """Both together."""
        n = self.n + other.n
        return Group(n, self.mean + (other.mean - self.mean) * (other.n / n))


@dataclass(frozen=True)
class Moments:
    """What directions need to know of activations.

    Attributes:
        sites: where the residual stream was read.
        d_model: its width.
        position: name of the rule by which tokens were pooled.
        groups: (label, family) → count and mean.
        scatter: label → float64 sum of outer products about the label's mean, so that it counts
            what differs between families too; `None` where covariances were not asked for.
    """

    sites: tuple[Site, ...]
    d_model: int
    position: str
    groups: Mapping[tuple[str, str], Group] = field(default_factory=dict)
    scatter: Mapping[str, Float[Tensor, "site d_model d_model"]] | None = None

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "example site d_model"],
        labels: Sequence[str],
        families: Sequence[str],
        sites: Sequence[Site],
        position: str,
        covariance: bool = False,
    ) -> "Moments":
        """Moments of some examples.

        Args:
            values: in the order of `labels`, `families` and `sites`.
            labels: class of each example.
            families: prompt family of each example.
            sites: where they were read.
            position: name of the rule by which tokens were pooled.
            covariance: whether to keep scatter, a d_model × d_model matrix per label and site.

        Raises:
            PersonaProbeError: an activation is NaN or infinite.
        """
        rows: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(labels, families, strict=True)):
            rows.setdefault(key, []).append(row)
        groups = {
            key: Group(len(rows[key]), values[rows[key]].mean(dim=0, dtype=torch.float64).cpu())
            for key in sorted(rows)
        }
        for (label, _), group in groups.items():
            bad = (~torch.isfinite(group.mean).all(dim=-1)).nonzero()
            if len(bad):
                raise PersonaProbeError(
                    f"the activations labelled {label!r} at {sites[int(bad[0])]} hold NaN or "
                    "infinity; load the model in float32 or bfloat16"
                )
        found = cls(tuple(sites), values.shape[2], position, groups, {} if covariance else None)
        if not covariance:
            return found
        scatter = {}
        for label in found.labels:
            mine = [row for row, of in enumerate(labels) if of == label]
            scatter[label] = _scatter(values[mine], found.mean(label))
        return cls(found.sites, found.d_model, position, groups, scatter)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return tuple(sorted({label for label, _ in self.groups}))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of all examples of both, as if they had been read together.

        Raises:
            RequestError: the two are of other sites, positions or widths, or only one has
                covariances.
        """
        for name in ("sites", "position", "d_model"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise RequestError(f"cannot join moments of {name} {mine} with those of {theirs}")
        groups = dict(self.groups)
        for key, group in other.groups.items():
            groups[key] = groups[key].merged(group) if key in groups else group
        ordered = {key: groups[key] for key in sorted(groups)}
        if self.scatter is None and other.scatter is None:
            return Moments(self.sites, self.d_model, self.position, ordered)
        if self.scatter is None or other.scatter is None:
            raise RequestError("cannot join moments with covariances and moments without")
        scatter = dict(self.scatter)
        for label, theirs in other.scatter.items():
            if label not in scatter:
                scatter[label] = theirs
                continue
            n, m = self.count(label), other.count(label)
            gap = other.mean(label) - self.mean(label)
            between = gap[:, :, None] * gap[:, None, :]
            scatter[label] = between.mul_(n * m / (n + m)).add_(scatter[label]).add_(theirs)
        return Moments(self.sites, self.d_model, self.position, ordered, scatter)

    def count(self, label: str | None = None, families: Collection[str] | None = None) -> int:
        """Number of examples with the label, of the families; `None` allows all."""
        return sum(group.n for group in self._chosen(label, families))

    def mean(
        self, label: str | None = None, families: Collection[str] | None = None
    ) -> Float[Tensor, "site d_model"]:
        """Mean in float64 over the examples with the label, of the families; `None` allows all.

        Raises:
            DegenerateClassesError: there are none.
        """
        chosen = self._chosen(label, families)
        if not chosen:
            raise DegenerateClassesError(
                f"no examples{_labelled(label)} in these moments, whose labels are "
                f"{', '.join(self.labels)}"
            )
        first, *rest = chosen
        for group in rest:
            first = first.merged(group)
        return first.mean

    def covariance(self, site: Site, label: str | None = None) -> Float[Tensor, "d_model d_model"]:
        """Unbiased covariance in float64 at one site.

        Args:
            site: where.
            label: of this label's examples, with what differs between their families. If `None`,
                pooled: about each label's own mean, with one degree of freedom less per label.

        Raises:
            RequestError: covariances were not kept.
            SiteMismatchError: nothing was read there.
            DegenerateClassesError: there are too few examples.
        """
        if self.scatter is None:
            raise RequestError("these moments hold no covariances; extract again with them")
        if site not in self.sites:
            there = ", ".join(str(s.layer) for s in self.sites)
            raise SiteMismatchError(f"nothing was captured at {site}, only at layers {there}")
        labels = self.labels if label is None else (label,)
        n = sum(map(self.count, labels))
        if n <= len(labels):
            raise DegenerateClassesError(
                f"{n} examples{_labelled(label)} have no covariance within their labels; read more"
            )
        at = self.sites.index(site)
        total = torch.zeros(self.d_model, self.d_model, dtype=torch.float64)
        for name in labels:
            total += self.scatter[name][at]
        return total / (n - len(labels))

    def _chosen(self, label: str | None, families: Collection[str] | None) -> list[Group]:
        return [
            group
            for (of, family), group in self.groups.items()
            if (label is None or of == label) and (families is None or family in families)
        ]


def _labelled(label: str | None) -> str:
    return "" if label is None else f" labelled {label!r}"


def _scatter(
    values: Float[Tensor, "example site d_model"], mean: Float[Tensor, "site d_model"]
) -> Float[Tensor, "site d_model d_model"]:
    """One site at a time: in float64, everything at once would be several times the batch."""
    scatter = []
    for site in range(values.shape[1]):
        centred = values[:, site].double() - mean[site].to(values.device)
        scatter.append((centred.T @ centred).cpu())
    return torch.stack(scatter)
