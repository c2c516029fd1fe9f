import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import synthetic_files, write_synthetic_run


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"value": 0.916, "low": 0.85, "high": 0.99, "n": 260}, "0.92 [0.85, 0.99], n = 260"),
        (
            {"value": -0.5, "low": -1, "high": 0.0, "n": 9, "n_clusters": 3},
            "−0.50 [−1.00, 0.00], n = 9 in 3 families",
        ),
        (0.25, "0.25"),
        (-0.001, "0.00"),
        (None, "not measured"),
        ({"value": None, "reason": "too few prompts"}, "too few prompts"),
        ({"value": 0.5, "low": None, "high": None}, "0.50"),
        (True, "not measured"),
        ("0.5", "not measured"),
        (math.inf, "not measured"),
        ([0.5], "not measured"),
    ],
)
def test_numbers_are_read_tolerantly_and_never_become_zero(value: Any, expected: str) -> None:
    from persona_probe.report.estimates import estimate, in_words

    assert in_words(estimate(value)) == expected


def test_estimates_of_the_statistics_room_are_read_back() -> None:
    from persona_probe.report.estimates import estimate
    from persona_probe.statistics import Estimate

    known = Estimate(0.4, 0.3, 0.5, 120, 12)
    assert estimate(known.to_json()) == known
    undefined = estimate(Estimate.undefined("denominator includes 0", n=5).to_json())
    assert not undefined.defined
    assert undefined.reason == "denominator includes 0"


def test_text_is_escaped_unless_it_is_markup() -> None:
    from persona_probe.report.markup import element

    inner = element("b", "1 < 2 & 3")
    outer = element("p", inner, ["<i>", None, 4], title='"x" <y>', hidden=True, lang=None)
    assert outer == (
        '<p title="&quot;x&quot; &lt;y&gt;" hidden><b>1 &lt; 2 &amp; 3</b>&lt;i&gt;4</p>'
    )


def test_random_draws_are_summarised_by_quantiles() -> None:
    from persona_probe.report.canvas import spread

    assert spread([None, {"value": None}]) is None
    low, middle, high, n = spread([i / 100 for i in range(101)]) or (0, 0, 0, 0)
    assert (low, middle, high, n) == pytest.approx((0.05, 0.5, 0.95, 101))


def test_effects_are_found_for_the_right_kind_of_arm(run_folder: Path) -> None:
    from persona_probe.report.run_folder import read_run

    run = read_run(run_folder)
    steered = run.effect("virtue", "ER", ("steered",))
    assert steered is not None
    assert steered["arm"] == "steered/virtue"
    assert run.effect("service", "NEC", ("ablated",)) is None, "only its controls have one"


def test_personas_come_from_the_plan_then_the_verdict_then_the_arms(tmp_path: Path) -> None:
    from persona_probe.report.run_folder import read_run

    expected = tuple(synthetic_files()["study.json"]["finetuned"])
    for number, without in enumerate([(), ("study.json",), ("study.json", "verdict.json")]):
        folder = write_synthetic_run(tmp_path / str(number), without=without)
        assert read_run(folder).personas == expected


def test_the_terminal_table_has_a_line_per_persona(run_folder: Path) -> None:
    from persona_probe.report import verdict_text

    text = verdict_text(run_folder)
    assert max(map(len, text.splitlines())) <= 100
    lines = " ".join(text.split())
    assert "Deontology L5 0.9" in lines
    assert "persona-specific" in lines
    virtue = text[text.index("Virtue") : text.index("Service")]
    assert "L2" in virtue
    assert "L3" in virtue
    assert "not measured" in text[text.index("Service") :]


def test_the_terminal_table_says_what_is_undefined_and_survives_without_a_verdict(
    tmp_path: Path,
) -> None:
    from persona_probe.report import verdict_text
    from persona_probe.report.run_folder import read_run
    from persona_probe.report.summary import verdict_cells

    folder = write_synthetic_run(tmp_path / "run", without=("verdict.json", "effects.json"))
    assert verdict_text(folder).count("not measured") >= 4
    from persona_probe.files import write_json

    why = {"persona": "virtue", "arm": "steered/virtue", "metric": "ER_J", "value": None}
    write_json(folder / "effects.json", [why | {"why_undefined": "finetuning changed nothing"}])
    cells = verdict_cells(read_run(folder), "virtue")
    assert "undefined: finetuning changed nothing" in cells


def test_every_kind_of_arm_of_a_study_is_named_in_plain_words() -> None:
    from persona_probe.report.palette import KINDS
    from persona_probe.study.ablations import ABLATED
    from persona_probe.study.arms import FINETUNED
    from persona_probe.study.effect_rows import PART, REMOVED, WHOLE
    from persona_probe.study.trial import ON_BAND

    kinds = {*WHOLE, *PART, *REMOVED, *ON_BAND, *FINETUNED.values(), *ABLATED.values()}
    assert len(kinds) > 20
    for kind in (*kinds, "helpful_only", "steered"):
        assert "_" not in KINDS[kind].words
        assert KINDS[kind].what, kind
