"""A batch that rows join and leave: what it reads, what it holds, and what happens without room."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add
from persona_probe.steering import generation as generation_module
from persona_probe.steering import joining as joining_module
from persona_probe.steering.generation import Arm, generate
from persona_probe.steering.steer import Intervention, steer

ROOM = 20


@pytest.fixture(scope="module")
def talkative(tiny_llama_folder: Path) -> Any:
    """A sixth of the vocabulary ends a reply, so that rows leave at every step."""
    model = load_model(ModelRef(str(tiny_llama_folder)))
    model.end_ids = tuple(range(0, len(model.tokenizer), 6))
    return model


@pytest.fixture
def arms(make_direction: Any) -> list[Arm]:
    def one(layer: int, schedule: str, strength: float) -> Arm:
        along = Intervention(make_direction(layer=layer, seed=layer), Add(strength), schedule)
        return Arm(f"{layer} {schedule} {strength}", (along,))

    everywhere = Intervention(make_direction(layer=1), Ablate(1.0), "both", (Site(0), Site(2)))
    return [
        Arm("plain"),
        *(one(layer, "both", 1.5) for layer in (0, 1, 2)),
        *(one(layer, "response", 1.5) for layer in (0, 1, 2)),
        Arm("ablated", (everywhere,)),
    ]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Rows of each cohort in every decoding pass."""
    seen: list[list[int]] = []
    decode = joining_module.decode

    def counted(model: Any, ids: Any, memories: Any) -> Any:
        seen.append([len(memory) for memory in memories])
        return decode(model, ids, memories)

    monkeypatch.setattr(joining_module, "decode", counted)
    return seen


def tokens(found: Any) -> dict[tuple[str, str, int], tuple[int, ...]]:
    return {(c.arm, c.conversation_id, c.sample): c.token_ids for c in found}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_join_while_others_go_on(
    temperature: float, talkative: Any, conversations: Any, arms: list[Arm], passes: Any
) -> None:
    options = {"max_new_tokens": ROOM, "temperature": temperature, "seed": 3}
    together = tokens(generate(talkative, conversations, arms, **options))
    in_one = len(passes)
    passes.clear()
    joining = tokens(generate(talkative, conversations, arms, batch_tokens=300, **options))
    assert joining == together
    assert max(map(len, passes)) > 1
    # Without joining, as many passes as each batch's longest reply would be needed.
    assert max(sum(rows) for rows in passes) < len(arms) * len(conversations)
    assert len(passes) > in_one


def test_a_short_reply_does_not_wait_for_a_long_one(
    talkative: Any, conversations: Any, arms: list[Arm], passes: Any
) -> None:
    """Rows that are done are replaced, so that few places of the batch are ever idle."""
    done = generate(
        talkative, conversations, arms, ROOM, 1.0, seed=3, n_samples=4, batch_tokens=500
    )
    read = sum(len(c.token_ids) for c in done)  # an end token is not read on
    places = sum(sum(rows) for rows in passes)
    assert len({len(c.token_ids) for c in done}) > 4
    assert read <= places < 1.6 * read
    # In batches that wait for their longest reply, most places would be idle.
    longest = max(len(c.token_ids) for c in done)
    assert places < 0.6 * len(done) * longest


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_cannot_share_prompts_gives_the_same(
    temperature: float,
    talkative: Any,
    conversations: Any,
    arms: list[Arm],
    passes: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"max_new_tokens": ROOM, "temperature": temperature, "seed": 3}
    shared = generate(talkative, conversations, arms, **options)
    monkeypatch.setattr(generation_module, "may_part", lambda *_: False)
    n_passes = len(passes)
    assert n_passes > 0
    alone = generate(talkative, conversations, arms, batch_tokens=400, **options)
    assert len(passes) == n_passes
    assert alone == shared


def test_prompts_are_read_once_for_arms_that_steer_the_response(
    talkative: Any, conversations: Any, make_direction: Any
) -> None:
    """And up to the steered site once for arms that steer it: counted in tokens per block."""
    lengths = [len(talkative.encode(c, add_generation_prompt=True)) for c in conversations]
    read = [0] * talkative.n_layers

    def counting(block: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            read[block] += output.shape[0] * output.shape[1] if output.shape[1] > 1 else 0

        return hook

    blocks = talkative.bridge.blocks
    along = make_direction(layer=1)
    for schedule, expected in [
        ("response", [sum(lengths) - len(lengths)] * 3),
        ("both", [sum(lengths), sum(lengths), 5 * sum(lengths)]),
    ]:
        arms = [
            Arm(f"{s}", (Intervention(along, Add(s), schedule),)) for s in (1.0, 2.0, 3.0, 4.0, 5.0)
        ]
        handles = [
            block.original_component.register_forward_hook(counting(number))
            for number, block in enumerate(blocks)
        ]
        try:
            generate(talkative, conversations, arms, 2)
        finally:
            for handle in handles:
                handle.remove()
        assert read == expected
        read[:] = [0] * talkative.n_layers


def test_out_of_memory_halves_the_batch_and_says_so(
    talkative: Any,
    conversations: Any,
    arms: list[Arm],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = generate(talkative, conversations, arms, ROOM)
    decode = joining_module.decode
    failed = []

    def small_memory(model: Any, ids: Any, memories: Any) -> Any:
        if len(ids) > 7:
            failed.append(len(ids))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(model, ids, memories)

    monkeypatch.setattr(joining_module, "decode", small_memory)
    assert generate(talkative, conversations, arms, ROOM) == expected
    assert failed
    assert "out of memory at 16384 tokens; going on with batches of 8192" in capsys.readouterr().err


def test_memory_that_holds_no_reply_is_an_error_and_leaves_the_model_as_it_was(
    talkative: Any, conversations: Any, arms: list[Arm], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generate(talkative, conversations, arms[:1], 4)
    with monkeypatch.context() as patched:

        def no_memory(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        patched.setattr(joining_module, "decode", no_memory)
        with pytest.raises(PersonaProbeError, match="memory is too small for a single reply"):
            generate(talkative, conversations, arms, ROOM)
    assert generate(talkative, conversations, arms[:1], 4) == before


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    talkative: Any, conversations: Any, arms: list[Arm], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(joining_module, "decode", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        generate(talkative, conversations, arms, ROOM)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("adapter", [None, "tuned"])
def test_in_half_precision_every_token_is_the_likeliest_up_to_rounding(
    dtype: str, adapter: str | None, tiny_llama_folder: Path, conversations: Any, arms: list[Arm]
) -> None:
    """Ties are common there, so tokens are compared by their logits in one pass without a cache."""
    model = load_model(ModelRef(str(tiny_llama_folder)), dtype=dtype)
    model.end_ids = ()
    asked = {c.id: c for c in conversations}
    own = [replace(arm, adapter=adapter) for arm in arms]
    best, rank = [], []
    for reply in generate(model, conversations, own, 6):
        arm = next(a for a in own if a.name == reply.arm)
        prompt = model.encode(asked[reply.conversation_id], add_generation_prompt=True).ids
        ids = torch.tensor([[*prompt, *reply.token_ids]])
        positions = torch.arange(ids.shape[1])[None]
        length = torch.tensor([len(prompt)])
        with model.adapter(adapter), steer(model, arm.interventions, positions, length):
            logits = model.logits(ids, torch.ones_like(ids), positions)[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(reply.token_ids)[:, None])[:, 0]
        best += (logits.max(dim=1).values - chosen).tolist()
        rank += ((logits > chosen[:, None]).sum(dim=1)).tolist()
        spread = float(logits.std())
    assert max(best) < 0.05 * spread
    assert sum(r == 0 for r in rank) > 0.9 * len(rank)


def test_a_model_spread_by_a_device_map_gives_the_same(
    tiny_llama_folder: Path, conversations: Any, arms: list[Arm]
) -> None:
    places = {"model.embed_tokens": "cpu", "model": "cpu", "lm_head": "cpu"}
    spread = load_model(str(tiny_llama_folder), device_map=places)
    plain = load_model(str(tiny_llama_folder))
    found, expected = (generate(m, conversations, arms, 6) for m in (spread, plain))
    assert found == expected


def test_a_tokens_memory_is_that_of_its_keys_and_values(talkative: Any) -> None:
    from persona_probe.models.decoding import bytes_per_token

    config = talkative.network.config
    width = config.num_key_value_heads * config.head_dim
    assert bytes_per_token(talkative) == 2 * config.num_hidden_layers * width * 4
