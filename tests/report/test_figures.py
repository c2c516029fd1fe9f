import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_world import PERSONAS

NAMES = (
    "effect_by_tier", "dose_response", "category_effects", "persona_profile", "layer_profile",
    "shift_cosine", "persona_cosines", "sufficiency_necessity",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(run_folder: Path) -> Callable[[str], list[dict[str, Any]]]:
    """The rows that the report gives each figure."""
    from persona_probe.report import tables
    from persona_probe.report.run_folder import read_run

    run = read_run(run_folder)
    made = {
        "effect_by_tier": tables.tier_rows(run),
        "dose_response": tables.dose_rows(run, "virtue"),
        "category_effects": tables.category_rows(run, "virtue"),
        "persona_profile": tables.profile_rows(run, "virtue"),
        "layer_profile": tables.layer_rows(run)["prompt_in_H"],
        "shift_cosine": tables.shift_rows(run, "virtue"),
        "persona_cosines": tables.cosine_rows(run),
        "sufficiency_necessity": tables.plane_rows(run),
    }
    return made.__getitem__


def test_every_figure_is_listed_and_tested() -> None:
    from persona_probe.report import FIGURES

    assert tuple(FIGURES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_make_a_figure_that_says_so(name: str) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES[name]([])
    assert len(figure.data) == 0
    assert [a.text for a in figure.layout.annotations] == ["not measured"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [{}, {"arm_kind": "steered"}, {"persona": "virtue", "site": None}])
def test_rows_without_numbers_count_as_not_measured(name: str, junk: dict[str, Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES[name]([junk])
    assert "not measured" in [a.text for a in figure.layout.annotations]


@pytest.mark.parametrize("name", [n for n in NAMES if "cosine" not in n])
def test_intervals_and_n_are_drawn(name: str, rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES[name](rows(name))
    bars = [
        length
        for trace in figure.data
        if trace.type == "scatter"
        for bar in (trace.error_x, trace.error_y)
        for length in (bar.array if bar.array is not None else ())
    ]
    assert bars, "no error bars"
    assert max(bars) > 0
    assert re.search(r"n = \d+", figure.layout.title.text)


@pytest.mark.parametrize("name", ["effect_by_tier", "dose_response", "category_effects"])
def test_the_band_of_random_directions_is_drawn(name: str, rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES[name](rows(name))
    assert any("random directions" in str(trace.name) for trace in figure.data)
    without = [r for r in rows(name) if r.get("arm_kind") not in ("random", "covariance")]
    bare = FIGURES[name](without)
    assert not any("random" in str(trace.name) for trace in bare.data)


def test_cosines_are_drawn_over_what_chance_gives(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES["shift_cosine"](rows("shift_cosine"))
    band = next(trace for trace in figure.data if trace.fill == "tonexty")
    null = [row["null_cosine"]["high"] for row in rows("shift_cosine")]
    assert list(band.y) == pytest.approx(null)
    assert {"placebo finetuning (floor)", "second seed (ceiling)"} <= {t.name for t in figure.data}


def test_intervals_of_cosines_are_written_when_there_are_any() -> None:
    from persona_probe.report import FIGURES

    cell = {"value": -0.31, "low": -0.4, "high": -0.2, "n": 200}
    figure = FIGURES["persona_cosines"]([{"a": "x", "b": "y", "cosine": cell, "site": 2}])
    assert "−0.31<br>−0.40 to −0.20" in figure.data[1].text
    assert "n = 200" in figure.layout.title.text


@pytest.mark.parametrize("name", NAMES)
def test_figures_suit_any_page(name: str, rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES[name](rows(name))
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.width is None, "the width follows the page"
    # The shipped bundle draws these and leaves others blank.
    assert {trace.type for trace in figure.data} <= {"scatter", "heatmap", "bar"}


@pytest.mark.parametrize("name", ["dose_response", "category_effects", "persona_profile"])
def test_a_persona_keeps_its_colour(name: str, rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES
    from persona_probe.report.palette import FIXED

    text = FIGURES[name](rows(name)).to_json()
    assert FIXED["virtue"] in text
    others = {colour for persona, colour in FIXED.items() if persona != "virtue"}
    assert not [colour for colour in others if colour in text]
    assert "#123456" in FIGURES[name](rows(name), {"virtue": "#123456"}).to_json()


def test_colours_are_distinct_and_stay_when_a_persona_is_absent() -> None:
    from persona_probe.report.palette import persona_colours

    everyone = persona_colours([*PERSONAS, "pirate", "robot"])
    assert len(set(everyone.values())) == 6
    assert persona_colours(["virtue"])["virtue"] == everyone["virtue"]
    assert len(persona_colours([f"p{i}" for i in range(9)])) == 9


def test_text_on_a_colour_is_readable() -> None:
    from persona_probe.report.palette import OKABE_ITO, ink_on

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in OKABE_ITO:
        low, high = sorted((luminance(colour), luminance(ink_on(colour))))
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour


def test_strengths_that_fail_a_guard_are_shaded_and_the_chosen_one_marked(
    rows: Callable[[str], Any],
) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES["dose_response"](rows("dose_response"))
    shaded = [s for s in figure.layout.shapes if s.x0 is not None and s.x1 != s.x0 and s.y0 == 0]
    assert min(s.x0 for s in shaded) == pytest.approx(0.875)  # half-way from 0.75 to 1
    assert {a.text for a in figure.layout.annotations} == {"guards fail", "chosen"}


def test_the_plane_leaves_out_what_has_no_value(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES["sufficiency_necessity"](rows("sufficiency_necessity"))
    assert {trace.name for trace in figure.data} == {"Deontology", "Consequentialism", "Virtue"}


def test_layer_profile_shows_one_finder_and_marks_the_chosen_layer(
    rows: Callable[[str], Any],
) -> None:
    from persona_probe.report import FIGURES
    from persona_probe.report.figures.layer_profile import method_shown

    both = [
        row | {"finder": finder, "selected": row["selected"] and finder == "linear_probe"}
        for finder in ("mean_difference", "linear_probe")
        for row in rows("layer_profile")
    ]
    shown = method_shown(both, "service")
    assert [row["site"] for row in shown] == list(range(8))
    assert {row["finder"] for row in shown} == {"linear_probe"}
    figure = FIGURES["layer_profile"](rows("layer_profile"))
    sizes = next(trace.marker.size for trace in figure.data if trace.name == "Virtue")
    assert max(sizes) == sizes[2] > sizes[3]


def test_numbers_without_an_interval_still_say_their_n(run_folder: Path) -> None:
    from persona_probe.report import FIGURES
    from persona_probe.report.run_folder import read_run
    from persona_probe.report.tables import dose_rows, shift_rows

    run = read_run(run_folder)
    bare = [row | {"refusal_probability": 0.4, "n": 60} for row in run.rows("dose.json")]
    run.documents["dose.json"] = bare
    figure = FIGURES["dose_response"](dose_rows(run, "virtue"))
    assert "n = 60 requests" in figure.layout.title.text
    figure = FIGURES["shift_cosine"](shift_rows(run, "virtue"))
    assert "n = 180 prompts" in figure.layout.title.text


def test_names_cannot_smuggle_markup_into_a_figure(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    text = json.dumps(rows("category_effects")).replace("privacy", "<a href='x'>hi</a>")
    figure = FIGURES["category_effects"](json.loads(text))
    assert any("&lt;a href" in tick for tick in figure.layout.yaxis.ticktext)
