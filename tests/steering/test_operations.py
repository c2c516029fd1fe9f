import dataclasses
import math
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.models.site import Site
from persona_probe.steering import OPERATIONS, Ablate, Add, Operation

EXAMPLES: dict[str, list[Operation]] = {
    "add": [Add(0.7), Add(-2.0, "gap"), Add(5.0, "raw")],
    "ablate": [Ablate(), Ablate(1.5), Ablate({Site(1): -0.5})],
}


def edited(operation: Operation, resid: torch.Tensor, direction: Any) -> torch.Tensor:
    parameters = torch.tensor(operation.parameters(direction, Site(1)))
    return operation.edit(resid, direction.unit, parameters)


@pytest.fixture
def resid() -> torch.Tensor:
    return 4 * torch.randn(5, 7, 32, generator=torch.Generator().manual_seed(1))


def test_every_operation_has_examples() -> None:
    assert set(EXAMPLES) == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_operation_is_pure(
    name: str, dtype: torch.dtype, resid: torch.Tensor, make_direction: Any
) -> None:
    for operation in EXAMPLES[name]:
        before = resid.to(dtype)
        kept = before.clone()
        after = edited(operation, before, make_direction())
        assert not torch.equal(after, kept)
        assert torch.equal(before, kept)
        assert after.dtype == dtype
        assert dataclasses.is_dataclass(operation)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_treats_every_row_by_its_own_direction(
    name: str, resid: torch.Tensor, make_direction: Any
) -> None:
    for operation in EXAMPLES[name]:
        directions = [make_direction(seed=seed) for seed in range(len(resid))]
        units = torch.stack([d.unit for d in directions])
        parameters = torch.tensor([operation.parameters(d, Site(1)) for d in directions])
        together = operation.edit(resid, units[:, None], parameters[:, None])
        alone = [edited(operation, r, d) for r, d in zip(resid, directions, strict=True)]
        assert torch.equal(together, torch.stack(alone))


def test_adding_nothing_changes_no_bit(resid: torch.Tensor, make_direction: Any) -> None:
    for units in ("norm", "gap", "raw"):
        assert torch.equal(edited(Add(0.0, units), resid, make_direction()), resid)


@pytest.mark.parametrize(("units", "size"), [("norm", 4.0), ("gap", 3.0), ("raw", 1.0)])
def test_an_addition_has_the_length_it_says(
    units: Any, size: float, resid: torch.Tensor, make_direction: Any
) -> None:
    direction = make_direction()
    after = edited(Add(0.35, units), resid, direction)
    assert torch.equal(after, resid + (0.35 * size) * direction.unit)


def test_ablation_leaves_its_level_and_nothing_else(
    resid: torch.Tensor, make_direction: Any
) -> None:
    direction = make_direction()
    assert (resid @ direction.unit).abs().mean() > 1
    for operation, level in [(Ablate(), 0.0), (Ablate(2.5), 2.5), (Ablate({Site(1): -1.0}), -1.0)]:
        after = edited(operation, resid, direction)
        error = (after @ direction.unit - level).abs() / resid.norm(dim=-1)
        assert error.max() < 1e-4
        moved = after - resid
        sideways = moved - (moved @ direction.unit)[..., None] * direction.unit
        assert sideways.norm(dim=-1).max() < 1e-4 * resid.norm(dim=-1).min()


@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_a_strength_must_be_a_number(strength: float) -> None:
    with pytest.raises(RequestError, match="finite"):
        Add(strength)


def test_units_must_be_known() -> None:
    add = Add(1.0)
    object.__setattr__(add, "units", "metres")
    with pytest.raises(RequestError, match="norm"):
        add.__post_init__()


def test_units_of_an_unmeasured_norm_are_refused(make_direction: Any) -> None:
    unmeasured = dataclasses.replace(make_direction(), norm=math.nan)
    with pytest.raises(RequestError, match="raw units"):
        Add(1.0).parameters(unmeasured, Site(1))
    assert Add(1.0, "raw").parameters(unmeasured, Site(1)) == (1.0,)


def test_a_level_that_is_missing_for_a_site_is_named(make_direction: Any) -> None:
    with pytest.raises(RequestError, match="layer 2"):
        Ablate({Site(1): 0.0}).parameters(make_direction(), Site(2))
    with pytest.raises(RequestError, match="finite"):
        Ablate({Site(1): math.nan})
