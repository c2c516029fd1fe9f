import math
from pathlib import Path
from typing import Any

import pytest

from persona_probe.activations.contrast import request
from persona_probe.errors import RequestError
from persona_probe.evaluation.calibrated import Goal, sweep_calibrated
from persona_probe.evaluation.guards import GuardLimits, benign_divergences
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.sweep import Manner, net_refusal, sweep_directions
from persona_probe.evaluation.widest import largest_in_guard
from persona_probe.models.site import Site
from persona_probe.personas.pack import load_pack
from persona_probe.steering import Ablate, Add, Clamp, Patch, Rotate, Subspace
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.condition import Condition
from persona_probe.steering.treatment import Treatment, Written


@pytest.fixture(scope="module")
def pack(small_pack: Path) -> Any:
    return load_pack(small_pack)


@pytest.fixture(scope="module")
def directions(make_direction: Any) -> Any:
    return {
        name: {Site(layer): make_direction(layer=layer, seed=seed) for layer in (0, 1)}
        for seed, name in enumerate(["deontology", "virtue"])
    }


def test_neutral_text_is_what_the_unsteered_model_says_on_the_select_part(
    tiny_model: Any, pack: Any
) -> None:
    from persona_probe.steering.generation import generate

    replies = benign_replies(tiny_model, pack, "tuned", n=5)
    assert len(replies) == 5
    families = pack.split(0).select
    assert all(r.label == "benign" and r.family in families for r in replies)
    asked = [r.messages[:-1] for r in replies]
    again = generate(
        tiny_model,
        [type(replies[0])(messages) for messages in asked],
        [Arm("a", adapter="tuned")],
        pack.max_new_tokens,
    )
    assert [r.reply for r in replies] == [a.text for a in again]


def test_every_direction_gets_the_strength_with_the_kl_asked_for(
    tiny_model: Any, pack: Any, directions: Any
) -> None:
    manner = Manner(Treatment(schedule="both"), adapter="tuned", n=6)
    rows = sweep_calibrated(
        tiny_model,
        pack,
        directions,
        [Site(0), Site(1)],
        Goal.parse("kl=0.0005"),
        manner=manner,
        dose=True,
    )
    assert [(r["persona"], r["layer"]) for r in rows] == [
        ("deontology", 0),
        ("deontology", 1),
        ("virtue", 0),
        ("virtue", 1),
    ]
    assert len({round(r["strength"], 3) for r in rows}) == 4
    text = benign_replies(tiny_model, pack, "tuned", n=6)
    for row in rows:
        direction = directions[row["persona"]][Site(row["layer"])]
        arm = Arm("a", (Intervention(direction, Add(row["strength"]), "both"),), "tuned")
        reference = Arm("unsteered", adapter="tuned")
        found = benign_divergences(tiny_model, text, [arm], reference)["a"]
        assert found.per_token == pytest.approx(0.0005, rel=0.02)
        assert row["dose"]["per_token_kl"]["value"] == pytest.approx(found.per_token, rel=1e-3)
        assert row["calibration"]["kl"]["n"] == len(text)
        assert 0 <= row["refusal_probability"] <= 1


def test_what_cannot_be_met_says_why_and_does_not_stop_the_rest(
    tiny_model: Any, pack: Any, directions: Any
) -> None:
    rows = sweep_calibrated(
        tiny_model, pack, directions, [Site(1)], Goal.parse("kl=50"), ["virtue"], Manner(n=4)
    )
    (row,) = rows
    assert row["strength"] is None
    assert "reaches a KL of 50 at no strength up to 4" in row["reason"]


def test_a_sweep_with_its_dose_measures_what_it_measures_without(
    tiny_model: Any, pack: Any, directions: Any
) -> None:
    options: dict[str, Any] = {
        "manner": Manner(Treatment(schedule="both"), n=6),
        "personas": ["virtue"],
    }
    plain = sweep_directions(tiny_model, pack, directions, [Site(1)], [0.0, 2.0], **options)
    rows = sweep_directions(
        tiny_model, pack, directions, [Site(1)], [0.0, 2.0], dose=True, **options
    )
    costs = [row.pop("dose") for row in rows]
    assert rows == plain
    assert costs[0]["per_token_kl"]["value"] == pytest.approx(0, abs=1e-6)
    assert costs[0]["sites"][0]["norm_ratio"]["value"] == 1
    assert costs[1]["per_token_kl"]["value"] > 1e-4
    with pytest.raises(RequestError, match="no direction of 'nobody'"):
        sweep_directions(tiny_model, pack, directions, [Site(1)], [1.0], personas=["nobody"])


def test_a_sweep_does_what_its_treatment_says(tiny_model: Any, pack: Any, directions: Any) -> None:
    """Each operation, against arms that are written out here."""
    virtue, duty = directions["virtue"][Site(1)], directions["deontology"][Site(1)]
    everywhere = tuple(tiny_model.sites)
    switch = Condition(duty, 0.0, "prompt_mean", "raw")
    base = Manner(n=4)
    prompts = base.prompts(pack)
    texts = [
        tiny_model.encode(request(p, pack.neutral_system), add_generation_prompt=True)
        for p in prompts
    ]
    patch = Patch.read(tiny_model, texts, virtue, None, "tuned")
    then = Written(Treatment("ablate", "both"), (duty,), 1.0)
    cases: list[tuple[Treatment, tuple[Written, ...], float | None, list[Intervention]]] = [
        (Treatment("ablate", "both", everywhere), (), None,
         [Intervention(virtue, Ablate(), "both", everywhere)]),
        (Treatment("clamp:0:0.5", "prompt"), (), None,
         [Intervention(virtue, Clamp(0.0, 0.5), "prompt")]),
        (Treatment("rotate", "prompt"), (), 30.0, [Intervention(virtue, Rotate(30.0), "prompt")]),
        (Treatment("add:raw", "both", None, switch), (), 3.0,
         [Intervention(virtue, Add(3.0, "raw"), "both", None, switch)]),
        (Treatment("add", "both"), (then,), 1.0,
         [Intervention(virtue, Add(1.0), "both"), Intervention(duty, Ablate(), "both")]),
        (Treatment("patch:tuned", "prompt"), (), None, [Intervention(virtue, patch, "prompt")]),
    ]  # fmt: skip
    for treatment, after, strength, interventions in cases:
        manner = Manner(treatment, after, n=4)
        strengths = [] if strength is None else [strength]
        (row,) = sweep_directions(
            tiny_model, pack, directions, [Site(1)], strengths, ["virtue"], manner
        )
        arms = [Arm("plain"), Arm("a", tuple(interventions))]
        expected = net_refusal(tiny_model, pack, prompts, arms)
        for key, value in expected["a"].items():
            assert row[key] == pytest.approx(value, abs=1e-6), treatment.operation
        assert row["refusal_probability"] != pytest.approx(
            expected["plain"]["refusal_probability"], abs=1e-7
        ), treatment.operation
        assert (row["strength"], row["operation"]) == (strength, treatment.operation)


def test_a_subspace_takes_all_personas_at_once(tiny_model: Any, pack: Any, directions: Any) -> None:
    manner = Manner(Treatment("subspace", "both"), n=4)
    rows = sweep_directions(tiny_model, pack, directions, [Site(0), Site(1)], manner=manner)
    assert [(r["persona"], r["layer"]) for r in rows] == [
        ("deontology+virtue", 0),
        ("deontology+virtue", 1),
    ]
    first, other = (directions[name][Site(0)] for name in ("deontology", "virtue"))
    arm = Arm("a", (Intervention(first, Subspace(others=(other,)), "both"),))
    expected = net_refusal(tiny_model, pack, manner.prompts(pack), [arm])["a"]
    assert rows[0]["net"] == pytest.approx(expected["net"], abs=1e-6)


def test_strengths_are_for_operations_that_have_one(
    tiny_model: Any, pack: Any, directions: Any
) -> None:
    given: tuple[Any, ...] = (tiny_model, pack, directions, [Site(1)])
    with pytest.raises(RequestError, match="ablate has no strength; leave strengths out"):
        sweep_directions(*given, [1.0], manner=Manner(Treatment("ablate", "both")))
    with pytest.raises(RequestError, match="rotate needs strengths"):
        sweep_directions(*given, manner=Manner(Treatment("rotate", "both")))
    for manner, words in [
        (Manner(Treatment("ablate", "both")), "calibrated with ablate"),
        (
            Manner(then=(Written(Treatment("ablate"), (directions["virtue"][Site(1)],), 1.0),)),
            "interventions that follow",
        ),
    ]:
        with pytest.raises(RequestError, match=words):
            sweep_calibrated(*given, Goal.parse("kl=0.1"), manner=manner)


def test_a_rotation_is_calibrated_in_its_own_units(
    tiny_model: Any, pack: Any, directions: Any
) -> None:
    manner = Manner(Treatment("rotate", "both"), n=4)
    rows = sweep_calibrated(
        tiny_model, pack, directions, [Site(1)], Goal.parse("kl=0.002"), ["virtue"], manner
    )
    assert rows[0]["calibration"]["kl"]["value"] == pytest.approx(0.002, rel=0.02)
    arm = Arm(
        "a", (Intervention(directions["virtue"][Site(1)], Rotate(rows[0]["strength"]), "both"),)
    )
    text = benign_replies(tiny_model, pack, n=4)
    found = benign_divergences(tiny_model, text, [arm], Arm("unsteered"))["a"]
    assert found.per_token == pytest.approx(0.002, rel=0.03)


def test_the_largest_strength_in_guard_passes_and_the_next_does_not(
    tiny_model: Any, pack: Any, make_direction: Any
) -> None:
    # A random model repeats itself and replies at random, so only the divergence is limited here.
    limits = GuardLimits(
        first_token_kl=0.0005,
        per_token_kl=0.0005,
        over_refusal=1.0,
        degenerate=1.0,
        length_ratio=(0.0, math.inf),
        distinct_2=0.0,
    )
    found = largest_in_guard(
        tiny_model, pack, make_direction(layer=1), "tuned", "both", limits, n=4, precision=0.02
    )
    assert found.fails_at is not None
    assert 0.95 * found.fails_at < found.strength < found.fails_at
    assert found.guards[found.strength].passed
    assert not found.guards[found.fails_at].passed
    assert all("KL" in reason for reason in found.reasons)
    assert all(found.guards[s].passed for s in found.guards if s <= found.strength)
    json = found.to_json()
    assert json["strength"] == found.strength
    assert len(json["tried"]) == len(found.guards)
    none = largest_in_guard(
        tiny_model, pack, make_direction(layer=1), limits=GuardLimits(over_refusal=-2.0), n=4
    )
    assert none.strength == 0
    assert "requests refused" in " ".join(none.reasons)


def test_goals_are_read() -> None:
    assert Goal.parse("kl=0.1") == Goal("kl", "per_token", 0.1)
    assert Goal.parse("first_token_kl=.05") == Goal("kl", "first_token", 0.05)
    assert Goal.parse("guards").kind == "guards"
    for text in ("kl", "kl=x", "kl=0", "kl=-1", "norm=1"):
        with pytest.raises(RequestError, match=r"write kl=0\.1"):
            Goal.parse(text)
