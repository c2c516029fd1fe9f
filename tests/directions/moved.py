"""Pairs of activation sets, before and after a finetune whose effect is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def activations(
    values: np.ndarray,
    *,
    per_family: int = 4,
    labels: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    prefix: str = "held",
    model_hash: str | None = "0123456789abcdef",
    metadata: Sequence[dict[str, Any]] | None = None,
    position: str = "last_prompt_token",
) -> Any:
    """A set in memory from an array [example, site, d_model]."""
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    n, sites = values.shape[:2]
    return ActivationSet.of(
        values=torch.from_numpy(values).float(),
        sites=tuple(map(Site, range(sites))),
        position=position,
        ids=ids or [f"{prefix}-{i}" for i in range(n)],
        labels=labels or ("",) * n,
        families=[f"{prefix}-{i // per_family}" for i in range(n)],
        provenance=Provenance(model="planted", model_hash=model_hash),
        metadata=metadata,
    )


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random unit vectors along the last axis."""
    vectors = rng.normal(size=shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def orthonormal(rng: np.random.Generator, d: int, k: int) -> np.ndarray:
    """Random orthonormal columns, [d, k]."""
    return np.asarray(np.linalg.qr(rng.normal(size=(d, k)))[0])


def direction(vector: np.ndarray, site: int = 0, persona: str = "one", **changes: Any) -> Any:
    """A direction found elsewhere, along `vector`."""
    from persona_probe.directions.direction import Direction
    from persona_probe.models.site import Site
    from persona_probe.provenance import Provenance

    fields: dict[str, Any] = {
        "unit": torch.from_numpy(vector / np.linalg.norm(vector)).float(),
        "gap": float(np.linalg.norm(vector)),
        "midpoint": 0.0,
        "site": Site(site),
        "finder": "mean_difference",
        "family": "prompt_in_H",
        "persona": persona,
        "position": "last_prompt_token",
        "norm": 1.0,
        "provenance": Provenance(model="planted", model_hash="0123456789abcdef"),
    }
    return Direction(**{**fields, **changes})


def shift_of(delta: np.ndarray, per_family: int = 4, name: str = "after") -> Any:
    """A shift [site, example, d_model] as it is."""
    from persona_probe.directions.families.shift import Shift
    from persona_probe.models.site import Site

    families = tuple(f"family-{i // per_family}" for i in range(delta.shape[1]))
    sites = tuple(map(Site, range(len(delta))))
    return Shift(name, sites, torch.from_numpy(delta).double(), families)
