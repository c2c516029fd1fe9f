"""Activations in which the truth is known, because it was planted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from persona_probe.activations.activation_set import ActivationSet


@dataclass
class Planted:
    """Pairs "hero" and "neutral", and the unit vectors [site d_model] along which they differ."""

    activations: "ActivationSet"
    truth: "Tensor"


def plant(
    seed: int = 0,
    *,
    families: int = 16,
    per_family: int = 8,
    d_model: int = 32,
    sites: tuple[int, ...] = (0, 1, 2),
    gap: float = 3.0,
    spread: float = 2.0,
    prefix: str = "family",
    truth_seed: int = 1234,
    texts: bool = False,
) -> Planted:
    """Pairs that share a prompt vector (sd `spread`) and a family vector, plus noise of sd 1.

    The classes lie `gap` noise deviations apart along the truth; per-pair strengths vary by 20 %.
    A gap of 0 makes null data: labels without meaning.
    """
    import torch

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(truth_seed).normal(size=(len(sites), d_model))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    n = families * per_family
    shape = (n, len(sites), d_model)
    family_part = np.repeat(rng.normal(size=(families, len(sites), d_model)), per_family, axis=0)
    prompt = 5.0 + spread * rng.normal(size=shape) + family_part
    strength = gap * (1 + 0.2 * rng.normal(size=(n, 1, 1)))
    half = strength / 2 * truth[None]
    values = np.concatenate([prompt + half, prompt - half]) + rng.normal(size=(2 * n, *shape[1:]))
    ids = tuple(f"{prefix}-{i}" for i in range(n)) * 2
    names = tuple(f"{prefix}-{i // per_family}" for i in range(n)) * 2
    activations = ActivationSet.of(
        values=torch.from_numpy(values).float(),
        sites=tuple(Site(layer) for layer in sites),
        position="last_prompt_token",
        ids=ids,
        labels=("hero",) * n + ("neutral",) * n,
        families=names,
        provenance=Provenance(model="planted", model_hash="0123456789abcdef"),
        texts=tuple(f"word{i % 7} prompt {i % n}" for i in range(2 * n)) if texts else None,
    )
    return Planted(activations, torch.from_numpy(truth).float())


@pytest.fixture
def planted() -> Callable[..., Planted]:
    return plant
