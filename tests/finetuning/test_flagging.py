"""Flagging: nothing where the data says what the model says, a planted push where it is planted."""

import pytest


@pytest.fixture(scope="module")
def prompts(talks):
    from dataclasses import replace

    return [replace(c, messages=c.messages[:-1]) for c in talks]


@pytest.fixture(scope="module")
def replies(tiny_model, prompts):
    """Every prompt with the greedy reply of the bare model, and of the adapter `tuned`."""
    from persona_probe.steering.arm import Arm
    from persona_probe.steering.generation import generate

    def by(adapter):
        said = generate(tiny_model, prompts, [Arm("x", adapter=adapter)], 8)
        return [c.with_reply(r.text) for c, r in zip(prompts, said, strict=True)]

    return by(None), by("tuned")


@pytest.fixture(scope="module")
def towards_tuned(tiny_model, replies):
    """The direction from the model's own replies to the adapter's, at layer 1."""
    from dataclasses import replace

    from persona_probe.activations.capture import capture
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.finders.mean_difference import MeanDifference
    from persona_probe.models.site import Site

    own, tuned = replies
    asked = [replace(c, label="own") for c in own]
    asked += [replace(c, label="tuned", id=f"t{c.id}") for c in tuned]
    read = capture(tiny_model, asked, [Site(1)], ["response_mean"])["response_mean"]
    return find_directions(read, MeanDifference(), "tuned", "own")[Site(1)]


def test_data_that_says_what_the_model_says_pushes_nowhere(tiny_model, replies, make_direction):
    from persona_probe.finetuning.flagging import flag

    found = flag(
        tiny_model, replies[0], [make_direction(position="response_mean")], max_new_tokens=8
    )
    [flagged] = found.directions
    assert flagged.shift.value == pytest.approx(0.0, abs=1e-4)
    assert max(map(abs, flagged.samples)) < 1e-4
    assert tiny_model.active_adapter is None


def test_planted_samples_are_ranked_first(tiny_model, replies, towards_tuned):
    """Half of the data is the adapter's: the other half does not move at all."""
    from persona_probe.finetuning.flagging import flag

    own, tuned = replies
    held = list(range(1, len(own), 2))
    planted = held[:3]
    data = [tuned[i] if i in planted else own[i] for i in held]
    found = flag(tiny_model, data, [towards_tuned], max_new_tokens=8)
    ranked = sorted(found.ranked(), key=lambda row: row["rank"])
    assert [row["rank"] for row in ranked] == [1, 2, 3, 4, 5, 6]
    untouched = {own[i].id for i in held[3:]}
    for row in ranked:
        assert (abs(row["shift"]) < 1e-4) == (row["id"] in untouched)
    # What the whole of the adapter's replies moves is the gap that the direction was found with.
    [whole] = flag(tiny_model, tuned, [towards_tuned], max_new_tokens=8).directions
    assert whole.shift.value * whole.unit == pytest.approx(towards_tuned.gap, rel=1e-3)
    assert whole.shift.n == len(tuned)
    assert whole.shift.n_clusters == len({c.family for c in tuned})
    assert whole.random.low < whole.shift.value


def test_samples_that_share_a_prompt_are_held_against_one_own_reply(
    tiny_model, replies, towards_tuned
):
    from dataclasses import replace

    from persona_probe.finetuning.flagging import flag

    own, tuned = replies
    both = [*own, *(replace(c, id=f"t{c.id}") for c in tuned)]
    [joint] = flag(tiny_model, both, [towards_tuned], max_new_tokens=8).directions
    [alone] = flag(tiny_model, tuned, [towards_tuned], max_new_tokens=8).directions
    moved = [shift * joint.unit for shift in joint.samples]
    assert max(map(abs, moved[: len(own)])) < 1e-4
    expected = [shift * alone.unit for shift in alone.samples]
    assert moved[len(own) :] == pytest.approx(expected, abs=1e-3)


def test_the_numbers_are_those_of_a_plain_computation(tiny_model, replies, towards_tuned):
    from persona_probe.activations.capture import capture
    from persona_probe.finetuning.flagging import flag

    own, tuned = replies
    [flagged] = flag(tiny_model, tuned, [towards_tuned], max_new_tokens=8).directions
    read = {
        name: capture(tiny_model, several, [towards_tuned.site], ["response_mean"])
        for name, several in (("own", own), ("taught", tuned))
    }
    along = {
        name: found["response_mean"].site(towards_tuned.site).double() @ towards_tuned.unit.double()
        for name, found in read.items()
    }
    expected = (along["taught"] - along["own"]) / along["own"].std()
    assert flagged.samples == pytest.approx(expected.tolist(), abs=1e-3)
    assert flagged.unit == pytest.approx(float(along["own"].std()), rel=1e-4)


def test_what_cannot_be_flagged_is_refused(tiny_model, replies, prompts, make_direction):
    from persona_probe.errors import RequestError
    from persona_probe.finetuning.flagging import flag

    with pytest.raises(RequestError, match="lies before the reply"):
        flag(tiny_model, replies[0], [make_direction()], "last_prompt_token")
    with pytest.raises(RequestError, match="has no reply"):
        flag(tiny_model, prompts, [make_direction()])
