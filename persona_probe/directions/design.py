"""Which examples belong together, and where they were read."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.models.site import Site


@dataclass(frozen=True, eq=False)
class Design:
    """What examples are, as far as it is not their class.

    Attributes:
        sites: of the first axis of x, in order.
        families: number of each example's prompt family. Examples of one family resemble each
            other, so that a setting is chosen on families that were not fitted.
        pairs: number of what each example is compared within; see `of`.
        model_hash: of the model they were read in, if known.
    """

    sites: tuple[Site, ...]
    families: Int[Tensor, " example"]
    pairs: Int[Tensor, " example"]
    model_hash: str | None = None

    @classmethod
    def of(
        cls,
        activations: ActivationSet,
        y: Bool[Tensor, " example"],
        sites: Sequence[Site] | None = None,
    ) -> "Design":
        """The design of labelled activations.

        Examples are compared within their id where it occurs in both classes: `contrast` gives the
        same question the same id under every character. Any other example is compared with those
        of its prompt family.

        Args:
            activations: the examples.
            y: true for the positive class.
            sites: those that will be looked at; all captured ones if not given.
        """
        classes: dict[str, set[bool]] = {}
        for name, positive in zip(activations.ids, y.tolist(), strict=True):
            classes.setdefault(name, set()).add(positive)
        pairs = [
            ("id", name) if len(classes[name]) == 2 else ("family", family)
            for name, family in zip(activations.ids, activations.families, strict=True)
        ]
        return cls(
            tuple(activations.sites if sites is None else sites),
            numbered(activations.families),
            numbered(pairs),
            activations.provenance.model_hash,
        )

    def take(self, rows: Int[Tensor, " row"]) -> "Design":
        """Of some of the examples, in the order given."""
        return Design(self.sites, self.families[rows], self.pairs[rows], self.model_hash)


def numbered(names: Sequence[Hashable]) -> Int[Tensor, " example"]:
    """Names as numbers, equal where the names are, in order of first occurrence."""
    number: dict[Hashable, int] = {}
    return torch.tensor([number.setdefault(name, len(number)) for name in names], dtype=torch.long)


def family_folds(families: Int[Tensor, " example"], n_folds: int) -> Int[np.ndarray, " example"]:
    """The fold of each example: families stay whole, and folds are about equally large.

    The largest family goes to the smallest fold first, as in scikit-learn's `GroupKFold`. There
    are as many folds as families where there are fewer families than `n_folds`.
    """
    sizes = np.bincount(families.numpy())
    n = min(n_folds, int(np.count_nonzero(sizes)))
    fold_of, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(n)
    for family in map(int, np.argsort(-sizes, kind="stable")):
        smallest = int(np.argmin(filled))
        fold_of[family] = smallest
        filled[smallest] += sizes[family]
    return np.asarray(fold_of[families.numpy()])
