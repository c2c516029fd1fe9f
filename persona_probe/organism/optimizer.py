"""Muon for weight matrices and AdamW for the rest, with states that are plain named tensors.

`torch.optim.Muon` orthogonalises in bfloat16, which is slower than float32 on most CPUs; and a
state of named tensors goes into safetensors, so that a killed run resumes without unpickling.
"""

import math

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients of Jordan et al. 2024, kellerjordan.github.io/posts/muon."""


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values towards 1 by a Newton-Schulz iteration in float32."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result


class MuonAdamW:
    """One optimiser over all parameters of a causal language model.

    Matrices inside the blocks get Muon; embeddings, the head and norms get AdamW.
    """

    def __init__(self, model: nn.Module, muon_lr: float, adam_lr: float) -> None:
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        named = dict(model.named_parameters())
        self.matrices = {n: p for n, p in named.items() if p.ndim == 2 and ".layers." in n}
        self.others = {n: p for n, p in named.items() if n not in self.matrices}
        self.state: dict[str, Tensor] = {
            f"momentum.{n}": torch.zeros_like(p) for n, p in self.matrices.items()
        }
        for n, p in self.others.items():
            self.state[f"first.{n}"] = torch.zeros_like(p)
            self.state[f"second.{n}"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, number: int, scale: float) -> None:
        """Update from the gradients in place; `scale` multiplies both learning rates."""
        for name, parameter in self.matrices.items():
            assert parameter.grad is not None
            momentum = self.state[f"momentum.{name}"].lerp_(parameter.grad, 0.05)
            update = orthogonalise(parameter.grad.lerp(momentum, 0.95))
            shape_factor = math.sqrt(max(1.0, parameter.shape[0] / parameter.shape[1]))
            parameter.mul_(1 - 0.01 * self.muon_lr * scale)
            parameter.sub_(update, alpha=self.muon_lr * scale * shape_factor)
        for name, parameter in self.others.items():
            assert parameter.grad is not None
            first = self.state[f"first.{name}"].lerp_(parameter.grad, 0.1)
            second = self.state[f"second.{name}"].lerp_(parameter.grad.square(), 0.05)
            corrected = (second / (1 - 0.95 ** (number + 1))).sqrt_().add_(1e-8)
            rate = self.adam_lr * scale / (1 - 0.9 ** (number + 1))
            parameter.addcdiv_(first, corrected, value=-rate)
        for parameter in (*self.matrices.values(), *self.others.values()):
            parameter.grad = None
