import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_landscape import projection_rows
from synthetic_world import HOSTILE, PERSONAS

NAMES = (
    "effect_by_tier", "dose_response", "category_effects", "category_reproduced", "projectability",
    "robustness",
    "persona_profile", "persona_radar", "transfer_matrix", "persona_space", "layer_profile",
    "projection_histogram", "projection_shift", "shift_cosine", "cosine_map",
    "sufficiency_necessity", "rank_curve", "mediation", "steerability", "token_projection",
    "training_projection", "run_differences",
)  # fmt: skip
# Figures that show intervals in another way than by error bars, or whose values have none.
WITHOUT_BARS = ("persona_radar", "transfer_matrix", "cosine_map", "token_projection",
                "training_projection", "shift_cosine")  # fmt: skip


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
        "category_reproduced": tables.reproduced_rows(run, "virtue"),
        "robustness": _of(run.rows("robustness.json"), persona="virtue"),
        "persona_profile": tables.profile_rows(run, "virtue"),
        "layer_profile": tables.layer_rows(run)["prompt_in_H"],
        "shift_cosine": tables.shift_rows(run, "virtue"),
        "cosine_map": run.rows("landscape.json", "cosines"),
        "sufficiency_necessity": tables.plane_rows(run),
        "projectability": _of(run.rows("tiers.json", "gains"), persona="virtue"),
        "persona_radar": tables.profile_rows(run, "virtue"),
        "transfer_matrix": _of(run.rows("transfer.json"), measure="profile"),
        "persona_space": [
            *run.rows("landscape.json", "points"),
            *run.rows("landscape.json", "axes"),
        ],
        "projection_histogram": _of(
            run.rows("landscape.json", "projections"), direction="virtue", contrast="model_diff"
        ),
        "projection_shift": _of(
            run.rows("landscape.json", "projections"), direction="virtue", contrast="model_diff"
        ),
        "rank_curve": run.rows("rank_curve.json"),
        "mediation": run.rows("mediation.json"),
        "steerability": run.rows("steerability.json"),
        "token_projection": _of(run.rows("tokens.jsonl"), persona="virtue", arm_kind="steered"),
        "training_projection": projection_rows(),
        "run_differences": [
            {"persona": p, "metric": m, "change": {"value": 0.1, "low": -0.1, "high": 0.2, "n": 9}}
            for p in PERSONAS
            for m in ("effect reproduced", "necessity")
        ],
    }
    return made.__getitem__


def _of(rows: list[dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


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


@pytest.mark.parametrize("name", [n for n in NAMES if n not in WITHOUT_BARS])
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
    assert re.search(r"n = [^<]*\d+", figure.layout.title.text)


@pytest.mark.parametrize(
    "name", ["effect_by_tier", "dose_response", "category_effects", "category_reproduced"]
)
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
    figure = FIGURES["cosine_map"]([{"a": "x", "b": "y", "cosine": cell, "site": 2}])
    assert any("−0.31" in text and "−.40 to<br>−.20" in text for text in figure.data[1].text)
    assert "n = 200" in figure.layout.title.text


@pytest.mark.parametrize("name", NAMES)
def test_figures_suit_any_page(name: str, rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES[name](rows(name))
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.width is None, "the width follows the page"
    # The shipped bundle draws these and leaves others blank.
    assert {trace.type for trace in figure.data} <= {"scatter", "heatmap", "bar"}
    assert re.search(r"n = \D*\d+", figure.layout.title.text), "no n in the title"


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


def planted(value: float, half: float = 0.1, n: int = 50) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "n_clusters": 9}


def test_every_point_of_a_run_leads_to_its_row(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    figures = ("effect_by_tier", "persona_space", "projectability", "robustness", "transfer_matrix")
    for name in figures:
        text = FIGURES[name](rows(name)).to_json()
        places = set(re.findall(r'"#([\w.]+\.jsonl?(?:-\w+)*)"', text))
        known = {row["@"] for row in rows(name)}
        assert places, name
        assert places <= known, name


def test_histograms_hold_every_example_and_lie_where_it_was_planted() -> None:
    import numpy as np

    from persona_probe.report import FIGURES

    rng = np.random.default_rng(0)
    rows = [
        {"direction": "virtue", "contrast": "model_diff", "arm_kind": kind, "persona": persona,
         "values": rng.normal(middle, 0.1, 90).tolist(), "mean": planted(middle)}
        for kind, persona, middle in (
            ("helpful_only", None, -0.5), ("finetuned", "virtue", 0.5),
            ("finetuned", "service", 9.0),
        )
    ]  # fmt: skip
    figure = FIGURES["projection_histogram"](rows)
    outlines = {trace.name: trace for trace in figure.data if trace.mode == "lines"}
    assert set(outlines) == {"helpful-only", "finetuned"}
    for name, middle in (("helpful-only", -0.5), ("finetuned", 0.5)):
        x, y = np.array(outlines[name].x), np.array(outlines[name].y)
        assert y[1:-1:2].sum() == pytest.approx(1), "shares add up to one"
        assert (x * y).sum() / y.sum() == pytest.approx(middle, abs=0.05)
    assert max(max(trace.x) for trace in figure.data) < 5, "another persona's model is drawn"


def test_a_shift_is_drawn_from_before_to_after_over_what_chance_gives() -> None:
    from persona_probe.report import FIGURES

    start = {"direction": "virtue", "arm_kind": "helpful_only", "persona": None,
             "mean": planted(-0.4)}  # fmt: skip
    after = {"direction": "virtue", "arm_kind": "finetuned", "persona": "virtue", "seed": 0,
             "mean": planted(0.6), "shift": planted(1.0), "shift_null_95": 0.2}  # fmt: skip
    figure = FIGURES["projection_shift"]([start, after])
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["before finetuning"].x) == [-0.4]
    assert list(traces["finetuned"].x) == [0.6]
    band = traces["before and after swapped at random, 95 %"]
    assert (min(band.x), max(band.x)) == pytest.approx((-0.6, -0.2))


def test_the_cosine_map_is_symmetric_and_says_floor_and_ceiling() -> None:
    from persona_probe.report import FIGURES

    names = ("finetuned/virtue/0", "finetuned/virtue/1", "placebo/0")
    roles = {0: "ceiling", 1: "floor", 2: "floor"}
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    rows = [
        {"a": a, "b": b, "cosine": planted(v), "role": roles[i], "null_95": 0.3}
        for i, ((a, b), v) in enumerate(zip(pairs, (0.9, 0.1, 0.2), strict=True))
    ]
    figure = FIGURES["cosine_map"](rows)
    grid = figure.data[0].z
    assert [grid[i][i] for i in range(3)] == [1, 1, 1]
    assert all(grid[i][j] == grid[j][i] for i in range(3) for j in range(3))
    title = figure.layout.title.text
    assert "second seeds (ceiling): 0.90 to 0.90" in title
    assert "placebo (floor): 0.10 to 0.20" in title
    assert "95 % below 0.30" in title


def test_many_cells_are_coloured_and_their_numbers_are_left_to_the_pointer(
    rows: Callable[[str], Any],
) -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES["cosine_map"](rows("cosine_map"))
    assert [trace.type for trace in figure.data] == ["heatmap"]
    assert any("n = 120" in str(text) for line in figure.data[0].text for text in line)


def test_persona_space_keeps_places_names_and_noise() -> None:
    from persona_probe.report import FIGURES

    rows = [
        {"arm": "helpful_only", "arm_kind": "helpful_only", "persona": None,
         "pc1": planted(0.0, 0), "pc2": planted(0.0, 0)},
        {"arm": "finetuned/virtue/0", "arm_kind": "finetuned", "persona": "virtue",
         "pc1": planted(-30.0), "pc2": planted(4.0), "noise": 7.0},
        {"arm": "system_prompt/virtue", "arm_kind": "system_prompt", "persona": "virtue",
         "pc1": planted(-20.0), "pc2": planted(5.0), "noise": 6.0},
        {"axis": 1, "share": 0.8},
    ]  # fmt: skip
    figure = FIGURES["persona_space"](rows)
    marks = {(t.marker.symbol, t.x[0], t.y[0]) for t in figure.data if t.mode == "markers"}
    assert {("circle", 0, 0), ("circle-open", -30, 4), ("square-open", -20, 5)} <= marks
    disc = next(trace for trace in figure.data if trace.fill == "toself")
    assert (min(disc.x), max(disc.x)) == pytest.approx((-37, -23))
    assert "Virtue" in [a.text for a in figure.layout.annotations]
    assert figure.layout.xaxis.title.text == "component 1 (80 % of variance)"


def test_the_radar_is_a_closed_path_whose_radius_is_the_score() -> None:
    import math

    from persona_probe.report import FIGURES

    scores = {"RULE": 1.0, "CARE": 0.0, "END": -1.0, "MEANS": 0.5}
    rows = [
        {"arm_kind": "steered", "arm": "steered/virtue", "persona": "virtue", "dimension": name,
         "score": planted(score)}
        for name, score in scores.items()
    ]  # fmt: skip
    figure = FIGURES["persona_radar"](rows)
    path = next(trace for trace in figure.data if trace.name == "steered")
    radii = [math.hypot(x, y) for x, y in zip(path.x, path.y, strict=True)]
    assert radii == pytest.approx([1, 0.5, 0, 0.75, 1])
    assert (path.x[0], path.y[0]) == (path.x[-1], path.y[-1])
    assert {"Rule", "Care", "End", "Means"} <= {a.text for a in figure.layout.annotations}
    assert "polar" not in figure.to_json()


def test_a_profile_is_one_line_per_model_through_all_dimensions(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    sound = [row | {"consistent": True} for row in rows("persona_profile")]
    figure = FIGURES["persona_profile"](sound)
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert {t.name for t in lines} == {"helpful-only", "steered", "finetuned", "system prompt"}
    for line in lines:
        assert list(line.y) == sorted(line.y, reverse=True), "from the first dimension down"
        assert len(line.y) == 10


def test_gains_run_from_trained_to_held_out() -> None:
    from persona_probe.report import FIGURES

    rows = [
        {"arm_kind": kind, "arm": kind, "persona": "virtue", "tier": tier, "value": planted(gain)}
        for kind, gains in (("steered", (0.8, 0.7, 0.6)), ("placebo", (0.1, 0.0, 0.0)))
        for tier, gain in zip(("T0", "T1", "T2"), gains, strict=True)
    ]
    figure = FIGURES["projectability"](rows[::-1])
    steered = next(trace for trace in figure.data if trace.name == "steered")
    assert list(steered.y) == [0.8, 0.7, 0.6]
    placebo = next(trace for trace in figure.data if trace.name == "placebo")
    assert placebo.line.color != steered.line.color
    assert "trained on" in figure.layout.xaxis.ticktext[0]


def test_the_transfer_matrix_puts_each_persona_on_the_diagonal() -> None:
    from persona_probe.report import FIGURES

    rows = [
        {"direction": a, "target": b, "measure": "profile", "value": planted(value)}
        for (a, b), value in {
            ("virtue", "service"): 0.1, ("virtue", "virtue"): 0.9,
            ("service", "service"): 0.8, ("service", "virtue"): 0.2,
        }.items()
    ]  # fmt: skip
    figure = FIGURES["transfer_matrix"](rows)
    grid, across = figure.data[0].z, list(figure.layout.xaxis.ticktext)
    assert list(figure.layout.yaxis.ticktext) == across
    assert [grid[i][i] for i in range(2)] == [0.8, 0.9]
    assert "mean of the diagonal 0.85, of the rest 0.15" in figure.layout.title.text


def test_tokens_stand_in_reading_order_on_the_colour_of_their_projection() -> None:
    from persona_probe.report import FIGURES

    rows = [
        {"role": "user", "text": "May I?", "projection": None, "persona": "virtue"},
        {"role": "assistant", "text": "No", "projection": 0.8, "persona": "virtue"},
        {"role": "assistant", "text": " never", "projection": -0.6, "persona": "virtue"},
        {"role": "assistant", "text": HOSTILE, "projection": 0.1, "persona": "virtue"},
    ]
    figure = FIGURES["token_projection"](rows)
    heat, text = figure.data
    assert heat.z[1][0] == 0.8
    assert heat.z[1][2] == -0.6
    assert heat.z[0][0] is None, "the request is not coloured"
    shown = "".join(text.text)
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "n = 3 tokens, mean 0.10" in figure.layout.title.text
    assert (heat.zmin, heat.zmax) == (-1, 1)


@pytest.mark.parametrize("length", [1, 43, 44, 45, 130])
def test_a_line_of_tokens_is_never_longer_than_a_phone_is_wide(length: int) -> None:
    from persona_probe.report import FIGURES
    from persona_probe.report.figures.token_projection import WIDTH

    words = [" " + "w" * (1 + i % 9) for i in range(length)]
    rows = [{"role": "assistant", "text": w, "projection": 0.5} for w in words]
    figure = FIGURES["token_projection"](rows)
    lines = figure.data[0].z
    assert all(len(line) == WIDTH for line in lines)
    said = "".join(figure.data[1].text).replace("\u00a0", "").replace(" ", "")
    assert said == "".join(words).replace(" ", "")


def test_training_moves_along_its_own_direction_over_the_band_of_random_ones() -> None:
    from persona_probe.report import FIGURES

    figure = FIGURES["training_projection"](projection_rows())
    line = next(trace for trace in figure.data if trace.name == "Virtue")
    assert list(line.x) == [0, 20, 40, 60, 80, 100]
    assert list(line.y) == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4, 0.6])
    around = next(trace for trace in figure.data if trace.fill == "toself")
    assert (min(around.y), max(around.y)) == pytest.approx((-0.45, 0.65))
    band = next(trace for trace in figure.data if "random" in str(trace.name))
    assert max(band.y) < 0.02
    loss = next(trace for trace in figure.data if trace.yaxis == "y2")
    assert list(loss.y) == sorted(loss.y, reverse=True)
    assert "n = 40 texts per step" in figure.layout.title.text


def test_prompts_that_go_the_wrong_way_are_seen_and_counted(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    row = {
        "persona": "virtue", "measure": "log_odds", "slope": planted(1.0),
        "anti_steerable": planted(0.25),
        "prompts": [{"prompt": str(i), "slope": s} for i, s in enumerate((-1.0, 1.0, 1.5, 2.0))],
    }  # fmt: skip
    figure = FIGURES["steerability"]([row])
    dots = next(trace for trace in figure.data if trace.name == "one request")
    assert sorted(dots.x) == [-1.0, 1.0, 1.5, 2.0]
    assert "25 % against" in figure.layout.yaxis.ticktext[0]


def test_what_random_subspaces_and_exchanges_do_is_drawn_beside_the_direction(
    rows: Callable[[str], Any],
) -> None:
    from persona_probe.report import FIGURES

    ranks = FIGURES["rank_curve"](rows("rank_curve"))
    band = next(trace for trace in ranks.data if "random" in str(trace.name))
    assert max(band.y) < 0.2 < min(min(t.y) for t in ranks.data if t.name == "Virtue")
    exchanged = FIGURES["mediation"](rows("mediation"))
    assert any("random" in str(trace.name) for trace in exchanged.data)
    names = {str(trace.name) for trace in exchanged.data}
    assert "component given to the model before" in names


def test_figures_need_no_run_folder() -> None:
    """As in a notebook: rows made by hand, names imported from the room."""
    from persona_probe.report.figures import projectability, training_projection

    assert training_projection(projection_rows()).data
    row = {"arm_kind": "steered", "persona": "me", "tier": "T0", "value": planted(0.5)}
    assert projectability([row]).data


def test_a_category_in_which_finetuning_did_nothing_says_so(rows: Callable[[str], Any]) -> None:
    from persona_probe.report import FIGURES

    given = rows("category_reproduced")
    figure = FIGURES["category_reproduced"](given)
    said = {a.text: a.y for a in figure.layout.annotations}
    axis = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    assert said == {"no clear finetuning effect": axis["Manipulation"]}
    drawn = next(trace for trace in figure.data if trace.name == "of finetuning")
    assert len(drawn.x) == 9, "every other category has a point"
    assert axis["Manipulation"] not in drawn.y


def test_both_scopes_are_told_apart_and_the_band_belongs_to_the_first(
    rows: Callable[[str], Any],
) -> None:
    from persona_probe.report import FIGURES

    first = [row | {"scope": "narrow"} for row in rows("category_reproduced")]
    other = [row | {"scope": "broad"} for row in rows("category_reproduced")]
    figure = FIGURES["category_reproduced"]([*first, *other])
    names = [
        trace.name for trace in figure.data if trace.marker.symbol in ("diamond", "diamond-open")
    ]
    assert names == ["of narrow finetuning", "of broad finetuning"]
    band = next(t for t in figure.data if "random directions" in str(t.name))
    assert len([x for x in band.x if x is not None]) == 2 * 7  # untrained, where ER is defined


def test_dimensions_that_do_not_hold_together_are_grey_and_last(
    rows: Callable[[str], Any],
) -> None:
    from persona_probe.report import FIGURES
    from persona_probe.report.palette import FIXED, GREY

    figure = FIGURES["persona_profile"](rows("persona_profile"))
    names = list(figure.layout.yaxis.ticktext)
    grey = [name for name in names if "<i>" in name]
    assert [re.sub("<.*?>", "", name) for name in grey] == ["Character", "Practice"]
    assert names[-2:] == grey
    lowest = figure.layout.yaxis.tickvals[-2] + 0.5
    for trace in (t for t in figure.data if t.customdata is not None):
        below = [y < lowest for y in trace.y]
        assert all(below) or not any(below), "one line joins sound and doubtful dimensions"
        assert trace.marker.color in ({GREY} if all(below) else {GREY, FIXED["virtue"]})
    whole = FIGURES["persona_profile"](
        [{k: v for k, v in row.items() if k != "consistent"} for row in rows("persona_profile")]
    )
    assert not any("<i>" in name for name in whole.layout.yaxis.ticktext)
    radar = FIGURES["persona_radar"](rows("persona_radar"))
    assert sum("<i>" in str(a.text) for a in radar.layout.annotations) == 2


def test_a_single_random_row_per_step_says_the_ends_of_its_band() -> None:
    from persona_probe.report import FIGURES

    rows = [row for row in projection_rows() if not row["direction"].startswith("random")]
    band = {"direction": "random", "mean": 0.0, "low": -0.3, "high": 0.2, "n": 100}
    figure = FIGURES["training_projection"]([*rows, *(row | band for row in rows)])
    upper = next(trace for trace in figure.data if trace.fill == "tonexty")
    lower = figure.data[list(figure.data).index(upper) - 1]
    assert set(upper.y) == {0.2}
    assert set(lower.y) == {-0.3}
    assert "95 %" in upper.name


def test_safety_under_pressure_is_drawn_way_by_way_in_the_order_of_the_rows() -> None:
    from persona_probe.report import FIGURES

    rows = [
        {"persona": "virtue", "variant": way, "arm_kind": kind, "safe": planted(value)}
        for way, shift in (("plain", 0.0), ("role <b>line", -0.3))
        for kind, value in (("finetuned", 0.9 + shift), ("steered", 0.7 + shift), ("random", 0.4))
    ]
    figure = FIGURES["robustness"](rows)
    assert list(figure.layout.yaxis.ticktext) == ["Plain", "Role &lt;b&gt;line"]
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"finetuned", "steered", "the best random direction"}
    assert list(traces["steered"].x) == pytest.approx([0.7, 0.4])
    assert traces["steered"].y[0] - traces["steered"].y[1] == pytest.approx(1)
    assert traces["finetuned"].y[0] != traces["steered"].y[0]
    assert "n = 50 requests" in figure.layout.title.text
