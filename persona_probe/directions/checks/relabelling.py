"""Balanced relabelling: labels that hold none of the mean effect, by construction.

A control direction found on shuffled labels must not contain the true one by accident. If each of n
pairs has its labels exchanged by a coin toss, the surplus of unexchanged pairs is of order sqrt(n),
and once normalised the "random" direction keeps a cosine of 0.2 to 0.7 to the true one. So exactly
half of the pairs (or half of each class, when nothing is paired) is exchanged.

What is left is how the effect differs between the halves. Where it differs along the true direction
itself, as when some prompts move a model further than others do, that direction comes back with
either sign: in the embedded organism with a mean |cosine| of 0.1 to 0.4, against 0.07 by chance.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pair_index(
    ids: Sequence[str], y: Bool[Tensor, " example"]
) -> Int[np.ndarray, " example"] | None:
    """The number of the pair that each example belongs to, or None when they are not in pairs.

    Examples are paired when each id occurs equally often in both classes; the k-th occurrences
    belong together.
    """
    seen: dict[tuple[str, bool], int] = {}
    keys = []
    for name, positive in zip(ids, y.tolist(), strict=True):
        occurrence = seen[name, positive] = seen.get((name, positive), 0) + 1
        keys.append(f"{occurrence} {name}")
    _, index, counts = np.unique(keys, return_inverse=True, return_counts=True)
    in_positive = np.bincount(index, weights=y.numpy(), minlength=len(counts))
    return index if (counts == 2).all() and (in_positive == 1).all() else None


def exchange_units(
    ids: Sequence[str], y: Bool[Tensor, " example"]
) -> tuple[Int[np.ndarray, " example"], Int[np.ndarray, " unit"]]:
    """What is relabelled as one: the pair, or the single example, and the group to balance within.

    Returns:
        The unit of each example, and the group of each unit: all pairs form one group; unpaired
        examples are balanced within their true class.
    """
    pairs = pair_index(ids, y)
    unit = np.arange(len(y)) if pairs is None else pairs
    return unit, class_group(unit, y)


def class_group(
    unit: Int[np.ndarray, " example"], y: Bool[Tensor, " example"]
) -> Int[np.ndarray, " unit"]:
    """Of each unit (example, pair, family): 1 or -1 where one class prevails, 0 where none does.

    Units of one group may trade places; those of different groups would unbalance the classes.
    """
    surplus = np.bincount(unit, weights=np.where(y.numpy(), 1, -1))
    return np.sign(surplus).astype(np.int64)


def random_halves(
    group: Int[np.ndarray, " unit"], draws: int, rng: np.random.Generator
) -> Bool[np.ndarray, "draw unit"]:
    """True for a random half of the units of every group."""
    order = np.argsort(group + rng.random((draws, len(group))), axis=1)
    alternate = np.broadcast_to(np.arange(len(group)) % 2 == 0, order.shape)
    halves = np.empty(order.shape, dtype=bool)
    np.put_along_axis(halves, order, alternate, axis=1)
    return halves


def balanced_relabellings(
    y: Bool[Tensor, " example"],
    unit: Int[np.ndarray, " example"],
    group: Int[np.ndarray, " unit"],
    draws: int,
    rng: np.random.Generator,
) -> tuple[Bool[Tensor, "draw example"], Float[Tensor, "draw example"]]:
    """Exchange the labels of exactly half of the units within every group.

    Returns:
        Labels, and weights that are 0 for the one unit per group of odd size that is left out.
    """
    signs = np.empty((draws, len(group)), dtype=np.int64)
    for value in np.unique(group):
        members = np.flatnonzero(group == value)
        half = len(members) // 2
        fixed = np.repeat([1, -1, 0], [half, half, len(members) % 2])
        signs[:, members] = rng.permuted(np.tile(fixed, (draws, 1)), axis=1)
    sign = torch.from_numpy(signs[:, unit])
    return torch.where(sign > 0, y, ~y), sign.abs().double()
