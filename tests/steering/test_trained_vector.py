"""A trained vector finds a planted one's effect, within its length, and never does worse."""

from typing import TYPE_CHECKING, Any

import pytest
import torch

from persona_probe.errors import RequestError
from tests.conftest import CHATML, DECODER, _write_folder

if TYPE_CHECKING:
    from persona_probe.directions.direction import Direction
    from persona_probe.models.chat import Conversation, Tokens

LENGTH = 3.0
WORDS = ("garden", "letter", "bicycle", "truth", "neighbour", "kettle", "window", "promise")


@pytest.fixture(scope="module")
def telling_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random Llama with large logits: what it says depends on its residual stream."""
    from persona_probe.models.loading import load_model
    from persona_probe.models.ref import ModelRef

    folder = tmp_path_factory.mktemp("models") / "telling"
    return load_model(ModelRef(str(_write_folder(folder, _telling, CHATML, ["q_proj"]))))


def _telling(vocab_size: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=False, **DECODER)
    model = LlamaForCausalLM(config)
    torch.nn.init.constant_(model.model.norm.weight, 4.0)
    return model


def asked(n: int, seed: int) -> "list[Conversation]":
    from persona_probe.models.chat import Conversation, Message

    rng = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(WORDS), (n, 4), generator=rng).tolist()
    return [
        Conversation((Message("user", " ".join(WORDS[w] for w in pick)),), id=f"{seed}-{i}")
        for i, pick in enumerate(picks)
    ]


def planted_arm(direction: "Direction", name: str = "planted", length: float = LENGTH) -> Any:
    from persona_probe.steering.add import Add
    from persona_probe.steering.arm import Arm, Intervention

    return Arm(name, (Intervention(direction, Add(length, "raw")),))


def replies(model: Any, arm: Any, prompts: "list[Conversation]") -> "list[Tokens]":
    """What the arm says at temperature 1, so that likelihood has its maximum at the arm itself."""
    from persona_probe.steering.generation import generate
    from persona_probe.steering.scoring import as_generated

    found = generate(model, prompts, [arm], max_new_tokens=6, temperature=1.0, seed=0)
    return [
        as_generated(model, prompt, completion.token_ids)
        for prompt, completion in zip(prompts, found, strict=True)
        if completion.token_ids
    ]


def kl(model: Any, arms: list[Any], prompts: "list[Conversation]") -> list[float]:
    """Mean KL in nats from the first arm's next-token distribution to each of the others'."""
    from persona_probe.steering.scoring import next_token_log_probabilities

    vocabulary = range(model.network.config.vocab_size)
    log_p = next_token_log_probabilities(model, prompts, arms, list(vocabulary)).double()
    return [float((log_p[0].exp() * (log_p[0] - q)).sum(dim=-1).mean()) for q in log_p[1:]]


@pytest.mark.parametrize("position", ["last_prompt_token", "response_mean"])
def test_it_recovers_the_effect_of_a_planted_vector(
    telling_model: Any, make_direction: Any, position: str
) -> None:
    from persona_probe.steering.add import Add
    from persona_probe.steering.arm import Arm, Intervention
    from persona_probe.steering.trained_vector import train_vector

    planted = make_direction(layer=0, seed=1, position=position)
    start = make_direction(layer=0, seed=2, position=position)
    learnt = replies(telling_model, planted_arm(planted), asked(96, 0))
    checked = replies(telling_model, planted_arm(planted), asked(48, 1))
    found = train_vector(telling_model, start, LENGTH, learnt, checked)
    assert abs(float(start.unit @ planted.unit)) < 0.5, "the start must not be the answer already"
    assert found.direction.gap <= LENGTH * (1 + 1e-5)
    assert found.nats["trained"] < min(found.nats["start"], found.nats["nothing"])
    assert (found.n_learnt, found.n_checked) == (len(learnt), len(checked))
    trained = Arm("trained", (Intervention(found.direction, Add(1.0, "gap")),))
    away, there, started = kl(
        telling_model,
        [planted_arm(planted), Arm("nothing"), trained, planted_arm(start, "start")],
        begun(telling_model, planted, asked(24, 2)),
    )
    assert away > 1, "the planted vector must do something"
    assert there < 0.1 * min(away, started)
    assert float(found.direction.unit @ planted.unit) > 0.8


def test_it_is_the_direction_itself_where_nothing_better_is_found(
    telling_model: Any, make_direction: Any
) -> None:
    """The replies are the start's own, and it may not grow: no snapshot does better by much."""
    from persona_probe.steering.trained_vector import train_vector

    start = make_direction(layer=0, seed=1)
    learnt = replies(telling_model, planted_arm(start), asked(32, 0))
    checked = replies(telling_model, planted_arm(start), asked(32, 1))
    found = train_vector(telling_model, start, LENGTH, learnt, checked, steps=8)
    again = train_vector(telling_model, start, LENGTH, learnt, checked, steps=8)
    assert found.nats["trained"] <= found.nats["start"] < found.nats["nothing"]
    assert torch.equal(found.direction.unit, again.direction.unit)
    assert float(found.direction.unit @ start.unit) > 0.9


def test_it_never_touches_the_model_and_refuses_what_teaches_nothing(
    telling_model: Any, make_direction: Any
) -> None:
    from persona_probe.steering.trained_vector import train_vector

    start = make_direction(layer=0, seed=1)
    some = replies(telling_model, planted_arm(start), asked(8, 0))
    before = {k: v.clone() for k, v in telling_model.network.state_dict().items()}
    train_vector(telling_model, start, LENGTH, some, some, steps=2)
    after = telling_model.network.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(p.grad is None for p in telling_model.network.parameters())
    unanswered = [telling_model.encode(c, add_generation_prompt=True) for c in asked(2, 0)]
    for learnt, checked, longest, message in (
        ([], some, LENGTH, "replies to be trained on"),
        (some, [], LENGTH, "others to be checked by"),
        (some, some, 0.0, "must be positive"),
        (unanswered, some, LENGTH, "does not end with a reply"),
    ):
        with pytest.raises(RequestError, match=message):
            train_vector(telling_model, start, longest, learnt, checked)


def begun(model: Any, planted: "Direction", prompts: "list[Conversation]") -> "list[Tokens]":
    """Prompts, each with a beginning of its reply, which the vector may act on."""
    from persona_probe.models.chat import Tokens

    ends = {"last_prompt_token": 0, "response_mean": 2}[planted.position]
    return [
        Tokens(t.ids[: t.prompt_length + ends], t.prompt_length, None, ())
        for t in replies(model, planted_arm(planted), prompts)
        if len(t) > t.prompt_length + ends
    ]
