"""A steering vector that needs no package: one tensor to add, and where to add it.

The strength is baked in. The file holds one float32 tensor `vector` of shape [d_model]; the
metadata key `persona_probe` holds JSON with the layer, the positions, and everything behind it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import RequestError
from persona_probe.files import write_tensors
from persona_probe.interchange.own_vector import FORMAT, KEY
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Intervention
from persona_probe.steering.schedule import schedule_named


def write_steering_vector(
    path: Path,
    intervention: Intervention,
    adapter: str | None,
    parts: Sequence[Intervention] = (),
) -> Path:
    """Write what an intervention adds.

    Args:
        path: of the safetensors file.
        intervention: an addition at one site.
        adapter: the adapter that is on when it is added; `None` for bare weights.
        parts: the additions that it is the sum of, if it is one; the header names them.

    Raises:
        RequestError: the intervention is not an addition at one site.
    """
    operation, direction = intervention.operation, intervention.direction
    fixed = intervention.condition is None and not schedule_named(intervention.when).fades
    if not isinstance(operation, Add) or len(intervention.where) != 1 or not fixed:
        raise RequestError(
            "a steering vector file holds one addition at one site, without condition or fading"
        )
    site = intervention.where[0]
    (amount,) = operation.parameters(direction, site)
    header = {
        "format": FORMAT,
        "persona": direction.persona,
        "layer": site.layer,
        "hook_point": site.hook_name,
        "positions": intervention.when,
        "adapter": adapter,
        "strength": operation.strength,
        "units": operation.units,
        "length": amount,
        "finder": direction.finder,
        "family": direction.family,
        "split_hash": direction.split_hash,
        "provenance": direction.provenance.to_json(),
    }
    if parts:
        header["parts"] = [_part(part) for part in parts]
    # The product is formed as the hook forms it, so that plain addition gives the same bits.
    vector = torch.tensor([amount], dtype=torch.float32) * direction.unit
    return write_tensors(path, {"vector": vector}, {KEY: json.dumps(header, ensure_ascii=False)})


def _part(added: Intervention) -> dict[str, Any]:
    """One of the additions that a vector is the sum of."""
    direction = added.direction
    told: dict[str, Any] = {
        "persona": direction.persona,
        "finder": direction.finder,
        "family": direction.family,
        "split_hash": direction.split_hash,
        "provenance": direction.provenance.to_json(),
    }
    if isinstance(added.operation, Add):
        told |= {"strength": added.operation.strength, "units": added.operation.units}
    return told
