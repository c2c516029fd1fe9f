from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from models.conftest import Pair

# See test_loading: rounding is below this, mistakes are above.
CLOSE = 1e-4


def block_outputs(network: Any, row: list[int]) -> list[Any]:
    """Output of every block of a plain transformers model, by its own hooks."""
    import torch

    body = network.base_model
    blocks = body.layers if hasattr(body, "layers") else body.h
    outputs: list[Any] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output)[0])

    handles = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        hidden = network(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    for layer in range(len(blocks) - 1):
        assert outputs[layer].equal(hidden[layer + 1][0])
    return outputs


def read(model: Any, row: list[int], last: int | None = None) -> list[Any]:
    """Residuals at all sites, through our hooks."""
    from persona_probe.models.site import Site

    found: dict[int, Any] = {}

    def keep_at(layer: int) -> Any:
        def hook(resid: Any) -> None:
            found[layer] = resid[0].clone()

        return hook

    batch = model.pad([row], "right")
    with model.hooks([(site, keep_at(site.layer)) for site in model.sites]):
        model.residual_forward(
            batch.ids,
            batch.attention_mask,
            batch.position_ids,
            last_site=Site(model.n_layers - 1 if last is None else last),
        )
    return [found[layer] for layer in sorted(found)]


def count_hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) for module in model.network.modules())


def test_sites_are_block_outputs_before_the_final_norm(pair: "Pair", rows: list[list[int]]) -> None:
    for row in rows:
        expected = block_outputs(pair.plain, row)
        ours = read(pair.ours, row)
        assert len(ours) == len(expected) == pair.ours.n_layers
        for got, want in zip(ours, expected, strict=True):
            assert (got - want).abs().max() <= 1e-5


def test_what_a_hook_returns_takes_the_residuals_place(pair: "Pair", rows: list[list[int]]) -> None:
    """At the last site, the logits are those of norm and head on the changed residual."""
    import torch

    model = pair.ours
    batch = model.pad([rows[0]], "right")
    shift = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    site = model.sites[-1]
    with model.hooks([(site, lambda resid: resid + shift)]):
        ours = model.logits(batch.ids, batch.attention_mask, batch.position_ids)[0]
    body = pair.plain.base_model
    norm = body.norm if hasattr(body, "norm") else body.ln_f
    with torch.no_grad():
        expected = pair.plain.lm_head(norm(block_outputs(pair.plain, rows[0])[-1] + shift))
    assert (ours - expected).abs().max() <= CLOSE


def test_hooks_run_in_order_and_nest(tiny_model: Any, rows: list[list[int]]) -> None:
    from persona_probe.models.site import Site

    calls: list[str] = []
    batch = tiny_model.pad([rows[0]], "right")

    def note(name: str) -> Any:
        def hook(resid: Any) -> Any:
            calls.append(name)
            return resid

        return hook

    site = Site(1)
    with tiny_model.hooks([(site, note("outer"))]):
        with tiny_model.hooks([(site, note("first")), (site, note("second"))]):
            tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
        tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
    assert calls == ["outer", "first", "second", "outer"]


def test_only_own_hooks_go_also_after_an_exception(tiny_model: Any, rows: list[list[int]]) -> None:
    from persona_probe.errors import SiteMismatchError
    from persona_probe.models.site import Site

    def fail(_resid: Any) -> None:
        raise ZeroDivisionError

    batch = tiny_model.pad([rows[0]], "right")
    before = count_hooks(tiny_model)
    foreign = tiny_model.bridge.blocks[1].hook_out.register_forward_hook(lambda *_: None)
    with tiny_model.hooks([(Site(1), fail)]):
        assert count_hooks(tiny_model) == before + 2
        with pytest.raises(ZeroDivisionError):
            tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
    with pytest.raises(ZeroDivisionError), tiny_model.hooks([(Site(1), fail)]):
        tiny_model.logits(batch.ids, batch.attention_mask, batch.position_ids)
    assert count_hooks(tiny_model) == before + 1
    with (
        pytest.raises(SiteMismatchError, match="layers 0 to 2, there is no layer 3"),
        tiny_model.hooks([(Site(0), fail), (Site(3), fail)]),
    ):
        pass
    assert count_hooks(tiny_model) == before + 1
    foreign.remove()


def test_blocks_after_the_last_site_do_not_run(tiny_model: Any, rows: list[list[int]]) -> None:
    ran: list[int] = []
    handles = [
        block.original_component.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(tiny_model.bridge.blocks)
    ]
    head = tiny_model.network.lm_head.register_forward_hook(lambda *_: ran.append(99))
    try:
        for last, expected in ((0, [0]), (1, [0, 1]), (2, [0, 1, 2])):
            ran.clear()
            assert len(read(tiny_model, rows[0], last)) == last + 1
            assert ran == expected
    finally:
        for handle in (*handles, head):
            handle.remove()
    assert count_hooks(tiny_model) == 0


def test_the_stop_lets_every_hook_at_the_last_site_run(
    tiny_model: Any, rows: list[list[int]]
) -> None:
    """A steered residual is what is read: the reading hook comes after the steering one."""
    from persona_probe.models.site import Site

    site = Site(1)
    with tiny_model.hooks([(site, lambda resid: resid + 7)]):
        steered = read(tiny_model, rows[0], last=1)[1]
    assert steered.equal(read(tiny_model, rows[0], last=1)[1] + 7)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(pair: "Pair", rows: list[list[int]], side: Any) -> None:
    model = pair.ours
    together = model.pad(rows, side)
    logits = model.logits(together.ids, together.attention_mask, together.position_ids)
    for i, row in enumerate(rows):
        alone = model.pad([row], side)
        expected = model.logits(alone.ids, alone.attention_mask, alone.position_ids)[0]
        kept = logits[i, -len(row) :] if side == "left" else logits[i, : len(row)]
        assert (kept - expected).abs().max() <= CLOSE


def test_keeping_the_last_column_keeps_its_values(tiny_model: Any, rows: list[list[int]]) -> None:
    batch = tiny_model.pad(rows, "left")
    inputs = (batch.ids, batch.attention_mask, batch.position_ids)
    last = tiny_model.logits(*inputs, keep="last")
    assert last.shape[:2] == (3, 1)
    assert (last - tiny_model.logits(*inputs)[:, -1:]).abs().max() <= CLOSE


def grow(model: Any, rows: list[list[int]], steps: int) -> None:
    """Decode random tokens with the cache and compare every step with a full recompute.

    Half-way rows are repeated, then some are dropped.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = [list(row) for row in rows]
    batch = model.pad(rows, "left")
    ids, mask, positions, cache = batch.ids, batch.attention_mask, batch.position_ids, None
    for step in range(steps):
        logits, cache = model.decode_step(ids, mask, positions, cache)
        for row, got in zip(rows, logits, strict=True):
            alone = model.pad([row], "right")
            want = model.logits(alone.ids, alone.attention_mask, alone.position_ids)[0, -1]
            assert (got - want).abs().max() <= CLOSE
        positions = positions[:, -1:] + 1
        if step == steps // 2:
            cache.batch_repeat_interleave(2)
            rows = [row for row in rows for _ in range(2)]
            mask, positions = mask.repeat_interleave(2, 0), positions.repeat_interleave(2, 0)
        if step == steps // 2 + 2:
            kept = torch.tensor([0, 3, 4])
            cache.batch_select_indices(kept)
            rows = [list(rows[i]) for i in kept]
            mask, positions = mask[kept], positions[kept]
        ids = torch.randint(3, 390, (len(rows), 1), generator=generator)
        rows = [[*row, int(token)] for row, token in zip(rows, ids, strict=True)]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)


def test_decoding_with_a_cache_equals_recomputing(pair: "Pair", rows: list[list[int]]) -> None:
    grow(pair.ours, rows, steps=8)


def test_the_cache_grows_beyond_its_room(
    tiny_model: Any, rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import persona_probe.models.cache

    monkeypatch.setattr(persona_probe.models.cache, "ROOM", 3)
    with tiny_model.adapter("tuned"):
        grow(tiny_model, rows, steps=12)


def test_windows_and_full_attention_in_one_model_decode_alike(
    tiny_llama_folder: Any, rows: list[list[int]]
) -> None:
    """Gemma 3: two of three blocks see a window of four tokens, which the text outgrows."""
    import torch
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    from persona_probe.models.loading import wrap_model
    from persona_probe.models.ref import ModelRef

    config = Gemma3TextConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        architectures=["Gemma3ForCausalLM"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Gemma3ForCausalLM(config)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_folder)
    grow(wrap_model(network, tokenizer, ModelRef("gemma")), rows, steps=8)


def test_during_generation_hooks_see_the_prompt_then_single_tokens(
    tiny_model: Any, rows: list[list[int]]
) -> None:
    import torch

    from persona_probe.models.site import Site

    shapes: list[tuple[int, ...]] = []
    batch = tiny_model.pad(rows, "left")

    def note(resid: Any) -> None:
        shapes.append(tuple(resid.shape))

    with tiny_model.hooks([(Site(0), note)]):
        _, cache = tiny_model.decode_step(batch.ids, batch.attention_mask, batch.position_ids)
        longer = torch.cat([batch.attention_mask, torch.ones(3, 1, dtype=torch.long)], dim=1)
        tiny_model.decode_step(batch.ids[:, :1], longer, batch.position_ids[:, -1:] + 1, cache)
    assert shapes == [(3, 8, 32), (3, 1, 32)]


def test_ends_and_padding_come_from_the_folder(pair: "Pair") -> None:
    tokenizer = pair.ours.tokenizer
    assert tokenizer.eos_token_id in pair.ours.end_ids
    assert pair.ours.pad_id == tokenizer.pad_token_id
    assert pair.ours.context_length == 256
