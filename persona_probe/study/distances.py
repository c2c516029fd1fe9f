"""How far categories of harm are from those that were trained on, as the model reads them."""

from collections.abc import Mapping

import torch

from persona_probe.activations.activation_set import ActivationSet
from persona_probe.models.site import Site
from persona_probe.personas.safety_suite import SafetyPrompt


def category_distances(
    before: ActivationSet, prompts: Mapping[str, SafetyPrompt], site: Site
) -> dict[str, float]:
    """Untrained category → distance of its mean activation from that of the trained categories.

    In standard deviations of requests within their categories, before finetuning; empty when there
    are no requests of trained categories.

    Args:
        before: activations of the model before finetuning on harmful requests and others.
        prompts: id of a request → the request.
        site: where.
    """
    asked = [prompts[name] for name in before.ids]
    x = before.site(site).double()
    harmful = torch.tensor([p.kind == "harmful" for p in asked])
    trained = harmful & torch.tensor([p.tier == "T0" for p in asked])
    if not trained.any():
        return {}
    names = dict.fromkeys(p.category for p in asked if p.kind == "harmful" and p.tier != "T0")
    inside = {name: harmful & torch.tensor([p.category == name for p in asked]) for name in names}
    rest = [x[kept] - x[kept].mean(dim=0) for kept in (trained, *inside.values())]
    scale = float(torch.cat(rest).square().sum(dim=1).mean().sqrt())
    centre = x[trained].mean(dim=0)
    return {
        name: float((x[kept].mean(dim=0) - centre).norm()) / scale
        for name, kept in inside.items()
        if scale > 0
    }
