"""How few bits do the labels take, for somebody who has the activations and this finder?

The online code of Voita & Titov 2020 (arXiv:2003.12298): labels are sent block by block, each
coded with what was learnt from the blocks before. A direction that is there and easy to find makes
the code short; one that a finder can only memorise does not, because every label is sent before it
is learnt from. With blocks that double what has been sent,

    L = t log2 K - sum over later blocks of log2 p(labels of the block | x, earlier blocks)
    compression = n log2 K / L

which is 1 for labels that cannot be predicted. Here K is 2; p is a logistic curve of the position
along the direction found on all earlier blocks. The curve is fitted to the earlier labels as they
were seen when it was their turn, so that it never sees one that a direction was found on. The first
two blocks (t labels), and those before which a class is missing, cost one bit each.
Blocks are made of whole prompt families.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from persona_probe.directions.checks.labelled import Labelled
from persona_probe.directions.checks.relabelling import balanced_relabellings
from persona_probe.directions.checks.reliability import fits, has_both_classes
from persona_probe.directions.classes import class_means
from persona_probe.directions.finder import Finder
from persona_probe.statistics import Estimate

ORDERS = 8  # random orders of the families
PRIOR = 1.0  # ridge on slope and offset of the curve, in units of its scores' deviation
NEWTON_STEPS = 12
LARGEST_STEP = 3.0


@dataclass(frozen=True)
class OnlineCode:
    """Length of the online code of the labels.

    Attributes:
        compression: n over the bits of the code: mean and middle 95 % of random orders.
        control: the same for balanced shuffles of the labels; about 1, or below.
        bits: mean length of the code.
        n: labels sent; at one bit each, this is the length without any model.
        n_blocks: of whole families.
    """

    compression: Estimate
    control: Estimate
    bits: float
    n: int
    n_blocks: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "compression": self.compression.to_json(),
            "control": self.control.to_json(),
            "bits": self.bits,
            "n": self.n,
            "n_blocks": self.n_blocks,
        }


def online_codes(
    data: Labelled, finder: Finder, orders: int = ORDERS, seed: int = 0
) -> list[OnlineCode]:
    """The code of the labels at every site.

    Args:
        data: what the directions were found on.
        finder: the one they were found with.
        orders: random orders of the families, for the labels and for their shuffles.
        seed: of the orders and shuffles.
    """
    rng = np.random.default_rng(seed)
    block, n_blocks = _blocks(data.resampled(), 2 * orders, rng)
    shuffled, weights = balanced_relabellings(data.y, *data.exchangeable(), orders, rng)
    labels = torch.cat([data.y.expand(orders, -1), shuffled])
    sent = torch.cat([torch.ones(orders, len(data.y), dtype=torch.float64), weights])
    bits = _bits(data, finder, labels, sent, torch.from_numpy(block), n_blocks)
    compression = (sent.sum(dim=1, keepdim=True) / bits).numpy()
    return [
        OnlineCode(
            compression=Estimate.of_draws(compression[:orders, i]),
            control=Estimate.of_draws(compression[orders:, i]),
            bits=float(bits[:orders, i].mean()),
            n=len(data.y),
            n_blocks=n_blocks,
        )
        for i in range(len(data.x))
    ]


def _blocks(
    unit: Int[np.ndarray, " example"], draws: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "draw example"], int]:
    """The block of each example in random orders of the units; blocks double what has been sent."""
    n_units = int(unit.max()) + 1
    ends = sorted({int(np.ceil(n_units / 2**k)) for k in range(8)})
    of_rank = np.searchsorted(ends, np.arange(n_units), side="right")
    ranks = np.argsort(rng.random((draws, n_units)), axis=1)
    return of_rank[ranks][:, unit], len(ends)


def _bits(
    data: Labelled,
    finder: Finder,
    labels: Bool[Tensor, "draw example"],
    sent: Float[Tensor, "draw example"],
    block: Int[Tensor, "draw example"],
    n_blocks: int,
) -> Float[Tensor, "draw site"]:
    """Bits of the whole code."""
    bits = torch.zeros(len(labels), len(data.x), dtype=torch.float64)
    foreseen = torch.full((len(labels), *data.x.shape[:2]), np.nan, dtype=torch.float64)
    for b in range(n_blocks):
        here = sent * (block == b)
        cost = here.sum(dim=1, keepdim=True).expand_as(bits)
        if b > 0:
            scores = _scores(data, finder, labels, sent * (block < b))
            curve = _curve(foreseen, labels, sent * ((block > 0) & (block < b)))
            coded = _cost(scores, curve, labels, here)
            cost = torch.where(torch.isfinite(coded), coded, cost)
            foreseen = torch.where((block == b)[:, None], scores, foreseen)
        bits = bits + cost
    return bits


def _scores(
    data: Labelled,
    finder: Finder,
    labels: Bool[Tensor, "draw example"],
    seen: Float[Tensor, "draw example"],
) -> Float[Tensor, "draw site example"]:
    """Position of every example along the direction of those seen, from their midpoint.

    NaN where only one class has been seen.
    """
    scores = torch.full((len(labels), *data.x.shape[:2]), np.nan, dtype=torch.float64)
    usable = has_both_classes(labels, seen)
    if not usable.any():
        return scores
    labels, seen = labels[usable], seen[usable]
    units = torch.cat(list(fits(finder, data.x, labels, seen, data.design)))
    along = torch.einsum("gsd,sed->gse", units, data.x)
    positive, negative = class_means(along, labels, seen)
    scores[usable] = along - ((positive + negative) / 2)[..., None]
    return scores


def _curve(
    scores: Float[Tensor, "draw site example"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
) -> Float[Tensor, "draw site 2"]:
    """Slope and offset of a ridge logistic regression on one score, by Newton's method.

    NaN where no score with a weight is a number.
    """
    # Few examples count, others in every draw: gather these.
    most = int((weights > 0).sum(dim=1).max())
    rows = torch.argsort(weights, dim=1, descending=True)[:, :most]
    w, y = weights.gather(1, rows)[:, None], labels.gather(1, rows)[:, None].double()
    scores = scores.gather(2, rows[:, None].expand(-1, scores.shape[1], -1))
    w = w * torch.isfinite(scores)
    scores = torch.nan_to_num(scores)
    scale = ((scores.square() * w).sum(dim=-1) / w.sum(dim=-1)).sqrt()
    defined = torch.isfinite(scale) & (scale > 0)
    z = torch.where(defined[..., None], scores / scale[..., None], 0.0)
    slope = torch.zeros(scores.shape[:2], dtype=torch.float64)
    offset = torch.zeros_like(slope)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(slope[..., None] * z + offset[..., None])
        off, bend = w * (p - y), w * p * (1 - p)
        to_slope, to_offset = (off * z).sum(-1) + PRIOR * slope, off.sum(-1) + PRIOR * offset
        ss, so, oo = (bend * z * z).sum(-1) + PRIOR, (bend * z).sum(-1), bend.sum(-1) + PRIOR
        determinant = ss * oo - so * so
        up = (oo * to_slope - so * to_offset) / determinant
        sideways = (ss * to_offset - so * to_slope) / determinant
        slope = slope - up.clamp(-LARGEST_STEP, LARGEST_STEP)
        offset = offset - sideways.clamp(-LARGEST_STEP, LARGEST_STEP)
    curve = torch.stack([slope / scale, offset], dim=-1)
    return torch.where(defined[..., None], curve, np.nan)


def _cost(
    scores: Float[Tensor, "draw site example"],
    curve: Float[Tensor, "draw site 2"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
) -> Float[Tensor, "draw site"]:
    """Bits of some labels: -log2 of the probability of each."""
    logit = curve[..., :1] * scores + curve[..., 1:]
    nats = softplus(torch.where(labels[:, None], -logit, logit))
    bits: Tensor = (nats * weights[:, None]).sum(dim=-1) / np.log(2)
    return bits
