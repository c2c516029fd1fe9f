"""Many logistic regressions at once: every site and every draw, in a few matrix products.

Folds, resamples and personas need thousands of fits that share their features. All of them take
each step of L-BFGS (Liu & Nocedal 1989) together, so that a step is two batched matrix products
and not a python call per fit. Where there are more examples than features, the steps begin from
the inverse of the features' covariance, which is computed once per site and serves every draw:
about half the steps. Most of the way is gone in float32; float64 goes the rest, and decides what
has converged. The objective is that of scikit-learn's `LogisticRegression`, on features
standardised with the weights of the fit.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

MEMORY = 4  # past steps kept; scipy keeps 10, which saves no step once there is a metric
ARMIJO = 1e-4  # share of the promised decrease that a step must deliver
HALVINGS = 30  # of a step that does not
CURVATURE = 0.1  # guess of the mean of p (1 - p), which is 0.25 at most
SINGLE = 2e-6  # largest gradient that float32 is trusted with
BATCH = 2**20  # numbers of x at once: beyond that a site alone fills a processor's matrix product

Theta = Float[Tensor, "site draw parameter"]  # standardised weights, then the intercept


@dataclass(frozen=True)
class Fits:
    """Solutions in units of x: the score of an example is x · weights + intercept."""

    weights: Float[Tensor, "draw site d_model"]
    intercept: Float[Tensor, "draw site"]
    converged: Bool[Tensor, "draw site"]


@dataclass(frozen=True)
class _Problem:
    """Mean weighted log loss + ridge / 2 ||w||^2 over standardised features.

    `signs` is -1 for the positive class, so that a loss is log(1 + exp(signs * score)).
    """

    x: Float[Tensor, "site example d_model"]
    signs: Float[Tensor, "draw example"]
    share: Float[Tensor, "draw example"]
    mean: Float[Tensor, "site draw d_model"]
    scale: Float[Tensor, "site draw d_model"]
    ridge: Float[Tensor, "site draw"]
    metric: Float[Tensor, "site d_model d_model"] | None

    def of_draws(self, draws: Int[Tensor, " draw"]) -> "_Problem":
        """Only some of the draws."""
        if len(draws) == len(self.share):
            return self
        return replace(
            self,
            signs=self.signs[draws],
            share=self.share[draws],
            mean=self.mean[:, draws],
            scale=self.scale[:, draws],
            ridge=self.ridge[:, draws],
        )

    def value_and_gradient(self, theta: Theta) -> tuple[Float[Tensor, "site draw"], Theta]:
        w, intercept = theta[..., :-1], theta[..., -1:]
        raw = w / self.scale
        minus = raw @ self.x.transpose(1, 2)  # the margin, with the sign of a loss
        minus += intercept - (raw * self.mean).sum(-1, keepdim=True)
        minus *= self.signs
        # Beyond 40 the loss is the margin itself, to the last digit of float64.
        loss = softplus(minus, threshold=40).mul_(self.share).sum(-1)
        value = loss + self.ridge / 2 * (w * w).sum(-1)
        residual = minus.sigmoid_().mul_(self.share).mul_(self.signs)
        total = residual.sum(-1, keepdim=True)
        slope = (residual @ self.x - total * self.mean) / self.scale + self.ridge[..., None] * w
        return value, torch.cat([slope, total], dim=-1)

    def times_metric(self, gradient: Theta) -> Theta:
        """A guess of the inverse Hessian, times a gradient."""
        if self.metric is None:
            return gradient
        return torch.cat([gradient[..., :-1] @ self.metric, gradient[..., -1:] / CURVATURE], -1)

    def to(self, dtype: torch.dtype) -> "_Problem":
        fields = {name: value.to(dtype) for name, value in vars(self).items() if value is not None}
        return replace(self, **fields)


def logistic_fits(
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    c: Float[Tensor, "draw site"],
    max_iter: int,
    tolerance: float,
) -> Fits:
    """Logistic regressions at every site for every draw, and which of them have converged.

    Args:
        x: features.
        labels: classes of each draw.
        weights: how often each example counts in each draw.
        c: inverse strength of the L2 penalty, as in scikit-learn.
        max_iter: limit of the steps.
        tolerance: largest entry of the gradient of the mean loss at which a fit is done.
    """
    per_site = max(1, x.shape[1] * x.shape[2])
    n = max(1, BATCH // per_site)
    parts = [
        _fits(x[i : i + n].double(), labels, weights.double(), c[:, i : i + n], max_iter, tolerance)
        for i in range(0, len(x), n)
    ]
    return Fits(
        torch.cat([part.weights for part in parts], dim=1),
        torch.cat([part.intercept for part in parts], dim=1),
        torch.cat([part.converged for part in parts], dim=1),
    )


def _fits(
    x: Float[Tensor, "site example d_model"],
    labels: Bool[Tensor, "draw example"],
    weights: Float[Tensor, "draw example"],
    c: Float[Tensor, "draw site"],
    max_iter: int,
    tolerance: float,
) -> Fits:
    # In units of the whole set's deviation every draw's own scale is near 1, and float32 is enough.
    centre = x.mean(dim=1, keepdim=True)
    x = x - centre
    total = weights.sum(dim=1, keepdim=True)
    share = weights / total
    everyone = torch.full_like(share[:1], 1 / x.shape[1])
    squares = torch.cat([share, everyone]) @ x.square()
    unit = squares[:, -1:].sqrt()
    constant = unit <= 1e-12 * (1 + centre.abs())
    unit = torch.where(constant, 1.0, unit)
    per_unit = torch.where(constant, 0.0, 1 / unit)
    x *= per_unit
    mean = share @ x
    scale = (squares[:, :-1] * per_unit.square() - mean.square()).clamp_min(0).sqrt()
    scale = torch.where(scale < 1e-12, 1.0, scale)  # constant within the draw
    ridge = (1 / (c * total)).T
    signs = torch.where(labels, -1.0, 1.0).double()
    problem = _Problem(x, signs, share, mean, scale, ridge, None)
    single = problem.to(torch.float32)
    single = replace(single, metric=_metric(single))
    theta = torch.zeros(*mean.shape[:2], x.shape[2] + 1, dtype=torch.float32)
    theta, _ = _minimise(single, theta, max_iter, max(0.8 * tolerance, SINGLE))
    problem = replace(problem, metric=None if single.metric is None else single.metric.double())
    theta, gradient = _minimise(problem, theta.double(), max_iter, tolerance)
    raw = theta[..., :-1] / scale
    intercept = theta[..., -1] - (raw * mean).sum(-1)
    raw = raw / unit
    return Fits(
        raw.transpose(0, 1),
        (intercept - (raw @ centre.transpose(1, 2))[..., 0]).T,
        (gradient.abs().amax(dim=-1) <= tolerance).T,
    )


def _metric(problem: _Problem) -> Float[Tensor, "site d_model d_model"] | None:
    """Inverse of the Hessian that all draws would have together, were every p (1 - p) the same.

    None where there are fewer examples than features: most of the Hessian is then the penalty, and
    its inverse costs more steps than it saves. It need not be exact, so float32 will do.
    """
    n, width = problem.x.shape[1:]
    if n < width:
        return None
    share = problem.share.mean(dim=0).sqrt()[:, None]
    scaled = problem.x * share / problem.scale.mean(dim=1, keepdim=True)
    hessian = (scaled.transpose(1, 2) @ scaled).mul_(CURVATURE)
    ridge = problem.ridge.mean(dim=1, keepdim=True)
    hessian.diagonal(dim1=1, dim2=2).add_(ridge + 1e-5)
    factor, failed = torch.linalg.cholesky_ex(hessian)
    return None if failed.any() else torch.cholesky_inverse(factor)


def _minimise(
    problem: _Problem, theta: Theta, max_iter: int, tolerance: float
) -> tuple[Theta, Theta]:
    value, gradient = problem.value_and_gradient(theta)
    image = problem.times_metric(gradient)
    history: list[_Step] = []
    for _ in range(max_iter):
        active = gradient.abs().amax(dim=-1, keepdim=True) > tolerance
        if not active.any():
            break
        if history:
            step = -_times_inverse_hessian(gradient, image, history) * active
        else:
            longest = 1.0 if problem.metric is None else torch.inf
            step = -image * active / (image.norm(dim=-1, keepdim=True) / longest).clamp_min(1.0)
        new, new_value, new_gradient = _line_search(problem, theta, value, gradient, step)
        if not torch.isfinite(new_value).all() or torch.equal(new, theta):
            break
        new_image = problem.times_metric(new_gradient)
        last = _Step.of(new - theta, new_gradient - gradient, new_image - image)
        history = [*history[1 - MEMORY :], last]
        theta, value, gradient, image = new, new_value, new_gradient, new_image
    return theta, gradient


@dataclass(frozen=True)
class _Step:
    """By how much the parameters, the gradient and the metric times the gradient changed."""

    moved: Theta
    bent: Theta
    image: Theta
    inverse: Float[Tensor, "site draw 1"]  # of the curvature moved · bent; 0 where nothing moved

    @classmethod
    def of(cls, moved: Theta, bent: Theta, image: Theta) -> "_Step":
        curvature = (moved * bent).sum(dim=-1, keepdim=True)
        smallest = 1e-300 if moved.dtype == torch.float64 else 1e-35
        return cls(moved, bent, image, torch.where(curvature > smallest, 1 / curvature, 0.0))


def _times_inverse_hessian(gradient: Theta, image: Theta, history: list[_Step]) -> Theta:
    """The two-loop recursion of L-BFGS, for all fits together.

    The metric is linear: what it makes of the vector in the middle is put together from what it
    made of the gradients.
    """
    q, metric_times_q = gradient, image
    alphas: list[Tensor] = []
    for past in reversed(history):
        alphas.append(past.inverse * (past.moved * q).sum(dim=-1, keepdim=True))
        q = q - alphas[-1] * past.bent
        metric_times_q = metric_times_q - alphas[-1] * past.image
    last = history[-1]
    size = 1 / (last.inverse * (last.bent * last.image).sum(dim=-1, keepdim=True))
    q = metric_times_q * torch.where(last.inverse > 0, size, 1.0)
    for past, alpha in zip(history, reversed(alphas), strict=True):
        q = q + past.moved * (alpha - past.inverse * (past.bent * q).sum(dim=-1, keepdim=True))
    return q


def _line_search(
    problem: _Problem,
    theta: Theta,
    value: Float[Tensor, "site draw"],
    gradient: Theta,
    step: Theta,
) -> tuple[Theta, Float[Tensor, "site draw"], Theta]:
    """Halve the steps of those fits whose loss has not fallen enough; the loss is convex.

    Only draws that move are evaluated: fits end after different numbers of steps.
    """
    promised = (gradient * step).sum(dim=-1)
    # Close to the optimum the promise is smaller than the rounding of the loss.
    slack = (1e-15 if theta.dtype == torch.float64 else 1e-6) * value.abs()
    new_value, new_gradient = value.clone(), gradient.clone()
    moving = step.abs().amax(dim=-1) > 0
    for _ in range(HALVINGS):
        draws = torch.nonzero(moving.any(dim=0))[:, 0]
        tried = problem.of_draws(draws).value_and_gradient((theta + step)[:, draws])
        new_value[:, draws], new_gradient[:, draws] = tried
        moving = new_value > value + ARMIJO * promised + slack
        if not moving.any():
            break
        step = torch.where(moving[..., None], step / 2, step)
        promised = torch.where(moving, promised / 2, promised)
    return theta + step, new_value, new_gradient
