"""A language model's own representation of requests, for comparing them by meaning."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from persona_probe.activations.capture import capture
from persona_probe.activations.contrast import under
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.tier_audit import Embedding


def prompt_embedding(model: ResidualModel) -> tuple[Embedding, str]:
    """Mean residual over a request's tokens at the middle block, centred over all texts.

    Returns:
        The embedding, and what it is, in words. Its cosines are not those of a sentence encoder:
        compare them with the cosines between unrelated categories, which the audit reports.
    """
    site = Site(model.n_layers // 2)

    def embed(texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        asked = [under("", text, id=str(i)) for i, text in enumerate(texts)]
        read = capture(model, asked, [site], ["prompt_mean"], description="embedding")
        values = read["prompt_mean"].site(site).numpy()
        found: np.ndarray = values - values.mean(axis=0)
        return found

    return embed, f"mean residual of {model.label} after block {site.layer}, centred"
