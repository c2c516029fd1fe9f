"""Many logistic regressions at once: every site and every resample, in a few matrix products.

Resampled directions need thousands of fits that share their features. All of them take each step
of L-BFGS (Liu & Nocedal 1989) together, so that a step is one batched matrix product and not a
python call per fit. The objective is that of scikit-learn's `LogisticRegression`, on features
standardised with the weights of the fit.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

MEMORY = 10  # past steps kept, as in scipy
ARMIJO = 1e-4  # share of the promised decrease that a step must deliver
HALVINGS = 30  # of a step that does not

Theta = Float[Tensor, "site draw parameter"]  # standardised weights, then the intercept


@dataclass(frozen=True)
class _Problem:
    """Mean weighted log loss + ridge / 2 ||w||^2 over standardised features."""

    x: Float[Tensor, "site example d_model"]
    y: Float[Tensor, "draw example"]
    share: Float[Tensor, "draw example"]
    mean: Float[Tensor, "site draw d_model"]
    scale: Float[Tensor, "site draw d_model"]
    ridge: Float[Tensor, " draw"]

    def value_and_gradient(self, theta: Theta) -> tuple[Float[Tensor, "site draw"], Theta]:
        w, intercept = theta[..., :-1], theta[..., -1:]
        raw = w / self.scale
        score = raw @ self.x.transpose(1, 2) + intercept - (raw * self.mean).sum(-1, keepdim=True)
        loss = (self.share * (softplus(score) - self.y * score)).sum(-1)
        residual = self.share * (torch.sigmoid(score) - self.y)
        total = residual.sum(-1, keepdim=True)
        slope = (residual @ self.x - total * self.mean) / self.scale + self.ridge[:, None] * w
        return loss + self.ridge / 2 * (w * w).sum(-1), torch.cat([slope, total], dim=-1)


def logistic_weights(
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    c: float,
    max_iter: int,
    tolerance: float,
) -> tuple[Float[Tensor, "draw site d_model"], Bool[Tensor, "draw site"]]:
    """Logistic regression weights in units of `x`, and which fits have converged.

    Args:
        x: features, float64.
        labels: classes of each draw.
        weights: how often each example counts in each draw.
        c: inverse strength of the L2 penalty, as in scikit-learn.
        max_iter: limit of the steps.
        tolerance: largest entry of the gradient of the mean loss at which a fit is done.
    """
    x = x - x.mean(dim=1, keepdim=True)
    total = weights.sum(dim=1)
    share = weights.double() / total[:, None]
    mean = share @ x
    scale = (share @ x**2 - mean**2).clamp_min(0).sqrt()
    scale[scale < 1e-12 * (1 + x.abs().amax(dim=1, keepdim=True))] = 1.0  # constant features
    problem = _Problem(x, labels.double(), share, mean, scale, 1 / (c * total.double()))
    theta, gradient = _minimise(problem, max_iter, tolerance)
    converged = gradient.abs().amax(dim=-1) <= tolerance
    return (theta[..., :-1] / scale).transpose(0, 1), converged.T


def _minimise(problem: _Problem, max_iter: int, tolerance: float) -> tuple[Theta, Theta]:
    sites, draws, width = problem.mean.shape
    theta = problem.x.new_zeros(sites, draws, width + 1)
    value, gradient = problem.value_and_gradient(theta)
    history: list[tuple[Theta, Theta, Float[Tensor, "site draw 1"]]] = []
    for _ in range(max_iter):
        active = gradient.abs().amax(dim=-1, keepdim=True) > tolerance
        if not active.any():
            break
        step = -_times_inverse_hessian(gradient, history) * active
        new, new_value, new_gradient = _line_search(problem, theta, value, gradient, step)
        moved, bent = new - theta, new_gradient - gradient
        curvature = (moved * bent).sum(dim=-1, keepdim=True)
        inverse = torch.where(curvature > 1e-300, 1 / curvature, 0.0)  # 0 where nothing moved
        history = [*history[1 - MEMORY :], (moved, bent, inverse)]
        theta, value, gradient = new, new_value, new_gradient
    return theta, gradient


def _times_inverse_hessian(
    gradient: Theta, history: list[tuple[Theta, Theta, Float[Tensor, "site draw 1"]]]
) -> Theta:
    """The two-loop recursion of L-BFGS, for all fits together."""
    q: Tensor = gradient
    if not history:
        length: Tensor = q.norm(dim=-1, keepdim=True)
        return q / length.clamp_min(1.0)
    alphas: list[Tensor] = []
    for moved, bent, inverse in reversed(history):
        alphas.append(inverse * (moved * q).sum(dim=-1, keepdim=True))
        q = q - alphas[-1] * bent
    moved, bent, inverse = history[-1]
    size = 1 / (inverse * (bent * bent).sum(dim=-1, keepdim=True))
    q = q * torch.where(inverse > 0, size, 1.0)
    for (moved, bent, inverse), alpha in zip(history, reversed(alphas), strict=True):
        q = q + moved * (alpha - inverse * (bent * q).sum(dim=-1, keepdim=True))
    return q


def _line_search(
    problem: _Problem,
    theta: Theta,
    value: Float[Tensor, "site draw"],
    gradient: Theta,
    step: Theta,
) -> tuple[Theta, Float[Tensor, "site draw"], Theta]:
    """Halve the steps of those fits whose loss has not fallen enough; the loss is convex."""
    promised = (gradient * step).sum(dim=-1)
    # Close to the optimum the promise is smaller than the rounding of the loss.
    slack = 1e-15 * value.abs()
    for _ in range(HALVINGS):
        new_value, new_gradient = problem.value_and_gradient(theta + step)
        short = new_value > value + ARMIJO * promised + slack
        if not short.any():
            break
        step = torch.where(short[..., None], step / 2, step)
        promised = torch.where(short, promised / 2, promised)
    return theta + step, new_value, new_gradient
