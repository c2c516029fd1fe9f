from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.models.chat import Tokens
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add
from persona_probe.steering.branches import can_branch, tails_as_branches, tails_in_rows
from persona_probe.steering.scoring import (
    next_token_log_probabilities,
    reply_divergences,
    reply_log_probabilities,
)
from persona_probe.steering.steer import Arm, Intervention, steer


@pytest.fixture
def arms(make_direction: Any) -> list[Arm]:
    add = Intervention(make_direction(layer=1, seed=1), Add(1.5))
    prompt = Intervention(make_direction(layer=0, seed=2), Add(1.0), "prompt")
    ablate = Intervention(make_direction(seed=3), Ablate(), "both", (Site(0), Site(1)))
    response = Intervention(make_direction(seed=4), Add(1.0), "response")
    return [
        Arm("plain"),
        Arm("last", (add,)),
        Arm("prompt", (prompt,)),
        Arm("ablate", (ablate, add)),
        Arm("response", (response,)),
        Arm("tuned", (add,), "tuned"),
    ]


@pytest.fixture
def replied(conversations: Any) -> list[Any]:
    replies = ["Yes, gladly.", "I will not help with that, because it would harm a person.", "No."]
    return [c.with_reply(r) for c, r in zip(conversations[:3], replies, strict=True)]


def forward(model: Any, tokens: Tokens, arm: Arm) -> torch.Tensor:
    """Log-probabilities [pos vocab] of one unpadded sequence, steered by the context manager."""
    row = torch.tensor([tokens.ids])
    positions = torch.arange(len(tokens.ids))[None]
    length = torch.tensor([tokens.prompt_length])
    with (
        torch.no_grad(),
        model.adapter(arm.adapter),
        steer(model, arm.interventions, positions, length),
    ):
        logits = model.logits(row, torch.ones_like(row), positions)
    return logits[0].float().log_softmax(dim=-1)


def test_reply_scores_equal_one_sequence_at_a_time(
    tiny_model: Any, replied: Any, arms: Any
) -> None:
    found = reply_log_probabilities(tiny_model, replied, arms, batch_tokens=200)
    for e, conversation in enumerate(replied):
        tokens = tiny_model.encode(conversation, add_generation_prompt=False)
        span = tokens.response
        assert found.n_tokens[e] == span.stop - span.start
        for a, arm in enumerate(arms):
            log_p = forward(tiny_model, tokens, arm)
            expected = sum(log_p[i - 1, tokens.ids[i]] for i in range(span.start, span.stop))
            assert found.log_probability[a, e] == pytest.approx(float(expected), abs=2e-4)
    assert len({round(v, 3) for v in found.log_probability[:, 1].tolist()}) == len(arms)
    assert torch.equal(found.per_token, found.log_probability / found.n_tokens)


def test_next_tokens_equal_one_sequence_at_a_time(
    tiny_model: Any, conversations: Any, arms: Any
) -> None:
    ids = [5, 50, 300]
    found = next_token_log_probabilities(tiny_model, conversations, arms, ids, batch_tokens=150)
    for e, conversation in enumerate(conversations):
        tokens = tiny_model.encode(conversation, add_generation_prompt=True)
        for a, arm in enumerate(arms):
            expected = forward(tiny_model, tokens, arm)[-1, ids]
            torch.testing.assert_close(found[a, e], expected, atol=1e-4, rtol=0)
    # What is done to the reply cannot change its first token; all else does.
    torch.testing.assert_close(found[4], found[0], atol=1e-5, rtol=0)
    for a in (1, 2, 3, 5):
        assert (found[a] - found[0]).abs().max() > 0.01


def test_a_prompt_may_hold_the_beginning_of_a_reply(
    tiny_model: Any, replied: Any, arms: Any
) -> None:
    whole = [tiny_model.encode(c, add_generation_prompt=False) for c in replied]
    for beginning in (1, 2):
        begun = [
            Tokens(t.ids[: t.prompt_length + beginning], t.prompt_length, None, ()) for t in whole
        ]
        found = next_token_log_probabilities(tiny_model, begun, arms, [7, 70])
        for e, tokens in enumerate(begun):
            for a, arm in enumerate(arms):
                expected = forward(tiny_model, tokens, arm)[-1, [7, 70]]
                torch.testing.assert_close(found[a, e], expected, atol=1e-4, rtol=0)
        assert (found[4] - found[0]).abs().max() > 0.01


def test_strength_zero_scores_as_nothing_does_bit_for_bit(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    tokens = [tiny_model.encode(c, add_generation_prompt=True) for c in conversations]
    for run, schedule in [(tails_in_rows, "both"), (tails_as_branches, "last_prompt_token")]:
        plain, nothing, something = (
            run(
                tiny_model,
                tokens,
                [(Intervention(make_direction(), add, schedule),)] if add else [()],
            )
            for add in (None, Add(0.0), Add(1.0))
        )
        assert torch.equal(nothing.logits, plain.logits)
        assert not torch.allclose(something.logits, plain.logits, atol=1e-2)


def test_branches_of_one_prompt_equal_rows_of_their_own(
    tiny_folders: Path, conversations: Any, make_direction: Any
) -> None:
    model = load_model(ModelRef(str(tiny_folders)))
    replied = [c.with_reply(" Yes, gladly." * n) for n, c in enumerate(conversations, start=1)]
    tokens = [model.encode(c, add_generation_prompt=False) for c in replied]
    arms = [
        (),
        (Intervention(make_direction(seed=1), Add(1.0)),),
        (Intervention(make_direction(seed=2), Add(1.0), "response"),),
        (Intervention(make_direction(seed=3), Ablate(1.0), None, (Site(0), Site(2))),),
    ]
    assert can_branch(model, tokens)
    rows = tails_in_rows(model, tokens, arms)
    branches = tails_as_branches(model, tokens, arms)
    n_compared = 0
    for row, t in enumerate(t for t in tokens for _ in arms):
        for position in range(t.prompt_length - 1, len(t.ids)):
            at = int((rows.positions[row] == position).int().argmax())
            expected = rows.logits[row, at]
            found = branches.logits[row, position - t.prompt_length + 1]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
            n_compared += 1
    assert n_compared == len(arms) * sum(len(t.ids) - t.prompt_length + 1 for t in tokens)
    assert (branches.logits[0] - branches.logits[1]).abs().max() > 0.01


def test_a_model_that_cannot_branch_is_scored_in_rows(
    tiny_llama_folder: Path, conversations: Any, arms: Any
) -> None:
    model = load_model(ModelRef(str(tiny_llama_folder)))
    expected = next_token_log_probabilities(model, conversations, arms, [3, 4])
    # Attention over a window reads another mask than the one that separates branches.
    model.network.config.sliding_window = 8
    tokens = [model.encode(c, add_generation_prompt=True) for c in conversations]
    assert not can_branch(model, tokens)
    found = next_token_log_probabilities(model, conversations, arms, [3, 4])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_divergence_is_zero_from_itself_and_positive_from_others(
    tiny_model: Any, replied: Any, arms: Any
) -> None:
    found = reply_divergences(tiny_model, replied, arms, Arm("reference"), batch_tokens=300)
    assert found.first_token[0].abs().max() < 1e-6
    assert found.per_token[0].abs().max() < 1e-6
    assert (found.per_token[1:] > 1e-4).all()
    # The first reply token is predicted from the prompt.
    assert found.first_token[4].abs().max() < 1e-6
    assert (found.first_token[[1, 2, 3, 5]] > 1e-4).all()
    tokens = tiny_model.encode(replied[0], add_generation_prompt=False)
    before, after = (forward(tiny_model, tokens, arm) for arm in (arms[0], arms[3]))
    reach = slice(tokens.response.start - 1, tokens.response.stop - 1)
    kl = (before.exp() * (before - after)).sum(dim=-1)[reach]
    assert found.per_token[3, 0] == pytest.approx(float(kl.mean()), abs=1e-5)
    assert found.first_token[3, 0] == pytest.approx(float(kl[0]), abs=1e-5)


def test_divergence_is_zero_from_the_same_adapter(tiny_model: Any, replied: Any) -> None:
    arms = [Arm("bare"), Arm("tuned", adapter="tuned")]
    found = reply_divergences(tiny_model, replied, arms, Arm("reference", adapter="tuned"))
    assert found.per_token[1].abs().max() < 1e-6
    assert (found.per_token[0] > 1e-3).all()


def test_a_conversation_without_a_reply_is_refused(tiny_model: Any, conversations: Any) -> None:
    with pytest.raises(RequestError, match="'p0' does not end with a reply"):
        reply_log_probabilities(tiny_model, conversations, [Arm("plain")])


def test_nothing_to_score_gives_empty_tables(tiny_model: Any, arms: Any) -> None:
    assert next_token_log_probabilities(tiny_model, [], arms, [1, 2]).shape == (len(arms), 0, 2)
    assert reply_log_probabilities(tiny_model, [], arms).per_token.shape == (len(arms), 0)


def test_sequences_read_from_where_arms_part_score_as_rows_of_their_own(
    tiny_model: Any, make_direction: Any
) -> None:
    """Arms of every depth, on replies of different length, with a condition and a patch."""
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.models.site import Site
    from persona_probe.steering import Ablate, Add, Patch
    from persona_probe.steering.arm import Intervention
    from persona_probe.steering.branches import tails_from_sites, tails_in_rows
    from persona_probe.steering.condition import Condition

    said = ["Yes.", "No, and I would rather not say why.", "Perhaps."]
    tokens = [
        tiny_model.encode(
            Conversation((Message("user", f"Why, {word}?"), Message("assistant", word))),
            add_generation_prompt=False,
        )
        for word in said
    ]
    assert len({len(t) - t.prompt_length for t in tokens}) > 1
    deep, mid, low = (make_direction(layer=layer, seed=layer) for layer in (2, 1, 0))
    switch = Condition(low, 0.0, "prompt_mean", "raw")
    patch = Patch.read(tiny_model, tokens, mid, adapter="tuned")
    arms = [
        (),
        (Intervention(deep, Add(2.0), "both"),),
        (Intervention(mid, Add(2.0), "prompt"), Intervention(deep, Ablate(), "response")),
        (Intervention(low, Ablate(1.0), "both", (Site(0), Site(2))),),
        (Intervention(mid, Add(2.0), "both", None, switch),),
        (Intervention(mid, patch, "both"),),
    ]
    rows, parted = (run(tiny_model, tokens, arms) for run in (tails_in_rows, tails_from_sites))
    for number in range(len(tokens) * len(arms)):
        start = tokens[number // len(arms)].prompt_length - 1
        one, other = (t.positions[number] >= start for t in (rows, parted))
        assert rows.ids[number][one].equal(parted.ids[number][other])
        expected, found = rows.logits[number][one], parted.logits[number][other]
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    steered = rows.logits.view(len(tokens), len(arms), *rows.logits.shape[1:])
    assert all((steered[:, a] - steered[:, 0]).abs().max() > 1e-2 for a in (1, 2, 3, 5))
