"""An exported file, applied as its own tool applies it, steers as we do, and at the same layer."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.interchange.tools import ADDING, ONE_VECTOR, capping
from tests.interchange.writing import WRITABLE, export

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.residual_model import ResidualModel
    from persona_probe.models.shape import ModelShape
    from persona_probe.models.site import Site

    Directions = dict[Site, Direction]

CASES = [(name, tool) for name, tools in ADDING.items() for tool in tools]
ROUNDING = 2e-5  # of logits of size about 1, after float32 sums in another order


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(3))
    mask, positions = torch.ones_like(ids), torch.arange(9).expand(3, -1)
    return {"attention_mask": mask, "position_ids": positions, "ids": ids}


def steered(
    model: "ResidualModel",
    directions: "Directions",
    layers: list[int],
    strength: float = 1.0,
    units: Any = "gap",
) -> torch.Tensor:
    from persona_probe.models.site import Site
    from persona_probe.steering import Add
    from persona_probe.steering.steer import Intervention, steer

    add = Add(strength, units)
    interventions = [Intervention(directions[Site(layer)], add, "both") for layer in layers]
    with torch.no_grad(), steer(model, interventions):
        return model.logits(**batch())


def applied(model: Any, handles: list[Any]) -> torch.Tensor:
    """Logits under the hooks, which are taken off again."""
    inputs = batch()
    ids = inputs.pop("ids")
    try:
        with torch.no_grad():
            logits: torch.Tensor = model(input_ids=ids, **inputs).logits
            return logits
    finally:
        for handle in handles:
            handle.remove()


def test_every_format_that_can_be_written_has_a_parity_test() -> None:
    from persona_probe.interchange import FORMATS
    from persona_probe.interchange.format import WritableFormat

    writable = {name for name, form in FORMATS.items() if isinstance(form, WritableFormat)}
    assert writable == {*ADDING, "assistant_axis_capping"} == set(WRITABLE)


@pytest.mark.parametrize(
    ("name", "tool", "layer"),
    # That block 0 is refused by GGUF control vectors is tested with other bad input.
    [(*case, layer) for layer in range(3) for case in CASES if (case[0], layer) != ("gguf", 0)],
)
def test_their_logits_are_our_steered_logits_and_not_those_of_a_neighbouring_layer(
    name: str,
    tool: Callable[..., Any],
    layer: int,
    ours: "ResidualModel",
    theirs: Any,
    shape: "ModelShape",
    virtue: "Directions",
    tmp_path: Path,
) -> None:
    path = export(name, tmp_path, virtue, [layer], shape=shape)
    logits = applied(theirs, tool(path, theirs, [layer]))
    torch.testing.assert_close(logits, steered(ours, virtue, [layer]), atol=ROUNDING, rtol=0)
    assert (logits - applied(theirs, [])).abs().max() > 0.1  # the file does something

    from dataclasses import replace

    from persona_probe.models.site import Site

    for other in {0, 1, 2} - {layer}:
        moved = {Site(other): replace(virtue[Site(layer)], site=Site(other))}
        assert (logits - steered(ours, moved, [other])).abs().max() > 100 * ROUNDING


@pytest.mark.parametrize(("name", "tool"), [case for case in CASES if case[0] not in ONE_VECTOR])
def test_several_layers_in_one_file_act_together(
    name: str,
    tool: Callable[..., Any],
    ours: "ResidualModel",
    theirs: Any,
    shape: "ModelShape",
    virtue: "Directions",
    tmp_path: Path,
) -> None:
    path = export(name, tmp_path, virtue, [1, 2], shape=shape, strength=-0.5, units="norm")
    logits = applied(theirs, tool(path, theirs, [1, 2]))
    expected = steered(ours, virtue, [1, 2], -0.5, "norm")
    torch.testing.assert_close(logits, expected, atol=ROUNDING, rtol=0)


def test_what_is_written_is_what_add_adds_bit_for_bit(virtue: "Directions") -> None:
    from persona_probe.interchange.additions import Additions
    from persona_probe.models.site import Site
    from persona_probe.steering import Add

    direction = virtue[Site(1)]
    resid = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1))
    for units in ("gap", "norm", "raw"):
        vector = Additions(virtue, 0.7, units).vectors()[Site(1)]  # type: ignore[arg-type]
        add = Add(0.7, units)  # type: ignore[arg-type]
        parameters = torch.tensor(add.parameters(direction, direction.site))
        assert torch.equal(resid + vector, add.edit(resid, direction.unit, parameters))


@pytest.mark.parametrize(("strength", "units"), [(-0.5, "gap"), (0.0, "gap"), (0.1, "norm")])
def test_a_cap_lies_where_project_says(
    strength: float,
    units: str,
    ours: "ResidualModel",
    theirs: Any,
    shape: "ModelShape",
    virtue: "Directions",
    tmp_path: Path,
) -> None:
    from persona_probe.models.site import Site

    name = "assistant_axis_capping"
    path = export(name, tmp_path, virtue, [1], shape=shape, strength=strength, units=units)
    direction = virtue[Site(1)]
    cap = strength * direction.norm
    if units == "gap":
        cap = direction.midpoint + strength * direction.gap
    seen: list[torch.Tensor] = []

    def clamp(resid: torch.Tensor) -> torch.Tensor:
        excess = (resid @ direction.unit - cap).clamp(min=0.0)
        seen.append(resid - excess[..., None] * direction.unit)
        return seen[-1]

    with torch.no_grad(), ours.hooks([(Site(1), clamp)]):
        expected = ours.logits(**batch())
    if units == "gap":
        assert direction.project(seen[0]).max() <= strength + 1e-5
    logits = applied(theirs, capping(path, theirs, [1]))
    torch.testing.assert_close(logits, expected, atol=ROUNDING, rtol=0)
    assert (logits - applied(theirs, [])).abs().max() > 100 * ROUNDING
