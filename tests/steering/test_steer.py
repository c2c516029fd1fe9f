import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add, Clamp, Patch, Rotate, Subspace
from persona_probe.steering.condition import Condition
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_operation_runs_in_the_precision_of_the_model(
    dtype: torch.dtype,
    tiny_llama_folder: Path,
    batch: dict[str, torch.Tensor],
    make_direction: Any,
) -> None:
    model = load_model(ModelRef(str(tiny_llama_folder)), dtype=str(dtype).removeprefix("torch."))
    direction, others = make_direction(layer=1), (make_direction(layer=1, seed=1),)
    layout = (batch["position_ids"], torch.tensor([4, 6, 9]))
    before = residual(model, batch, 1)
    assert before.dtype == dtype
    # The coarseness of numbers of this size, a few times over.
    close = 4 * torch.finfo(dtype).eps * float(before.abs().max() + 4)
    for operation, expected in [
        (Add(1.0), lambda h: h @ direction.unit + direction.norm),
        (Ablate(0.5), lambda h: torch.full(h.shape[:-1], 0.5)),
        (Clamp(0.2, 0.4), lambda h: (h @ direction.unit).clamp(0.2, 0.4)),
        (Subspace(others), lambda h: torch.zeros(h.shape[:-1])),
        (Rotate(90.0, "degrees"), None),
    ]:
        with steer(model, [Intervention(direction, operation, "both")], *layout):
            after = residual(model, batch, 1)
        with steer(model, [Intervention(direction, operation, "both")]):
            assert torch.equal(residual(model, batch, 1), after)
        assert after.dtype == dtype
        if expected is None:
            torch.testing.assert_close(
                after.float().norm(dim=-1), before.float().norm(dim=-1), rtol=close, atol=0
            )
        else:
            found = after.float() @ direction.unit
            assert (found - expected(before.float())).abs().max() < close


def test_interventions_of_every_kind_apply_in_the_order_stated(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    direction, other = make_direction(seed=1), make_direction(seed=2)
    operations = [Add(1.0), Ablate(1.0), Clamp(0.3, 0.6), Rotate(50.0), Subspace((other,))]
    layout = (batch["position_ids"], torch.tensor([4, 6, 9]))
    before = residual(tiny_model, batch, 1)
    for first in operations:
        for second in operations:
            if first is second:
                continue
            pair = [Intervention(direction, o, "both") for o in (first, second)]
            with steer(tiny_model, pair, *layout):
                after = residual(tiny_model, batch, 1)
            expected = before
            for i in pair:
                parameters = torch.tensor(i.operation.parameters(direction, Site(1)))
                expected = i.operation.edit(expected, i.vectors, parameters)
            torch.testing.assert_close(after, expected, atol=1e-6, rtol=0)
            with steer(tiny_model, pair[::-1], *layout):
                turned = residual(tiny_model, batch, 1)
            assert (turned - after).abs().max() > 1e-3


def test_hooks_are_gone_after_an_exception_inside_the_model(
    tiny_model: Any, batch: dict[str, torch.Tensor], make_direction: Any
) -> None:
    plain = logits(tiny_model, batch)
    condition = Condition(make_direction(layer=0), -float("inf"))
    conditional = Intervention(make_direction(layer=1), Add(1.0), "both", None, condition)
    layout = (batch["position_ids"], torch.tensor([4, 6, 9]))
    with (
        pytest.raises((IndexError, RuntimeError)),
        steer(tiny_model, [conditional], *layout),
    ):
        tiny_model.logits(**{key: value[:1, :2] for key, value in batch.items()})
    assert torch.equal(logits(tiny_model, batch), plain)
    with steer(tiny_model, [conditional], *layout):
        assert not torch.equal(logits(tiny_model, batch), plain)
    assert torch.equal(logits(tiny_model, batch), plain)


def test_what_needs_to_know_the_text_says_so(tiny_model: Any, make_direction: Any) -> None:
    direction = make_direction()
    condition = Condition(direction)
    patch = Patch(direction.unit, {(5, 6): {Site(1): torch.zeros(2)}})
    for wrong, words in [
        (Intervention(direction, Add(1.0), "both", None, condition), "read on the prompt"),
        (Intervention(direction, patch, "both"), "`sequences`"),
        (Intervention(direction, Add(1.0), "both/first:3"), "prompt_lengths"),
    ]:
        with pytest.raises(RequestError, match=words), steer(tiny_model, [wrong]):
            pass
    intervention = Intervention(direction, patch, "both")
    row, length = torch.tensor([[5, 6]]), torch.tensor([2])
    layout = {"ids": row, "attention_mask": torch.ones_like(row), "position_ids": row - 5}
    with steer(tiny_model, [intervention], row - 5, length, sequences=[[5, 6]]):
        after = residual(tiny_model, layout, 1) @ direction.unit
    assert after.abs().max() < 1e-5
    assert (residual(tiny_model, layout, 1) @ direction.unit).abs().max() > 0.01


def test_packed_sequences_are_steered_each_by_its_own_prompt(
    tiny_model: Any, make_direction: Any
) -> None:
    from persona_probe.models.packing import pack, packed_attention

    sequences, lengths = [[5, 6, 7, 8], [9, 10, 11]], torch.tensor([3, 2])
    one_row = pack(sequences)
    positions = torch.tensor([[0, 1, 2, 3], [0, 1, 2, -1]])
    at = (torch.zeros(2, 4).long(), torch.tensor([[0, 1, 2, 3], [4, 5, 6, 6]]))
    intervention = Intervention(make_direction(), Add(2.0), "response")
    seen: list[torch.Tensor] = []
    with (
        steer(tiny_model, [intervention], positions, lengths, at),
        packed_attention(tiny_model.network, one_row.lengths),
        tiny_model.hooks([(Site(1), seen.append)]),
    ):
        tiny_model.network(input_ids=one_row.ids, position_ids=one_row.position_ids)
    with (
        packed_attention(tiny_model.network, one_row.lengths),
        tiny_model.hooks([(Site(1), seen.append)]),
    ):
        tiny_model.network(input_ids=one_row.ids, position_ids=one_row.position_ids)
    moved = (seen[0] - seen[1]).norm(dim=-1)[0] > 1
    assert moved.tolist() == [False, False, False, True, False, False, True]
