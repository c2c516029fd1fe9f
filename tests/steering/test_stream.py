from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.steering import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.dialogue import Dialogue, Manner
from persona_probe.steering.generation import generate
from persona_probe.steering.stream import stream

SCHEDULES = ["prompt", "last_prompt_token", "response", "both"]


def arms(direction: Any, schedule: str, adapter: str | None = None) -> list[Arm]:
    added = Intervention(direction, Add(1.5), schedule)
    return [Arm("unsteered", adapter=adapter), Arm("steered", (added,), adapter)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_tokens_are_those_of_generate(
    schedule: str, tiny_folders: Path, conversations: Any, make_direction: Any
) -> None:
    model = load_model(ModelRef(str(tiny_folders)))
    direction = make_direction(layer=1)
    both = arms(direction, schedule, "tuned")
    # Some token in the middle of the first reply ends replies from now on, the first one at least.
    model.end_ids = ()
    model.end_ids = (generate(model, conversations[:1], both, 12)[0].token_ids[3],)
    finished = []
    for conversation in conversations:
        expected = generate(model, [conversation], both, 12)
        found = list(stream(model, [(conversation, arm) for arm in both], direction, 12))
        for row, reply in enumerate(expected):
            assert tuple(p.token_id for p in found if p.row == row) == reply.token_ids
            assert "".join(p.text for p in found if p.row == row) == reply.text.rstrip("\ufffd")
        finished.append(expected[0].finished)
    assert finished[0]


def test_a_projection_is_that_of_the_token_after_steering(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    both = arms(direction, "both")
    found = list(stream(tiny_model, [(conversations[0], arm) for arm in both], direction, 6))
    for row, added in ((0, 0.0), (1, 1.5 * direction.norm)):
        pieces = [p for p in found if p.row == row]
        prompt = tiny_model.encode(conversations[0], add_generation_prompt=True).ids
        ids = torch.tensor([[*prompt, *(p.token_id for p in pieces)]])
        seen: list[torch.Tensor] = []
        with tiny_model.hooks([(direction.site, seen.append)]):
            tiny_model.logits(ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None])
        expected = seen[0][0, len(prompt) :] @ direction.unit + added
        assert [p.projection for p in pieces] == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_reader_may_stop_and_use_the_model_in_between(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    turns = [(conversations[0], arm) for arm in arms(direction, "both", "tuned")]
    alone = list(stream(tiny_model, turns, direction, 5))
    ids = torch.tensor([[5, 6, 7]])

    def plain() -> torch.Tensor:
        return tiny_model.logits(ids, torch.ones_like(ids), torch.arange(3)[None])

    before, found = plain(), []
    for piece in stream(tiny_model, turns, direction, 5):
        found.append(piece)
        assert torch.equal(plain(), before)
        assert tiny_model.active_adapter is None
    assert found == alone
    next(stream(tiny_model, turns, direction, 5))
    assert torch.equal(plain(), before)


def test_samples_are_shared_by_rows_that_are_alike(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    direction = make_direction(layer=1)
    nothing = Arm("nothing", (Intervention(direction, Add(0.0), "both"),))
    turns = [(conversations[0], Arm("plain")), (conversations[0], nothing)]

    def tokens(seed: int) -> list[list[int]]:
        found = list(stream(tiny_model, turns, direction, 10, temperature=1.0, seed=seed))
        return [[p.token_id for p in found if p.row == row] for row in (0, 1)]

    first = tokens(0)
    assert first[0] == first[1]
    assert tokens(0) == first != tokens(1)


def test_both_sides_hear_the_same_and_remember_their_own(
    tiny_model: Any, make_direction: Any
) -> None:
    manner = Manner(system="You are kind.", schedule="both", max_new_tokens=6)
    dialogue = Dialogue(tiny_model, make_direction(layer=1), 2.0, manner)
    list(dialogue.say("Tell the truth."))
    pieces = list(dialogue.say("How do I repair a tyre?"))
    for side in (0, 1):
        messages = dialogue.history(side)
        assert [m.role for m in messages] == ["system", *["user", "assistant"] * 2]
        assert [m.content for m in messages[1::2]] == [
            "Tell the truth.",
            "How do I repair a tyre?",
        ]
        assert messages[-1].content.rstrip("\ufffd") == "".join(
            p.text for p in pieces if p.row == side
        )
    assert dialogue.history(0)[2] != dialogue.history(1)[2]
    dialogue.reset()
    assert [m.role for m in dialogue.history(1)] == ["system"]


def test_an_interrupted_turn_is_forgotten(tiny_model: Any, make_direction: Any) -> None:
    dialogue = Dialogue(tiny_model, make_direction(layer=1), 2.0, Manner(max_new_tokens=6))
    pieces = dialogue.say("Tell the truth.")
    next(pieces)
    pieces.close()
    assert dialogue.history(0) == dialogue.history(1) == ()


def test_another_strength_changes_the_next_reply(tiny_model: Any, make_direction: Any) -> None:
    manner = Manner(schedule="both", max_new_tokens=6)

    def steered(strength: float) -> list[int]:
        dialogue = Dialogue(tiny_model, make_direction(layer=1), 5.0, manner)
        dialogue.steer_with(strength)
        found = list(dialogue.say("Tell the truth."))
        assert dialogue.strength == strength
        return [p.token_id for p in found if p.row == 1]

    dialogue = Dialogue(tiny_model, make_direction(layer=1), 5.0, manner)
    plain = [p.token_id for p in dialogue.say("Tell the truth.") if p.row == 0]
    assert steered(0.0) == plain != steered(5.0)
    with pytest.raises(RequestError, match="finite"):
        dialogue.steer_with(float("nan"))
    assert dialogue.strength == 5.0


def test_requests_that_make_no_sense(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    direction, first = make_direction(), conversations[0]
    for turns, room, temperature, words in [
        ([], 4, 0.0, "no conversation"),
        ([(first, Arm("a"))], 0, 0.0, "max_new_tokens must be at least 1"),
        ([(first, Arm("a"))], 4, -1.0, "temperature at least 0"),
        ([(first, Arm("a")), (first, Arm("b", adapter="tuned"))], 4, 0.0, "different adapters"),
        ([(first.with_reply("Yes."), Arm("a"))], 4, 0.0, "'p0' ends with a reply"),
        ([(first, Arm("a"))], 1000, 0.0, "reads 256"),
    ]:
        with pytest.raises(RequestError, match=words):
            list(stream(tiny_model, turns, direction, room, temperature))
    with pytest.raises(SiteMismatchError):
        list(stream(tiny_model, [(first, Arm("a"))], make_direction(layer=9), 4))
    with pytest.raises(RequestError, match="say something"):
        list(Dialogue(tiny_model, direction, 1.0).say("  "))
