"""Every family of models that is promised, tiny and random, against plain transformers."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import CHATML, byte_level_tokenizer

if TYPE_CHECKING:
    import torch

    from persona_probe.models.residual_model import ResidualModel

WINDOW = 6  # tokens; shorter than most rows, so that sliding attention is really cut off
ROWS = [list(range(3, 3 + n)) for n in (23, 20, 20, 9, 4, 1)]
SHAPE = {
    "vocab_size": 420,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
DECODER = {**SHAPE, "intermediate_size": 64, "num_key_value_heads": 2}
HEADED = {**DECODER, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", DECODER),
    "Mistral": ("Mistral", {**HEADED, "sliding_window": WINDOW}),
    "Qwen2": (
        "Qwen2",
        {**DECODER, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "Qwen3": ("Qwen3", HEADED),
    # Attention logits are capped in Gemma 2, which only its eager attention can do.
    "Gemma2": ("Gemma2", {**HEADED, "sliding_window": WINDOW, "attn_logit_softcapping": 0.5}),
    "Gemma3": ("Gemma3Text", {**HEADED, "sliding_window": WINDOW}),
    "GPT2": ("GPT2", {"vocab_size": 420, "n_embd": 32, "n_layer": 3, "n_head": 4}),
    "GPTNeoX": ("GPTNeoX", {**SHAPE, "intermediate_size": 64}),
    "Phi3": ("Phi3", {**DECODER, "sliding_window": WINDOW}),
    "Olmo2": ("Olmo2", DECODER),
    "Mixtral": ("Mixtral", {**DECODER, **EXPERTS, "num_local_experts": 4}),
    "Qwen3Moe": (
        "Qwen3Moe",
        {**HEADED, **EXPERTS, "num_experts": 4, "moe_intermediate_size": 32},
    ),
    # Adds a bias by distance that it makes from the padding mask, so it cannot be packed.
    "Bloom": ("Bloom", {"vocab_size": 420, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
}
UNPACKED = {"Bloom"}
# Sums are taken in another order when rows share a matrix product; experts add another two.
ROUNDING = 2e-6


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, "ResidualModel", Any]:
    """Name, our model, and a copy of it that nothing was wrapped around."""
    import torch
    import transformers

    from persona_probe.models.loading import wrap_model
    from persona_probe.models.ref import ModelRef

    prefix, settings = FAMILIES[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**settings)
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # Large enough that attention is far from uniform and a wrong mask shows.
            if parameter.ndim == 2:
                parameter.mul_(6)
    plain = copy.deepcopy(network)
    ours = wrap_model(network, byte_level_tokenizer(CHATML), ModelRef(request.param))
    return request.param, ours, plain


def reference(plain: Any, row: list[int]) -> "list[torch.Tensor]":
    """What each block of the plain model puts out for one sequence, alone."""
    import torch

    body = plain.base_model
    blocks = getattr(body, "layers", None) or body.h
    seen: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output if isinstance(output, torch.Tensor) else output[0])

    handles = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        plain(input_ids=torch.tensor([row]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [resid[0] for resid in seen]


def residuals(model: "ResidualModel", forward: Callable[[], None]) -> "list[torch.Tensor]":
    seen: list[torch.Tensor] = []
    with model.hooks([(site, lambda resid: seen.append(resid)) for site in model.sites]):
        forward()
    return seen


def gap(ours: "torch.Tensor", theirs: "torch.Tensor") -> float:
    """Largest difference of a token's residual, as a share of its norm."""
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


def test_packed_rows_give_the_blocks_outputs_of_each_row_alone(
    family: tuple[str, "ResidualModel", Any],
) -> None:
    from persona_probe.models.packing import pack

    name, ours, plain = family
    assert ours.packs == (name not in UNPACKED)
    if not ours.packs:
        return
    batch = pack(ROWS)
    before = ours.network.config._attn_implementation
    found = residuals(ours, lambda: ours.packed_forward(batch, ours.sites[-1]))
    for start, row in zip(batch.starts, ROWS, strict=True):
        for resid, expected in zip(found, reference(plain, row), strict=True):
            assert gap(resid[0, start : start + len(row)], expected) < ROUNDING
    assert ours.network.config._attn_implementation == before


def test_rows_that_share_a_prompt_go_on_as_each_would_alone(
    family: tuple[str, "ResidualModel", Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the window of those that have one, in prompt and reply."""
    from persona_probe.models import decoding_trial

    name, ours, _ = family
    assert decoding_trial.decodes(ours) == (name not in UNPACKED)
    if name in UNPACKED:
        return
    monkeypatch.setattr(decoding_trial, "PROMPTS", (list(range(3, 14)), list(range(40, 47))))
    monkeypatch.setattr(
        decoding_trial, "NEW", tuple(list(range(k, k + WINDOW + 3)) for k in (50, 60, 70))
    )
    before = ours.network.config._attn_implementation
    assert decoding_trial._agrees(ours)
    assert ours.network.config._attn_implementation == before


def test_padded_rows_give_the_blocks_outputs_of_each_row_alone(
    family: tuple[str, "ResidualModel", Any],
) -> None:
    _, ours, plain = family
    batch = ours.pad(ROWS, "right")
    found = residuals(
        ours,
        lambda: ours.residual_forward(
            batch.ids, batch.attention_mask, batch.position_ids, ours.sites[-1]
        ),
    )
    for n, row in enumerate(ROWS):
        for resid, expected in zip(found, reference(plain, row), strict=True):
            assert gap(resid[n, : len(row)], expected) < ROUNDING


def test_a_row_that_saw_its_neighbour_would_be_noticed(
    family: tuple[str, "ResidualModel", Any],
) -> None:
    """Without the packed attention, the same row is far off: the parity above could fail."""
    import torch

    _, ours, plain = family
    both = torch.tensor([ROWS[1] + ROWS[3]])
    places = torch.tensor([[*range(len(ROWS[1])), *range(len(ROWS[3]))]])
    found = residuals(
        ours,
        lambda: ours.residual_forward(
            both, torch.ones_like(both), places, last_site=ours.sites[-1]
        ),
    )
    expected = reference(plain, ROWS[3])
    assert gap(found[-1][0, len(ROWS[1]) :], expected[-1]) > 100 * ROUNDING


def test_attention_is_as_it_was_after_an_exception(tiny_model: "ResidualModel") -> None:
    from persona_probe.models.packing import pack

    before = tiny_model.network.config._attn_implementation

    def fail(_resid: object) -> None:
        raise ValueError("planted")

    with (
        pytest.raises(ValueError, match="planted"),
        tiny_model.hooks([(tiny_model.sites[0], fail)]),
    ):
        tiny_model.packed_forward(pack(ROWS), tiny_model.sites[-1])
    assert tiny_model.network.config._attn_implementation == before


def test_positions_beyond_the_original_context_are_read_alone() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from persona_probe.models.loading import wrap_model
    from persona_probe.models.ref import ModelRef

    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    torch.manual_seed(0)
    config = LlamaConfig(**DECODER, rope_parameters=rope)
    model = wrap_model(LlamaForCausalLM(config), byte_level_tokenizer(CHATML), ModelRef("dynamic"))
    assert model.short_context == SHAPE["max_position_embeddings"]


@pytest.mark.parametrize("position", ["last_prompt_token", "response_mean", "prompt_mean"])
def test_a_vector_is_trained_on_what_it_is_scored_by(
    family: tuple[str, "ResidualModel", Any], position: str, make_direction: Any
) -> None:
    """The loss that gradients come from, with its own padding and cache, is the scored one."""
    import torch

    from persona_probe.models.chat import Tokens
    from persona_probe.steering.add import Add
    from persona_probe.steering.arm import Arm, Intervention
    from persona_probe.steering.scoring import reply_log_probabilities
    from persona_probe.steering.trained_vector import Lesson

    _, ours, _ = family
    direction = make_direction(layer=1, position=position)
    replies = [slice(len(row) - 1 - number % 3, len(row)) for number, row in enumerate(ROWS[:4])]
    texts = [Tokens(r, s.start, s, (s,)) for r, s in zip(ROWS, replies, strict=False)]
    arm = Arm("steered", (Intervention(direction, Add(4.0, "raw")),))
    arms = [Arm("plain"), arm]
    plain, scored = (-reply_log_probabilities(ours, texts, arms).per_token.mean(dim=1)).tolist()
    vector = (4.0 * direction.unit).requires_grad_(True)
    kept = Lesson.of(ours, direction, texts)
    # What is kept of the prompts is not used up, and makes no difference.
    for lesson in (kept, kept, Lesson.of(ours, direction, texts, keep=False)):
        loss = lesson.nats(ours, direction.site, vector)
        assert float(loss.detach()) == pytest.approx(scored, abs=1e-4)
    assert abs(plain - scored) > 1e-3, "the vector must do something"
    loss.backward()  # type: ignore[no-untyped-call]
    assert vector.grad is not None
    assert bool(torch.isfinite(vector.grad).all())
    assert float(vector.grad.norm()) > 0
