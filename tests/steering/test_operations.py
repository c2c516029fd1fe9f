import dataclasses
import math
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.site import Site
from persona_probe.steering import (
    OPERATIONS,
    Ablate,
    Add,
    Clamp,
    Operation,
    Patch,
    Rotate,
    Subspace,
)
from persona_probe.steering.arm import Intervention
from persona_probe.steering.operation import projection

TEXT = (5, 6, 7)


@pytest.fixture
def examples(make_direction: Any) -> dict[str, list[Operation]]:
    """Settings that change something, of every operation."""
    others = (make_direction(seed=11), make_direction(seed=12))
    offset = torch.randn(32, generator=torch.Generator().manual_seed(13))
    return {
        "add": [Add(0.7), Add(-2.0, "gap"), Add(5.0, "raw")],
        "ablate": [Ablate(), Ablate(1.5), Ablate({Site(1): -0.5})],
        "clamp": [Clamp(-1.0, 1.0), Clamp({Site(1): 2.0}), Clamp(high=-0.1, units="gap")],
        "patch": [
            Patch(make_direction(seed=s).unit, {TEXT: {Site(1): torch.tensor([0.5, -1.0, 2.0])}})
            for s in range(6)
        ],
        "rotate": [Rotate(20.0), Rotate(-170.0), Rotate(0.3, "share"), Rotate(-0.9, "share")],
        "subspace": [Subspace(others), Subspace(others, 0.5), Subspace(others, 1.0, offset)],
    }


def edited(operation: Operation, resid: torch.Tensor, direction: Any) -> torch.Tensor:
    if isinstance(operation, Patch):
        direction = dataclasses.replace(direction, unit=operation.unit)
        parameters = operation.token_parameters(direction, Site(1), TEXT)[-1]
    else:
        parameters = torch.tensor(operation.parameters(direction, Site(1)))
    return operation.edit(resid, Intervention(direction, operation).vectors, parameters)


@pytest.fixture
def resid() -> torch.Tensor:
    return 4 * torch.randn(5, 7, 32, generator=torch.Generator().manual_seed(1))


def test_every_operation_has_examples(examples: Any) -> None:
    assert set(examples) == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_operation_is_pure(
    name: str, dtype: torch.dtype, resid: torch.Tensor, make_direction: Any, examples: Any
) -> None:
    for operation in examples[name]:
        before = resid.to(dtype)
        kept = before.clone()
        after = edited(operation, before, make_direction())
        assert not torch.equal(after, kept)
        assert torch.equal(before, kept)
        assert after.dtype == dtype
        assert dataclasses.is_dataclass(operation)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "patch"])
def test_an_operation_treats_every_row_by_its_own_direction(
    name: str, resid: torch.Tensor, make_direction: Any, examples: Any
) -> None:
    for operation in examples[name]:
        directions = [make_direction(seed=seed) for seed in range(len(resid))]
        units = torch.stack([Intervention(d, operation).vectors for d in directions])
        parameters = torch.tensor([operation.parameters(d, Site(1)) for d in directions])
        together = operation.edit(resid, units[:, None], parameters[:, None])
        alone = [edited(operation, r, d) for r, d in zip(resid, directions, strict=True)]
        # Sines are rounded differently in vector and in scalar code; all else is equal to the bit.
        ulps = 4 * torch.finfo(torch.float32).eps if name == "rotate" else 0.0
        torch.testing.assert_close(together, torch.stack(alone), rtol=ulps, atol=20 * ulps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_settings_of_nothing_change_no_bit(
    dtype: torch.dtype, resid: torch.Tensor, make_direction: Any
) -> None:
    before, direction = resid.to(dtype), make_direction()
    nothings = [
        *(Add(0.0, units) for units in ("norm", "gap", "raw")),
        *(Clamp(units=units) for units in ("raw", "gap")),
        *(Rotate(0.0, units) for units in ("degrees", "share")),
        Subspace((make_direction(seed=9),), 1.0),
        Subspace((make_direction(seed=9),), 1.0, torch.zeros(32)),
    ]
    for nothing in nothings:
        assert torch.equal(edited(nothing, before, direction), before), nothing


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


def test_a_clamp_moves_only_what_is_out_of_bounds(resid: torch.Tensor, make_direction: Any) -> None:
    direction = make_direction()
    before = resid @ direction.unit
    for clamp, low, high in [
        (Clamp(-1.0, 2.0), -1.0, 2.0),
        (Clamp(low=0.5), 0.5, math.inf),
        (Clamp(high={Site(1): -0.5}), -math.inf, -0.5),
        (Clamp(-0.5, 0.25, "gap"), -1.5, 0.75),
    ]:
        after = edited(clamp, resid, direction)
        inside = (before >= low) & (before <= high)
        assert 0 < inside.float().mean() < 1
        assert torch.equal(after[inside], resid[inside])
        torch.testing.assert_close(after @ direction.unit, before.clamp(low, high))
        moved = after - resid
        sideways = moved - (moved @ direction.unit)[..., None] * direction.unit
        assert sideways.norm(dim=-1).max() < 1e-5


def test_bounds_at_quantiles_are_those_of_each_site(make_direction: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    seen = {Site(s): s + torch.randn(101, generator=generator) for s in (1, 2)}
    clamp = Clamp.at_quantiles(seen, low=0.25)
    for site, values in seen.items():
        low, high = clamp.parameters(make_direction(), site)
        assert low == pytest.approx(float(values.sort().values[25]))
        assert high == math.inf
    both = Clamp.at_quantiles(seen, 0.1, 0.9).parameters(make_direction(), Site(2))
    assert both == tuple(float(seen[Site(2)].sort().values[k]) for k in (10, 90))
    with pytest.raises(RequestError, match="known at layers 1, 2"):
        clamp.parameters(make_direction(), Site(0))
    for wrong, words in [((25.0, None), "between 0 and 1"), ((math.nan, None), "between 0 and 1")]:
        with pytest.raises(RequestError, match=words):
            Clamp.at_quantiles(seen, *wrong)
    with pytest.raises(RequestError, match="no finite projections at layer 1"):
        Clamp.at_quantiles({Site(1): torch.zeros(0)}, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.0, 0.5, "low 1.0 and high 0.5"),
        (math.nan, 1.0, "low nan"),
        (0.0, math.nan, "high nan"),
        (math.inf, math.inf, "low inf"),
        (-math.inf, -math.inf, "high -inf"),
        ({Site(1): 0.0, Site(2): 3.0}, 2.0, "at layer 2"),
    ],
)
def test_bounds_must_have_an_inside(low: Any, high: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Clamp(low, high)


def test_bounds_in_gaps_need_a_midpoint(make_direction: Any) -> None:
    nowhere = dataclasses.replace(make_direction(), midpoint=math.nan)
    with pytest.raises(RequestError, match="raw units"):
        Clamp(0.0, 1.0, "gap").parameters(nowhere, Site(1))


@pytest.mark.parametrize("degrees", [-180.0, -75.0, 0.1, 30.0, 90.0, 180.0])
def test_a_rotation_keeps_the_norm_and_turns_by_its_angle(
    degrees: float, resid: torch.Tensor, make_direction: Any
) -> None:
    unit = make_direction().unit
    after = edited(Rotate(degrees), resid, make_direction())

    def angles(x: torch.Tensor) -> torch.Tensor:
        return torch.rad2deg(torch.acos((x @ unit / x.norm(dim=-1)).double().clamp(-1, 1)))

    torch.testing.assert_close(after.norm(dim=-1), resid.norm(dim=-1), rtol=1e-5, atol=0)
    expected = (angles(resid) - degrees).clamp(0, 180)
    # Near 0 and 180 degrees the cosine hardly says what the angle is.
    torch.testing.assert_close(angles(after), expected, atol=0.05, rtol=0)
    # It stays in the plane of h and v: what is left without both is nothing.
    plane = torch.stack([resid, unit.expand_as(resid)], dim=-1).double()
    rest = (
        after.double()[..., None]
        - plane @ torch.linalg.lstsq(plane, after.double()[..., None]).solution
    )
    assert rest.norm() < 1e-3


def test_a_share_of_the_way_arrives_at_the_direction_itself(
    resid: torch.Tensor, make_direction: Any
) -> None:
    unit, norms = make_direction().unit, resid.norm(dim=-1, keepdim=True)
    for share, end in [(1.0, unit), (-1.0, -unit)]:
        after = edited(Rotate(share, "share"), resid, make_direction())
        torch.testing.assert_close(after, norms * end, atol=1e-4, rtol=0)
    half = edited(Rotate(0.5, "share"), resid, make_direction())
    bisector = resid / norms + unit
    expected = norms * bisector / bisector.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(half, expected, atol=1e-4, rtol=0)


def test_a_residual_without_a_plane_is_left_as_it_is() -> None:
    unit = torch.eye(32)[0]
    resid = torch.stack([torch.zeros(32), 3 * unit, -3 * unit])
    for parameters in ([1.0, 0.0], [0.0, 0.5], [-1.0, 0.0]):
        assert torch.equal(Rotate.edit(resid, unit, torch.tensor(parameters)), resid)


def test_a_rotation_beyond_half_a_turn_is_refused() -> None:
    for strength, units in [(181.0, "degrees"), (1.01, "share"), (math.nan, "share")]:
        with pytest.raises(RequestError, match=f"units of {units} must be between"):
            Rotate(strength, units)


def test_a_subspace_that_is_ablated_is_gone_also_where_directions_are_oblique(
    resid: torch.Tensor, make_direction: Any
) -> None:
    direction, second = make_direction(seed=1), make_direction(seed=2)
    oblique = second.with_raw(direction.unit + 0.3 * second.unit)
    dependent = second.with_raw(direction.unit - 0.5 * oblique.unit)
    assert direction.cosine(oblique) > 0.9
    for others in [(oblique,), (oblique, dependent)]:
        subspace = Subspace(others)
        axes = subspace.axes(direction)
        assert axes.shape == (2, 32)
        torch.testing.assert_close(axes @ axes.T, torch.eye(2), atol=1e-6, rtol=0)
        after = edited(subspace, resid, direction)
        for gone in (direction, *others):
            assert (resid @ gone.unit).abs().mean() > 1
            assert ((after @ gone.unit).abs() / resid.norm(dim=-1)).max() < 1e-4
        # One after the other does not do it: the second ablation brings the first back.
        in_turn = edited(Ablate(), edited(Ablate(), resid, direction), oblique)
        assert (in_turn @ direction.unit).abs().mean() > 0.1


def test_a_subspace_is_shifted_within_itself_only(resid: torch.Tensor, make_direction: Any) -> None:
    direction, other = make_direction(seed=1), make_direction(seed=2)
    offset = 2 * direction.unit - 3 * other.unit
    sideways = make_direction(seed=3).orthogonalised(direction, other).unit
    shifted = edited(Subspace((other,), 1.0, offset + 50 * sideways), resid, direction)
    torch.testing.assert_close(shifted, resid + offset, atol=1e-4, rtol=0)
    # With scale 0 the component of another model's mean takes the place of one's own.
    at_level = edited(Subspace((other,), 0.0, {Site(1): offset}), resid, direction)
    for d in (direction, other):
        torch.testing.assert_close(
            at_level @ d.unit, (offset @ d.unit).expand(5, 7), atol=1e-4, rtol=0
        )
    half = edited(Subspace((other,), 0.5), resid, direction)
    torch.testing.assert_close(half @ other.unit, 0.5 * (resid @ other.unit))


def test_what_a_subspace_cannot_be(make_direction: Any) -> None:
    direction = make_direction()
    elsewhere = make_direction(layer=2, seed=1)
    with pytest.raises(SiteMismatchError, match="same space"):
        Subspace((elsewhere,)).axes(direction)
    with pytest.raises(RequestError, match="finite"):
        Subspace(scale=math.nan)
    with pytest.raises(RequestError, match="NaN or inf"):
        Subspace(offset=torch.full((32,), math.inf))
    with pytest.raises(RequestError, match="known at layers 1"):
        Subspace(offset={Site(1): torch.zeros(32)}).parameters(direction, Site(0))
    with pytest.raises(RequestError, match=r"shape \[31\]"):
        Subspace(offset=torch.zeros(31)).parameters(direction, Site(1))


def test_a_patch_sets_the_projection_it_was_given(resid: torch.Tensor, make_direction: Any) -> None:
    direction = make_direction()
    values = torch.randn(7, generator=torch.Generator().manual_seed(2))
    text = tuple(range(7))
    patch = Patch(direction.unit, {text: {Site(1): values}})
    parameters = patch.token_parameters(direction, Site(1), text)
    after = patch.edit(resid, direction.unit, parameters)
    torch.testing.assert_close(after @ direction.unit, values.expand(5, 7), atol=1e-4, rtol=0)
    # A residual's own projections take no bit away.
    own = projection(resid, direction.unit)
    assert torch.equal(patch.edit(resid, direction.unit, own), resid)
    with pytest.raises(RequestError, match="2 values at layer 1 for a text of 3 tokens"):
        Patch(direction.unit, {(1, 2, 3): {Site(1): torch.zeros(2)}})
    with pytest.raises(RequestError, match="one finite projection"):
        Patch(direction.unit, {(1,): {Site(1): torch.tensor([math.nan])}})
    with pytest.raises(RequestError, match="known texts"):
        patch.parameters(direction, Site(1))


def test_turning_the_direction_round_turns_the_effect_round(
    resid: torch.Tensor, make_direction: Any
) -> None:
    """A linear reader sees the slope of the strength change sign with the direction."""
    direction, reader = make_direction(), make_direction(seed=0).unit

    def slope(of: Any) -> float:
        ends = [(edited(Add(a), resid, of) @ reader).mean() for a in (-1.0, 1.0)]
        return float(ends[1] - ends[0])

    assert slope(direction) == pytest.approx(2 * direction.norm, rel=1e-5)
    assert slope(-direction) == pytest.approx(-slope(direction), rel=1e-5)
