"""A signature that the constitution itself contradicts is suspect; a weak model is called weak."""

from pathlib import Path

import pytest

from persona_probe.evaluation.profile_match import Identification, SignatureMatch
from persona_probe.files import read_json
from persona_probe.statistics import Estimate
from persona_probe.study.instrument import Consistency
from persona_probe.study.signatures import Signed, doubts

PERSONAS = ("deontology", "consequentialism", "virtue", "service")


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, 40, 40)


def one(persona: str, r: float = 0.9, best: str | None = None) -> Signed:
    match = SignatureMatch(estimate(r), estimate(r), 0.01)
    found = Identification(persona, best or persona, {}, estimate(0.3))
    return Signed(persona, f"system_prompt/{persona}", match, match, found)


def test_signatures_that_agree_and_are_recognised_raise_no_doubt() -> None:
    assert doubts([one(persona) for persona in PERSONAS]) == []
    # Three of four are enough.
    assert doubts([*map(one, PERSONAS[:3]), one("service", best="virtue")]) == []


def test_a_signature_that_the_constitution_contradicts_is_suspect() -> None:
    (flag,) = doubts([one("virtue", r=0.49), one("service", r=0.5)])
    assert flag.startswith("virtue: its written signature is suspect")
    assert "0.490" in flag
    assert one("virtue", r=0.49).to_json()["suspect"] is True


def test_nothing_that_moved_is_no_agreement() -> None:
    still = SignatureMatch(Estimate.undefined("nothing moved"), estimate(0.0), 1.0)
    signed = Signed("virtue", "system_prompt/virtue", still, still, one("virtue").identified)
    assert signed.suspect
    assert "nothing moved" in doubts([signed])[0]


def test_a_model_that_two_of_four_constitutions_are_lost_on_is_too_weak() -> None:
    several = [*map(one, PERSONAS[:2]), *(one(p, best="deontology") for p in PERSONAS[2:])]
    (flag,) = doubts(several)
    assert "2 of 4 constitutions are recognised" in flag
    assert "too weak" in flag


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"RULE": 0.9, "CARE": 0.2}, "CARE left out of every match"),
        ({"RULE": 0.9, "CARE": None}, "whether the dimensions of CARE hold together"),
        ({"RULE": None, "CARE": None}, "whether the dimensions hold together"),
        ({"RULE": 0.9, "CARE": 0.5}, None),
    ],
)
def test_flags_name_what_does_not_hold_together(
    found: dict[str, float | None], said: str | None
) -> None:
    from persona_probe.study.cautions import dimensions_greyed

    held = Consistency(
        {
            name: Estimate.undefined("2 arms, a correlation needs 4") if r is None else estimate(r)
            for name, r in found.items()
        },
        0.5,
    )
    flags = dimensions_greyed(held)
    assert len(flags) == (said is not None)
    assert said is None or said in flags[0]


def test_the_verdict_holds_the_check_of_each_persona(finished_run: Path) -> None:
    rows = {r["persona"]: r for r in read_json(finished_run / "profiles.json")["signature_check"]}
    for persona, ladder in read_json(finished_run / "verdict.json")["personas"].items():
        assert ladder["signature_check"] == rows.get(persona)
