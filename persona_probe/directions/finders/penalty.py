"""How strongly a probe is penalised, chosen on prompt families that it was not fitted to."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from persona_probe.directions.design import family_folds
from persona_probe.directions.finders.logistic import logistic_fits
from persona_probe.errors import DegenerateClassesError

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths; equal losses go to the stronger penalty
FOLDS = 5
CHUNK = 8  # draws at once: each is FOLDS fits


def chosen_penalty(
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    families: Int[Tensor, " example"],
    max_iter: int,
    tolerance: float,
) -> Float[Tensor, "draw site"]:
    """The inverse strength in `GRID` with the least log loss on left-out families.

    The log loss, unlike the accuracy, says which of two probes without an error is better. Every
    draw chooses for itself, so that a resampled direction varies as much as a newly found one
    would. Folds are of whole families; with fewer families than `FOLDS` each is left out once. A
    fold without both classes in the families it fits to is skipped.

    Args:
        x: activations of every site.
        labels: classes of each draw.
        weights: how often each example counts in each draw.
        families: number of each example's family.
        max_iter: limit of the solver's iterations.
        tolerance: largest entry of the gradient at which it stops.

    Raises:
        DegenerateClassesError: a draw has no such fold, for example with a single family.
    """
    losses = [
        _losses(x, labels[i : i + CHUNK], weights[i : i + CHUNK], families, max_iter, tolerance)
        for i in range(0, len(labels), CHUNK)
    ]
    grid = torch.tensor(GRID, dtype=torch.float64)
    return grid[torch.cat(losses, dim=1).argmin(dim=0)]


def _losses(
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    families: Int[Tensor, " example"],
    max_iter: int,
    tolerance: float,
) -> Float[Tensor, "penalty draw site"]:
    """Mean log loss over left-out examples."""
    fold = torch.from_numpy(family_folds(families, FOLDS))
    left_out = fold == torch.arange(int(fold.max()) + 1)[:, None]
    fitted = weights[:, None] * ~left_out
    tested = weights[:, None] * left_out
    both = [(fitted * of[:, None]).sum(dim=2) > 0 for of in (labels, ~labels)]
    draw, of_fold = torch.nonzero(both[0] & both[1] & (tested.sum(dim=2) > 0), as_tuple=True)
    if len(set(draw.tolist())) < len(labels):
        raise DegenerateClassesError(
            "choosing the probe's penalty needs two prompt families or more, with both classes "
            "when any one of them is left out; set c"
        )
    y, counts = labels[draw], tested[draw, of_fold].double()
    found = []
    for strength in GRID:
        c = torch.full((len(draw), len(x)), strength, dtype=torch.float64)
        fits = logistic_fits(x, y, fitted[draw, of_fold], c, max_iter, tolerance)
        score = torch.einsum("gsd,sed->gse", fits.weights, x.double())
        score += fits.intercept[..., None]
        loss = softplus(torch.where(y[:, None], -score, score))
        sums = torch.einsum("gse,ge->gs", loss, counts)
        total = torch.zeros(len(labels), len(x), dtype=torch.float64)
        found.append(total.index_add_(0, draw, sums))
    n = torch.zeros(len(labels), dtype=torch.float64).index_add_(0, draw, counts.sum(dim=1))
    return torch.stack(found) / n[:, None]
