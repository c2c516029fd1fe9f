import dataclasses
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add
from persona_probe.steering.steer import Intervention, steer


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 300, (3, 9), generator=torch.Generator().manual_seed(3))
    return {
        "ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(9).expand(3, -1),
    }


def residual(model: Any, batch: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    """The residual stream after a block, as the next block receives it."""
    seen = []
    with torch.no_grad(), model.hooks([(Site(layer), lambda resid: seen.append(resid))]):
        model.logits(**batch)
    return seen[0]


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(**batch)


def test_what_arrives_is_what_was_there_plus_the_addition(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    before = residual(tiny_model, batch, 1)
    with steer(tiny_model, [Intervention(direction, Add(0.7), "both")]):
        after = residual(tiny_model, batch, 1)
        untouched = residual(tiny_model, batch, 0)
    assert torch.equal(after, before + (0.7 * direction.norm) * direction.unit)
    assert torch.equal(untouched, residual(tiny_model, batch, 0))


def test_an_ablated_direction_is_gone_at_every_site_named(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    direction, sites = make_direction(layer=0), tuple(map(Site, range(3)))
    with steer(tiny_model, [Intervention(direction, Ablate(), "both", sites)]):
        for site in sites:
            before = residual(tiny_model, batch, site.layer)
            assert ((before @ direction.unit).abs() / before.norm(dim=-1)).max() < 1e-4
    for site in sites:
        assert (residual(tiny_model, batch, site.layer) @ direction.unit).abs().mean() > 0.01


def test_only_the_positions_of_the_schedule_change(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    positions = batch["position_ids"].clone()
    lengths = torch.tensor([4, 6, 9])
    before = residual(tiny_model, batch, 1)
    expected = before.clone()
    for row, length in enumerate(lengths):
        expected[row, length - 1] += 2.0 * direction.unit
    with steer(tiny_model, [Intervention(direction, Add(2.0, "raw"))], positions, lengths):
        assert torch.equal(residual(tiny_model, batch, 1), expected)


def test_strength_zero_is_the_unsteered_model_bit_for_bit(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    plain = logits(tiny_model, batch)
    for schedule in ("both", "response"):
        layout = (batch["position_ids"], torch.tensor([3, 3, 3]))
        for strength, equal in [(0.0, True), (0.5, False)]:
            intervention = Intervention(make_direction(), Add(strength), schedule)
            with steer(tiny_model, [intervention], *layout):
                assert torch.equal(logits(tiny_model, batch), plain) is equal


def test_nothing_is_left_after_the_block_nor_after_an_exception(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    plain = logits(tiny_model, batch)
    interventions = [Intervention(make_direction(), Add(1.0), "both")]
    with steer(tiny_model, interventions):
        assert not torch.equal(logits(tiny_model, batch), plain)
    assert torch.equal(logits(tiny_model, batch), plain)
    with pytest.raises(KeyError), steer(tiny_model, interventions):
        raise KeyError
    assert torch.equal(logits(tiny_model, batch), plain)


def test_blocks_nest_and_interventions_apply_in_order(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    add = Intervention(make_direction(), Add(1.0), "both")
    ablate = Intervention(make_direction(), Ablate(), "both")
    with steer(tiny_model, [add]):
        outer = logits(tiny_model, batch)
        with steer(tiny_model, [ablate]):
            nested = logits(tiny_model, batch)
        assert torch.equal(logits(tiny_model, batch), outer)
    with steer(tiny_model, [add, ablate]):
        assert torch.equal(logits(tiny_model, batch), nested)
    with steer(tiny_model, [ablate, add]):
        assert not torch.allclose(logits(tiny_model, batch), nested, atol=1e-3)


def test_what_does_not_fit_is_refused_before_the_model_is_touched(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    plain = logits(tiny_model, batch)
    direction = make_direction()
    elsewhere = dataclasses.replace(
        direction, provenance=direction.provenance.with_(model_hash="0123456789abcdef")
    )
    for wrong, words in [
        (Intervention(make_direction(d_model=31), Add(1.0), "both"), "31"),
        (Intervention(make_direction(layer=3), Add(1.0), "both"), "layers 0 to 2"),
        (Intervention(direction, Add(1.0), "both", (Site(7),)), "layers 0 to 2"),
        (Intervention(elsewhere, Add(1.0), "both"), "0123456789abcdef"),
    ]:
        with pytest.raises(SiteMismatchError, match=words), steer(tiny_model, [wrong]):
            pass
    assert torch.equal(logits(tiny_model, batch), plain)


def test_a_schedule_without_positions_is_refused(tiny_model: Any, make_direction: Any) -> None:
    narrow = [Intervention(make_direction(), Add(1.0))]
    with pytest.raises(RequestError, match="prompt_lengths"), steer(tiny_model, narrow):
        pass
    with (
        pytest.raises(RequestError, match="together"),
        steer(tiny_model, [], torch.zeros(1, 1).long()),
    ):
        pass
