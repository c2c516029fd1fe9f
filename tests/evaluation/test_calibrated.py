import math
from pathlib import Path
from typing import Any

import pytest

from persona_probe.errors import RequestError
from persona_probe.evaluation.calibrated import Goal, sweep_calibrated
from persona_probe.evaluation.guards import GuardLimits, benign_divergences
from persona_probe.evaluation.neutral import benign_replies
from persona_probe.evaluation.sweep import sweep_directions
from persona_probe.evaluation.widest import largest_in_guard
from persona_probe.models.site import Site
from persona_probe.personas.pack import load_pack
from persona_probe.steering import Add
from persona_probe.steering.arm import Arm, Intervention


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
    options: dict[str, Any] = {"adapter": "tuned", "n": 6, "schedule": "both"}
    rows = sweep_calibrated(
        tiny_model,
        pack,
        directions,
        [Site(0), Site(1)],
        Goal.parse("kl=0.0005"),
        dose=True,
        **options,
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
        tiny_model, pack, directions, [Site(1)], Goal.parse("kl=50"), ["virtue"], n=4
    )
    (row,) = rows
    assert row["strength"] is None
    assert "reaches a KL of 50 at no strength up to 4" in row["reason"]


def test_a_sweep_with_its_dose_measures_what_it_measures_without(
    tiny_model: Any, pack: Any, directions: Any
) -> None:
    options: dict[str, Any] = {"n": 6, "schedule": "both", "personas": ["virtue"]}
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
        tiny_model, pack, make_direction(layer=1), limits=GuardLimits(degenerate=-1.0), n=4
    )
    assert none.strength == 0
    assert "degenerate" in " ".join(none.reasons)


def test_goals_are_read() -> None:
    assert Goal.parse("kl=0.1") == Goal("kl", "per_token", 0.1)
    assert Goal.parse("first_token_kl=.05") == Goal("kl", "first_token", 0.05)
    assert Goal.parse("guards").kind == "guards"
    for text in ("kl", "kl=x", "kl=0", "kl=-1", "norm=1"):
        with pytest.raises(RequestError, match=r"write kl=0\.1"):
            Goal.parse(text)
