"""Steer any forward pass: a context manager for one arm."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.errors import RequestError
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.steering.arm import Arm, Intervention, require_fit
from persona_probe.steering.row_edits import At, RowEdits
from persona_probe.steering.stacks import Sequences

__all__ = ["Arm", "Intervention", "steer"]


@contextmanager
def steer(
    model: ResidualModel,
    interventions: Sequence[Intervention],
    positions: Int[Tensor, "row pos"] | None = None,
    prompt_lengths: Int[Tensor, " row"] | None = None,
    at: At | None = None,
    sequences: Sequences | None = None,
) -> Iterator[None]:
    """Apply the interventions to every forward pass inside the block; afterwards none is left.

    Blocks nest: hooks of the outer one run first. Nothing is edited in place.

    Args:
        model: the model to steer.
        interventions: applied in this order.
        positions: position of each token of the forward passes in the block in its sequence,
            counted without padding, -1 at padding. Without it only the schedule "both" has a
            meaning, and acts on every position, padding included.
        prompt_lengths: number of prompt tokens per row; needed with `positions`.
        at: row and column of each of the `positions` in the forward pass, where several sequences
            are packed into one of its rows.
        sequences: token ids per row, for operations that know a text.

    Raises:
        SiteMismatchError: an intervention does not fit the model.
        RequestError: a condition, or a schedule other than "both", without `positions`; or only
            one of `positions` and `prompt_lengths`; or what an operation needs is not there.
    """
    if (positions is None) != (prompt_lengths is None):
        raise RequestError("pass positions and prompt_lengths together, or neither")
    if positions is not None and prompt_lengths is not None:
        edits = RowEdits(model, [tuple(interventions)] * len(positions), sequences)
        edits.place(positions.cpu(), prompt_lengths.cpu(), at)
        with model.hooks(edits.hooks):
            yield
        return
    require_fit(model, interventions)
    if any(i.condition is not None for i in interventions):
        raise RequestError(
            "a condition is read on the prompt: pass positions and prompt_lengths, or use "
            "generate()"
        )
    if narrow := [i.when for i in interventions if i.when != "both"]:
        raise RequestError(
            f"the schedule {narrow[0]!r} needs to know where prompts end: pass positions and "
            "prompt_lengths, or use generate(), or choose the schedule 'both'"
        )
    with model.hooks(
        [
            (site, _everywhere(intervention, site, model.device))
            for intervention in interventions
            for site in intervention.where
        ]
    ):
        yield


def _everywhere(
    intervention: Intervention, site: Site, device: torch.device
) -> Callable[[Float[Tensor, "row pos d_model"]], Float[Tensor, "row pos d_model"]]:
    operation, direction = intervention.operation, intervention.direction
    unit = intervention.vectors.to(device)
    parameters = torch.tensor(
        operation.parameters(direction, site), dtype=torch.float32, device=device
    )

    def hook(resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        on = resid.device  # of this block, where a model is spread over several
        return operation.edit(resid, unit.to(on), parameters.to(on))

    return hook
