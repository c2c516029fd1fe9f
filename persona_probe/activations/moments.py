"""Counts, means and covariances of activations that are read once and never kept.

Means are kept per label and prompt family, so that any choice of both has one; spreads (what a
shrunken covariance needs) per label, for two sets of families apart. Batches are joined exactly, by
the update of Chan, Golub and LeVeque (1983, https://doi.org/10.1080/00031305.1983.10483115), in
float64: a plain sum of squares loses a small variance around a large mean.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.spread import Spread
from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    RequestError,
    SiteMismatchError,
)
from persona_probe.models.site import Site


@dataclass(frozen=True)
class Group:
    """The examples of one label and one prompt family, or several such groups together.

    Attributes:
        n: how many.
        mean: float64, of their activations.
        norm: mean length of their activations. A median, as of stored activations, would need all
            of them at once; outliers in a few examples move a mean more.
        spread: about the mean, where it was asked for and is known.
    """

    n: int
    mean: Float[Tensor, "site d_model"]
    norm: Float[Tensor, " site"]
    spread: Spread | None = None

    def merged(self, other: "Group") -> "Group":
        """Both together, without their spread."""
        n = self.n + other.n
        share = other.n / n
        return Group(
            n,
            self.mean + (other.mean - self.mean) * share,
            self.norm + (other.norm - self.norm) * share,
        )


@dataclass(frozen=True)
class Moments:
    """What directions need to know of activations.

    Attributes:
        sites: where the residual stream was read.
        d_model: its width.
        position: name of the rule by which tokens were pooled.
        groups: (label, family) → count, mean and norm.
        spreads: (label, whether of `apart`) → float64 spread about the mean of those examples, so
            that it counts what differs between families too; `None` where covariances were not
            asked for.
        apart: families whose spread is kept by itself, so that it can be left out: those that are
            not for finding.
    """

    sites: tuple[Site, ...]
    d_model: int
    position: str
    groups: Mapping[tuple[str, str], Group] = field(default_factory=dict)
    spreads: Mapping[tuple[str, bool], Spread] | None = None
    apart: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "example site d_model"],
        labels: Sequence[str],
        families: Sequence[str],
        sites: Sequence[Site],
        position: str,
        covariance: bool = False,
        apart: frozenset[str] = frozenset(),
    ) -> "Moments":
        """Moments of some examples.

        Args:
            values: in the order of `labels`, `families` and `sites`.
            labels: class of each example.
            families: prompt family of each example.
            sites: where they were read.
            position: name of the rule by which tokens were pooled.
            covariance: whether to keep spreads, a d_model × d_model matrix per label and site,
                and another for the families apart.
            apart: families whose spread is kept by itself.

        Raises:
            PersonaProbeError: an activation is NaN or infinite.
        """
        rows: dict[tuple[str, str], list[int]] = {}
        for row, key in enumerate(zip(labels, families, strict=True)):
            rows.setdefault(key, []).append(row)
        groups = {
            key: Group(len(mine), mine.mean(dim=0, dtype=torch.float64).cpu(), _mean_norm(mine))
            for key, mine in ((key, values[rows[key]]) for key in sorted(rows))
        }
        for (label, _), group in groups.items():
            bad = (~torch.isfinite(group.mean).all(dim=-1)).nonzero()
            if len(bad):
                raise PersonaProbeError(
                    f"the activations labelled {label!r} at {sites[int(bad[0])]} hold NaN or "
                    "infinity; load the model in float32 or bfloat16"
                )
        found = cls(tuple(sites), values.shape[2], position, groups, None, apart)
        if not covariance:
            return found
        members: dict[tuple[str, bool], list[int]] = {}
        for row, (label, family) in enumerate(zip(labels, families, strict=True)):
            members.setdefault((label, family in apart), []).append(row)
        spreads = {
            key: Spread.of(values[members[key]], found._block(key).mean) for key in sorted(members)
        }
        return replace(found, spreads=spreads)

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
        for name in ("sites", "position", "d_model", "apart"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise RequestError(f"cannot join moments of {name} {mine} with those of {theirs}")
        groups = dict(self.groups)
        for key, group in other.groups.items():
            groups[key] = groups[key].merged(group) if key in groups else group
        found = replace(self, groups={key: groups[key] for key in sorted(groups)})
        if self.spreads is None and other.spreads is None:
            return found
        if self.spreads is None or other.spreads is None:
            raise RequestError("cannot join moments with covariances and moments without")
        spreads = dict(self.spreads)
        for block, theirs in other.spreads.items():
            if block not in spreads:
                spreads[block] = theirs
                continue
            one, two = self._block(block), other._block(block)
            spreads[block] = spreads[block].merged(one.n, theirs, two.n, two.mean - one.mean)
        return replace(found, spreads={block: spreads[block] for block in sorted(spreads)})

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
        return self._joined(label, families).mean

    def group(self, label: str, families: Collection[str] | None = None) -> Group:
        """The examples with the label, of the families (`None`: all), together.

        Its spread is known if covariances were kept and the families are all of the label's, all
        but those apart, or just those.

        Raises:
            DegenerateClassesError: there are none.
        """
        found = self._joined(label, families)
        if self.spreads is None:
            return found
        blocks = [key for key in self.spreads if key[0] == label]
        chosen = {f for of, f in self.groups if of == label and (families is None or f in families)}
        wanted = [key for key in blocks if chosen & self._families(key)]
        if chosen != frozenset[str]().union(*map(self._families, wanted)):
            return found
        spread = self.spreads[wanted[0]]
        if len(wanted) == 2:
            one, two = map(self._block, wanted)
            spread = spread.merged(one.n, self.spreads[wanted[1]], two.n, two.mean - one.mean)
        return replace(found, spread=spread)

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
        if self.spreads is None:
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
            spread = self.group(name).spread
            if spread is not None:
                total += spread.scatter[at]
        return total / (n - len(labels))

    def _block(self, key: tuple[str, bool]) -> Group:
        """The examples of one of the spreads."""
        return self._joined(key[0], self._families(key))

    def _families(self, key: tuple[str, bool]) -> frozenset[str]:
        label, apart = key
        return frozenset(f for of, f in self.groups if of == label and (f in self.apart) == apart)

    def _joined(self, label: str | None, families: Collection[str] | None) -> Group:
        chosen = self._chosen(label, families)
        if not chosen:
            raise DegenerateClassesError(
                f"no examples{_labelled(label)} in these moments, whose labels are "
                f"{', '.join(self.labels)}"
            )
        first, *rest = chosen
        for group in rest:
            first = first.merged(group)
        return first

    def _chosen(self, label: str | None, families: Collection[str] | None) -> list[Group]:
        return [
            group
            for (of, family), group in self.groups.items()
            if (label is None or of == label) and (families is None or family in families)
        ]


def _labelled(label: str | None) -> str:
    return "" if label is None else f" labelled {label!r}"


def _mean_norm(values: Float[Tensor, "example site d_model"]) -> Float[Tensor, " site"]:
    norms: Tensor = torch.linalg.vector_norm(values, dim=2, dtype=torch.float64)
    return norms.mean(dim=0).cpu()
