import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.errors import RequestError, SiteMismatchError
from persona_probe.models.chat import Conversation, Message
from persona_probe.models.loading import load_model
from persona_probe.models.ref import ModelRef
from persona_probe.models.site import Site
from persona_probe.steering import Ablate, Add
from persona_probe.steering.generation import Arm, generate
from persona_probe.steering.steer import Intervention

ROOM = 8
SCHEDULES = ["prompt", "last_prompt_token", "response", "both"]


def sweep(make_direction: Any, adapter: str | None = None) -> list[Arm]:
    """Arms of every kind: other sites, strengths, operations, schedules, several at once."""
    arms = [Arm("plain", adapter=adapter)]
    for schedule in SCHEDULES:
        add = Intervention(make_direction(layer=1, seed=1), Add(1.5), schedule)
        ablate = Intervention(
            make_direction(layer=0, seed=2), Ablate(2.0), schedule, (Site(0), Site(2))
        )
        arms.append(Arm(f"add {schedule}", (add,), adapter))
        arms.append(Arm(f"ablate {schedule}", (ablate,), adapter))
        arms.append(Arm(f"both {schedule}", (add, ablate), adapter))
    clean = Intervention(make_direction(layer=1, seed=1), Ablate(1.0), "both")
    shove = Intervention(make_direction(layer=1, seed=1), Add(1.0), "prompt")
    arms += [
        Arm("first clean", (clean, shove), adapter),
        Arm("last clean", (shove, clean), adapter),
    ]
    return arms


def slow_reference(model: Any, conversation: Any, arm: Arm) -> list[int]:
    """Greedy decoding that recomputes the whole sequence and steers it by explicit indices."""
    prompt = model.encode(conversation, add_generation_prompt=True).ids
    ids = list(prompt)

    def touched(schedule: str) -> range:
        n = len(prompt)
        return {
            "prompt": range(n),
            "last_prompt_token": range(n - 1, n),
            "response": range(n, len(ids)),
            "both": range(len(ids)),
        }[schedule]

    def hook(site: Site) -> Any:
        def change(resid: torch.Tensor) -> torch.Tensor:
            resid = resid.clone()
            for i in arm.interventions:
                if site not in i.where:
                    continue
                unit = i.direction.unit
                for position in touched(i.when):
                    if isinstance(i.operation, Add):
                        resid[0, position] += i.operation.strength * i.direction.norm * unit
                    else:
                        level = i.operation.level - resid[0, position] @ unit
                        resid[0, position] += level * unit
            return resid

        return change

    sites = sorted({site for i in arm.interventions for site in i.where})
    with torch.no_grad(), model.adapter(arm.adapter):
        while len(ids) < len(prompt) + ROOM:
            row = torch.tensor([ids])
            positions = torch.arange(len(ids))[None]
            with model.hooks([(site, hook(site)) for site in sites]):
                logits = model.logits(row, torch.ones_like(row), positions)
            token = int(logits[0, -1].argmax())
            if token in model.end_ids:
                break
            ids.append(token)
    return ids[len(prompt) :]


def tokens(completions: Sequence[Any]) -> dict[tuple[str, str, int], tuple[int, ...]]:
    return {(c.arm, c.conversation_id, c.sample): c.token_ids for c in completions}


def test_a_batch_of_arms_equals_a_slow_reference(
    tiny_folders: Path, conversations: Any, make_direction: Any
) -> None:
    model = load_model(ModelRef(str(tiny_folders)))
    arms = sweep(make_direction)
    found = tokens(generate(model, conversations, arms, ROOM))
    for arm in arms:
        for conversation in conversations:
            expected = slow_reference(model, conversation, arm)
            assert list(found[arm.name, conversation.id, 0]) == expected, arm.name
    assert any(found["first clean", c.id, 0] != found["last clean", c.id, 0] for c in conversations)
    plain = {c.id: found["plain", c.id, 0] for c in conversations}
    for arm in arms[1:]:
        assert any(found[arm.name, c.id, 0] != plain[c.id] for c in conversations), arm.name


def test_an_adapter_belongs_to_its_arm(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    arms = [
        dataclasses.replace(arm, name=f"{arm.name} {adapter}")
        for adapter in (None, "tuned", "other")
        for arm in sweep(make_direction, adapter)[:5]
    ]
    found = tokens(generate(tiny_model, conversations[:2], arms, ROOM))
    for arm in arms:
        for conversation in conversations[:2]:
            expected = slow_reference(tiny_model, conversation, arm)
            assert list(found[arm.name, conversation.id, 0]) == expected, arm.name
    assert found["plain None", "p0", 0] != found["plain tuned", "p0", 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_arm_gives_the_same_tokens_alone_or_among_others(
    temperature: float, tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    arms = sweep(make_direction)
    options = {
        "max_new_tokens": ROOM,
        "temperature": temperature,
        "n_samples": 2 if temperature else 1,
        "seed": 5,
    }
    together = tokens(generate(tiny_model, conversations, arms, **options))
    in_small_batches = tokens(
        generate(tiny_model, conversations, arms, batch_tokens=120, **options)
    )
    assert in_small_batches == together
    for arm in arms[::4]:
        for conversation in conversations:
            alone = tokens(generate(tiny_model, [conversation], [arm], **options))
            assert alone == {key: together[key] for key in alone}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_leave_take_nothing_from_those_that_stay(
    temperature: float, tiny_llama_folder: Path, conversations: Any, make_direction: Any
) -> None:
    model = load_model(ModelRef(str(tiny_llama_folder)))
    # A sixth of the vocabulary ends a reply, so that rows leave at every step.
    model.end_ids = tuple(range(0, len(model.tokenizer), 6))
    arms = sweep(make_direction)
    together = generate(model, conversations, arms, 20, temperature, seed=1)
    assert len({len(c.token_ids) for c in together}) > 4
    assert sum(c.finished for c in together) > 0.5 * len(together)
    found = tokens(together)
    for arm in arms[::3]:
        for conversation in conversations:
            alone = generate(model, [conversation], [arm], 20, temperature, seed=1)
            assert found[arm.name, conversation.id, 0] == alone[0].token_ids, arm.name


def test_samples_depend_on_seed_and_sample_and_are_shared_by_arms(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    nothing = Intervention(make_direction(), Add(0.0), "both")
    arms = [Arm("plain"), Arm("nothing", (nothing,))]
    runs = [
        tokens(generate(tiny_model, conversations, arms, ROOM, 1.0, seed=seed, n_samples=2))
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    for conversation in conversations:
        first, second = (runs[0]["plain", conversation.id, s] for s in (0, 1))
        assert first != second
        assert runs[0]["nothing", conversation.id, 0] == first


def test_sampling_follows_the_model(tiny_model: Any, conversations: Any) -> None:
    prompt = conversations[2]
    n = 400
    drawn = generate(tiny_model, [prompt], [Arm("plain")], 1, temperature=1.0, n_samples=n)
    encoded = tiny_model.encode(prompt, add_generation_prompt=True)
    row = torch.tensor([encoded.ids])
    with torch.no_grad():
        logits = tiny_model.logits(row, torch.ones_like(row), torch.arange(row.shape[1])[None])
    p = logits[0, -1].float().softmax(dim=-1)
    token = int(p.argmax())
    share = sum(c.token_ids == (token,) for c in drawn) / n
    assert abs(share - float(p[token])) < 4 * float((p[token] * (1 - p[token]) / n).sqrt())


def test_replies_stop_at_the_end_token_and_say_so(tiny_model: Any, conversations: Any) -> None:
    found = generate(tiny_model, conversations, [Arm("plain")], 60, temperature=1.5, n_samples=8)
    assert {c.finished for c in found} == {True, False}
    for completion in found:
        assert not set(tiny_model.end_ids) & set(completion.token_ids)
        assert completion.finished or len(completion.token_ids) == 60
        decoded = tiny_model.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        assert completion.text == decoded


def test_results_come_in_the_order_of_the_request(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    arms = sweep(make_direction)[:3]
    found = generate(tiny_model, conversations, arms, 2, temperature=1.0, n_samples=2)
    expected = [(a.name, c.id, s) for a in arms for c in conversations for s in (0, 1)]
    assert [(c.arm, c.conversation_id, c.sample) for c in found] == expected


def test_the_model_is_left_as_it_was(
    tiny_model: Any, conversations: Any, make_direction: Any
) -> None:
    plain = slow_reference(tiny_model, conversations[0], Arm("plain"))
    steered = Arm("a", (Intervention(make_direction(), Add(2.0), "both"),), "tuned")
    generate(tiny_model, conversations, [steered], 3)
    assert slow_reference(tiny_model, conversations[0], Arm("plain")) == plain
    broken = Arm("b", (Intervention(make_direction(layer=9), Add(1.0), "both"),), "tuned")
    with pytest.raises(SiteMismatchError):
        generate(tiny_model, conversations, [broken], 3)
    assert slow_reference(tiny_model, conversations[0], Arm("plain")) == plain


def test_requests_that_make_no_sense(tiny_model: Any, conversations: Any) -> None:
    for arms, options, words in [
        ([], {}, "no arms"),
        ([Arm("a"), Arm("a")], {}, "'a'"),
        ([Arm("a")], {"n_samples": 2}, "temperature"),
        ([Arm("a")], {"temperature": -1.0}, "at least 0"),
    ]:
        with pytest.raises(RequestError, match=words):
            generate(tiny_model, conversations, arms, ROOM, **options)


def test_a_prompt_that_leaves_no_room_is_refused(tiny_model: Any, conversations: Any) -> None:
    with pytest.raises(RequestError, match=r"'p0' has .* asks for 250 more; tiny-llama reads 256"):
        generate(tiny_model, conversations, [Arm("a")], 250)
    nothing = Conversation((Message("system", "Be kind."), Message("user", " \n")), id="q")
    with pytest.raises(RequestError, match=r"ends with an empty prompt \(q\)"):
        generate(tiny_model, [nothing], [Arm("a")], ROOM)
    nameless = Conversation((Message("user", "Why?"),))
    with pytest.raises(RequestError, match=r"conversation number 1 has .* asks for 250 more"):
        generate(tiny_model, [nameless, nameless], [Arm("a")], 250)
    answered = conversations[0].with_reply("Yes.")
    with pytest.raises(RequestError, match="reply already"):
        generate(tiny_model, [answered], [Arm("a")], ROOM)


def test_a_patch_reaches_generation_and_scoring(tiny_model: Any, make_direction: Any) -> None:
    """From the model's own run it changes nothing but rounding; from another's, it does."""
    from persona_probe.models.chat import Conversation, Message
    from persona_probe.models.site import Site
    from persona_probe.steering import Patch
    from persona_probe.steering.arm import Arm, Intervention
    from persona_probe.steering.generation import generate
    from persona_probe.steering.scoring import next_token_log_probabilities

    asked = [Conversation((Message("user", text),)) for text in ("Why?", "Who told you that?")]
    tokens = [tiny_model.encode(c, add_generation_prompt=True) for c in asked]
    direction = make_direction(layer=1)
    own, other = (
        Patch.read(tiny_model, tokens, direction, [Site(1)], adapter) for adapter in (None, "tuned")
    )
    arms = [
        Arm("plain"),
        Arm("own", (Intervention(direction, own, "prompt"),)),
        Arm("other", (Intervention(direction, other, "prompt"),)),
    ]
    vocabulary = range(50)
    plain, same, changed = next_token_log_probabilities(tiny_model, asked, arms, vocabulary)
    assert (plain - same).abs().max() < 1e-4
    assert (plain - changed).abs().max() > 1e-2
    done = generate(tiny_model, asked, arms, 6)
    replies = {arm.name: [c.token_ids for c in done if c.arm == arm.name] for arm in arms}
    assert replies["own"] == replies["plain"]
