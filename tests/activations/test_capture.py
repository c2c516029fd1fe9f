from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from persona_probe.models.chat import Conversation

POSITIONS = ["last_prompt_token", "response_mean", "prompt_mean"]
# Float32 sums in another order: padding changes the shapes of matrix products, and a mean over up
# to 60 tokens of size 10 is off by a few units in the last place. One wrong token is off by > 0.1.
CLOSE = 1e-4


@pytest.fixture(scope="module")
def conversations() -> list["Conversation"]:
    """Replies and prompts of very different length, in no order."""
    from persona_probe.models.chat import Conversation, Message

    rows = [("Hi", "Yes."), ("Please help me " * 6, "No, I will not."), ("Why?", "Because " * 9)]
    rows += [(f"Tell me about {i} things" + "!" * (3 * i), "So " * (7 - i)) for i in range(6)]
    return [
        Conversation(
            (Message("user", prompt), Message("assistant", reply)),
            id=f"c{i}",
            label="kind" if i % 2 else "blunt",
            family=f"f{i // 3}",
        )
        for i, (prompt, reply) in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def model(tiny_folders: Path) -> Any:
    from persona_probe.models.loading import load_model

    return load_model(str(tiny_folders))


def reference(folder: Path, model: Any, conversation: Any, adapter: str | None) -> dict[str, Any]:
    """Plain transformers, one conversation, every block's output, pooled by hand: [site, d]."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    body = network.base_model
    blocks = body.layers if hasattr(body, "layers") else body.h
    outputs: list[Any] = []
    for block in blocks:
        block.register_forward_hook(
            lambda _m, _i, out: outputs.append((out[0] if isinstance(out, tuple) else out)[0])
        )
    if adapter is not None:
        network = PeftModel.from_pretrained(network, folder / "adapters" / adapter).eval()
    tokens = model.encode(conversation, add_generation_prompt=False)
    with torch.no_grad():
        network(input_ids=torch.tensor([tokens.ids]))
    resid = torch.stack(outputs).double()
    reply = range(tokens.response.start, tokens.response.stop)
    return {
        "last_prompt_token": resid[:, tokens.prompt_length - 1],
        "prompt_mean": resid[:, : tokens.prompt_length].mean(dim=1),
        "response_mean": torch.stack([resid[:, i] for i in reply]).mean(dim=0),
    }


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("adapter", [None, "tuned"])
def test_capture_equals_plain_transformers(
    tiny_folders: Path, model: Any, conversations: list["Conversation"], adapter: str | None
) -> None:
    from persona_probe.activations.capture import capture

    found = capture(model, conversations, model.sites, POSITIONS, adapter=adapter)
    for i in (0, 1, 5):
        expected = reference(tiny_folders, model, conversations[i], adapter)
        for position in POSITIONS:
            got = found[position].values[i]
            assert got.shape == (3, 32)
            assert (got - expected[position]).abs().max() <= CLOSE


def test_batching_and_order_change_nothing(model: Any, conversations: list["Conversation"]) -> None:
    from persona_probe.activations.capture import capture

    one_by_one = capture(model, conversations, model.sites, POSITIONS, batch_tokens=1)
    for budget in (60, 200, 100_000):
        together = capture(model, conversations, model.sites, POSITIONS, batch_tokens=budget)
        back = capture(model, conversations[::-1], model.sites, POSITIONS, batch_tokens=budget)
        for position in POSITIONS:
            expected = one_by_one[position].values
            assert (together[position].values - expected).abs().max() <= CLOSE
            assert (back[position].values.flip(0) - expected).abs().max() <= CLOSE
            assert back[position].ids == together[position].ids[::-1]


def test_what_is_known_comes_along(tiny_model: Any, conversations: list["Conversation"]) -> None:
    from persona_probe.activations.capture import capture
    from persona_probe.models.site import Site

    found = capture(tiny_model, conversations, [Site(2), Site(0)], ["prompt_mean"])["prompt_mean"]
    assert found.sites == (Site(0), Site(2))
    assert found.ids == tuple(f"c{i}" for i in range(9))
    assert found.labels[:2] == ("blunt", "kind")
    assert found.families == ("f0",) * 3 + ("f1",) * 3 + ("f2",) * 3
    assert found.texts is not None
    assert found.texts[0] == "Hi\nYes."
    about = found.provenance
    assert (about.model, about.adapter, about.positions) == ("tiny-llama", None, "prompt_mean")
    assert about.model_hash == tiny_model.model_hash
    assert about.chat_template_hash == tiny_model.chat_template_hash


def test_before_and_after_read_the_same_tokens_in_one_load(
    tiny_model: Any, conversations: list["Conversation"]
) -> None:
    from persona_probe.activations.capture import capture, capture_adapters

    found = capture_adapters(
        tiny_model, conversations, tiny_model.sites, ["response_mean"], [None, "tuned", "other"]
    )
    before, after = found[None]["response_mean"], found["tuned"]["response_mean"]
    assert (before.values - after.values).abs().max() > 0.1
    assert before.provenance.prompts_hash == after.provenance.prompts_hash
    assert before.provenance.model_hash == after.provenance.model_hash
    assert (before.provenance.adapter, after.provenance.adapter) == (None, "tuned")
    alone = capture(tiny_model, conversations, tiny_model.sites, ["response_mean"], "tuned")
    assert alone["response_mean"].values.equal(after.values)
    assert tiny_model.active_adapter is None


def test_without_an_adapter_named_the_model_is_read_as_it_is(
    tiny_model: Any, conversations: list["Conversation"]
) -> None:
    from persona_probe.activations.capture import capture

    arguments = (tiny_model, conversations[:2], tiny_model.sites, ["prompt_mean"])
    with tiny_model.adapter("tuned"):
        as_it_is = capture(*arguments)["prompt_mean"]
        bare = capture(*arguments, adapter=None)["prompt_mean"]
    assert as_it_is.provenance.adapter == "tuned"
    assert bare.provenance.adapter is None
    assert not as_it_is.values.equal(bare.values)


def test_steering_is_seen(tiny_model: Any, conversations: list["Conversation"]) -> None:
    """Reading inside a steering context reads the steered residual: shifted by exactly as much."""
    import torch

    from persona_probe.activations.capture import capture
    from persona_probe.models.site import Site

    shift = torch.randn(32, generator=torch.Generator().manual_seed(0))
    arguments = (tiny_model, conversations, [Site(1)], POSITIONS)
    plain = capture(*arguments)
    with tiny_model.hooks([(Site(1), lambda resid: resid + shift)]):
        steered = capture(*arguments)
    for position in POSITIONS:
        moved = steered[position].values - plain[position].values
        assert (moved - shift).abs().max() <= CLOSE


def test_a_prompt_is_read_where_its_reply_would_begin(tiny_model: Any) -> None:
    from persona_probe.activations.capture import capture
    from persona_probe.models.chat import Conversation, Message

    prompt = Conversation((Message("user", "Would you help?"),))
    arguments = (tiny_model.sites, ["last_prompt_token"])
    alone = capture(tiny_model, [prompt], *arguments)["last_prompt_token"]
    answered = capture(tiny_model, [prompt.with_reply("No.")], *arguments)["last_prompt_token"]
    assert (alone.values - answered.values).abs().max() <= CLOSE
    assert alone.ids == ("0",)


def test_wrong_requests_are_one_sentence(
    tiny_model: Any, conversations: list["Conversation"]
) -> None:
    from persona_probe.activations.capture import capture
    from persona_probe.errors import RequestError, SiteMismatchError
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.models.site import Site

    prompt = Conversation((Message("user", "Hi"),), id="mine")
    long = Conversation((Message("user", "why? " * 300),), id="long")
    sites = tiny_model.sites
    wrong: list[tuple[Any, Any, Any, str]] = [
        ([prompt], sites, ["response_mean"], "'mine' has no tokens at position 'response_mean'"),
        ([prompt, long], sites, ["prompt_mean"], "'long' has .* tokens, the context .* is 256"),
        ([prompt], sites, ["mean"], "choose from last_prompt_token"),
        ([], sites, ["prompt_mean"], "nothing to capture"),
        ([prompt], [], ["prompt_mean"], "nothing to capture"),
    ]
    for chosen, where, positions, said in wrong:
        with pytest.raises(RequestError, match=said):
            capture(tiny_model, chosen, where, positions)
    with pytest.raises(SiteMismatchError, match="no layer 9"):
        capture(tiny_model, [prompt], [Site(9)], ["prompt_mean"])


def test_what_is_not_a_number_is_named_and_nothing_stays_hooked(
    tiny_model: Any, conversations: list["Conversation"]
) -> None:
    from persona_probe.activations.capture import capture
    from persona_probe.errors import PersonaProbeError
    from persona_probe.models.site import Site

    def spoil(resid: Any) -> Any:
        resid = resid.clone()
        resid[0, 0, 0] = float("nan")
        return resid

    with (
        tiny_model.hooks([(Site(1), spoil)]),
        pytest.raises(PersonaProbeError, match="'c1' at layer 1 are NaN"),
    ):
        capture(tiny_model, conversations[1:2], tiny_model.sites, ["prompt_mean"])
    assert sum(len(m._forward_hooks) for m in tiny_model.network.modules()) == 0


def test_no_residuals_are_kept(tiny_model: Any, conversations: list["Conversation"]) -> None:
    """Neither logits nor a cache are made: the head never runs, and no cache is asked for."""
    from persona_probe.activations.capture import capture
    from persona_probe.models.site import Site

    calls: list[Any] = []

    def note(_module: Any, _args: Any, kwargs: Any) -> None:
        calls.append(kwargs.get("past_key_values"))

    last = tiny_model.bridge.blocks[2].register_forward_pre_hook(note, with_kwargs=True)
    first = tiny_model.bridge.blocks[0].register_forward_pre_hook(note, with_kwargs=True)
    try:
        capture(tiny_model, conversations[:1], [Site(1)], ["prompt_mean"])
    finally:
        last.remove()
        first.remove()
    assert calls == [None], "the first block ran without a cache, the last not at all"


def test_half_precision_is_pooled_in_float32(
    tiny_llama_folder: Path, tiny_model: Any, conversations: list["Conversation"]
) -> None:
    import torch

    from persona_probe.activations.capture import capture
    from persona_probe.models.loading import load_model

    half = load_model(str(tiny_llama_folder), dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    rough = capture(half, conversations, half.sites, ["prompt_mean"], "tuned")["prompt_mean"]
    exact = capture(tiny_model, conversations, half.sites, ["prompt_mean"], "tuned")["prompt_mean"]
    assert rough.values.dtype == torch.float32
    # bfloat16 keeps 8 bits: residuals of three blocks agree to about a hundredth of their norm.
    error = (rough.values - exact.values).norm(dim=-1) / exact.values.norm(dim=-1)
    assert error.max() < 0.03


def test_a_model_that_cannot_pack_is_read_in_padded_batches(
    model: Any, conversations: list["Conversation"], monkeypatch: pytest.MonkeyPatch
) -> None:
    from persona_probe.activations.capture import capture

    packed = capture(model, conversations, model.sites, POSITIONS)
    monkeypatch.setitem(model.__dict__, "packs", False)
    padded = capture(model, conversations, model.sites, POSITIONS)
    for position in POSITIONS:
        assert (packed[position].values - padded[position].values).abs().max() <= CLOSE


def test_out_of_memory_halves_the_batches_and_goes_on(
    tiny_model: Any, conversations: list["Conversation"], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from persona_probe.activations.capture import capture
    from persona_probe.models.site import Site

    expected = capture(tiny_model, conversations, tiny_model.sites, POSITIONS)
    seen = []

    def at_most_100_tokens(resid: Any) -> None:
        seen.append(resid.shape[1])
        if resid.shape[1] > 100:
            raise torch.OutOfMemoryError("planted")

    with tiny_model.hooks([(Site(0), at_most_100_tokens)]):
        found = capture(tiny_model, conversations, tiny_model.sites, POSITIONS)
    assert max(seen) > 100 >= seen[-1]
    assert "out of memory" in capsys.readouterr().err
    for position in POSITIONS:
        gap = (found[position].values - expected[position].values).abs().max()
        assert gap <= CLOSE


def test_one_conversation_that_does_not_fit_is_named(
    tiny_model: Any, conversations: list["Conversation"]
) -> None:
    import torch

    from persona_probe.activations.capture import capture
    from persona_probe.errors import PersonaProbeError
    from persona_probe.models.site import Site

    def never(_resid: Any) -> None:
        raise torch.OutOfMemoryError("planted")

    with (
        tiny_model.hooks([(Site(0), never)]),
        pytest.raises(
            PersonaProbeError, match=r"conversation 'c\d' alone, \d+ tokens, does not fit"
        ),
    ):
        capture(tiny_model, conversations, tiny_model.sites, POSITIONS)


def test_several_rows_of_one_conversation(tiny_model: Any) -> None:
    import torch

    from persona_probe.activations.capture import capture
    from persona_probe.models.chat import Conversation, Message

    said = ("Hi", "Yes.", "Why?", "Because I am.")
    roles = ("user", "assistant", "user", "assistant")
    talk = Conversation(tuple(map(Message, roles, said)), id="talk", label="x", family="f")
    short = Conversation((Message("user", "Hi"), Message("assistant", "No.")), id="short")
    positions = ["all_tokens", "assistant_turns", "response_mean"]
    found = capture(tiny_model, [talk, short], tiny_model.sites, positions)
    turns, tokens = found["assistant_turns"], found["all_tokens"]
    assert turns.ids == ("talk#0", "talk#1", "short")
    assert turns.labels == ("x", "x", "")
    assert turns.texts is not None
    assert [text.strip() for text in turns.texts[:2]] == ["Yes.", "Because I am."]
    encoded = tiny_model.encode(talk, add_generation_prompt=False)
    assert len(tokens) == len(encoded) + len(tiny_model.encode(short, add_generation_prompt=False))
    assert tokens.texts is not None
    assert "".join(tokens.texts[: len(encoded)]) == encoded.text
    last = encoded.assistant_turns[1]
    by_hand = tokens.values[last.start : last.stop].mean(dim=0)
    torch.testing.assert_close(turns.values[1], by_hand)
    torch.testing.assert_close(found["response_mean"].values[0], by_hand)


def test_long_conversations_are_skipped_or_cut_only_when_asked(tiny_model: Any) -> None:
    from persona_probe.activations.capture import capture
    from persona_probe.activations.reading import read
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Conversation, Message

    short = Conversation((Message("user", "Hi"), Message("assistant", "No.")), id="short")
    long = Conversation((Message("user", "why? " * 300), Message("assistant", "No.")), id="long")
    positions = ["response_mean"]
    skipped = read(tiny_model, [short, long], positions, too_long="skip")
    assert len(skipped) == 1
    assert "'long' has" in skipped.left_out[0]
    cut = read(tiny_model, [short, long], positions, too_long="truncate")
    assert cut.lengths[1] == tiny_model.context_length
    whole = tiny_model.encode(long, add_generation_prompt=False)
    assert cut.ids[1].tolist() == [whole.ids[0], *whole.ids[-255:]]
    gone = len(whole) - tiny_model.context_length
    assert cut.rows["response_mean"][1].metadata == {"truncated": gone}
    group = cut.groups["response_mean"][1][0][0]
    assert cut.ids[1][group].tolist() == whole.ids[whole.response]  # type: ignore[index]
    assert len(capture(tiny_model, cut, tiny_model.sites)["response_mean"]) == 2
    with pytest.raises(RequestError, match="every conversation was left out"):
        read(tiny_model, [long], positions, too_long="skip")
    with pytest.raises(RequestError, match="no tokens at position 'prompt_mean' once it is cut"):
        read(tiny_model, [long.with_reply("so " * 300)], ["prompt_mean"], too_long="truncate")
