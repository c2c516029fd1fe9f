import base64
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from reading import Page
from synthetic_landscape import projection_rows
from synthetic_run import synthetic_files, write_synthetic_run
from synthetic_world import DIMENSIONS, HOSTILE, PERSONAS

# File → the section that is nothing without it.
SECTION_OF = {
    "verdict.json": "verdict",
    "arms.json": "controls",
    "effects.json": "necessity",
    "dose.json": "dose",
    "validation.json": "geometry",
    "comparison.json": "geometry",
    "profiles.json": "profiles",
    "replies.jsonl": "replies",
    "landscape.json": "space",
    "tokens.jsonl": "tokens",
    "study.json": "methods",
}


def test_the_page_is_one_file_small_enough_and_complete(report: Path, page: str) -> None:
    from persona_probe.report.sections import SECTIONS

    seen = Page(page)
    assert report.stat().st_size < 6_000_000
    assert page.startswith("<!doctype html>")
    for name, (title, _) in SECTIONS.items():
        assert ("section", {"id": name}) in seen.tags
        assert title in seen.words
    assert seen.count("html") == seen.count("body") == seen.count("main") == 1


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    seen = Page(page)
    addresses = [
        (tag, key, value)
        for tag, attributes in seen.tags
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "action", "data", "poster", "style")
    ]
    assert any(key == "href" for _, key, _ in addresses), "the contents link to the sections"
    for tag, key, value in addresses:
        assert "//" not in value, f"<{tag} {key}={value!r}> leaves the page"
        assert key == "style" or ":" not in value.partition("#")[0], "a link with a scheme"
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "--paper" in styles
    assert "url(" not in styles
    assert "@import" not in styles


def test_the_content_policy_allows_only_the_scripts_of_the_page(page: str) -> None:
    seen = Page(page)
    policy = next(a["content"] for tag, a in seen.tags if "http-equiv" in a)
    kinds = [a.get("type") for tag, a in seen.tags if tag == "script"]
    code = [text for text, kind in zip(seen.scripts, kinds, strict=True) if kind is None]
    assert "default-src 'none'" in policy
    assert len(code) == 2
    for script in code:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_model_text_appears_as_text(page: str) -> None:
    seen = Page(page)
    assert HOSTILE in seen.text
    assert seen.count("img") == 0
    kinds = [a.get("type") for tag, a in seen.tags if tag == "script"]
    data = [s for s, kind in zip(seen.scripts, kinds, strict=True) if kind == "application/json"]
    code = [s for s, kind in zip(seen.scripts, kinds, strict=True) if kind is None]
    assert any("window.broken" in text for text in data), "no figure shows the hostile token"
    assert "window.broken" not in "".join(code)
    assert "<" not in "".join(data)


def test_names_reasons_and_summaries_are_escaped_too(tmp_path: Path) -> None:
    from persona_probe.report import write_report

    text = json.dumps(synthetic_files())
    swapped = {
        "summary": synthetic_files()["verdict.json"]["summary"],
        "flag": "one finetuning seed was evaluated",
        "reason": "matched rule 3",
        "adapter": "narrow-service-1",
        "dimension": "OVERSIGHT",
        "category": "privacy",
        "persona": "virtue",
    }
    for place, word in swapped.items():
        evil = f'</script><img src="{place}" onerror="alert(1)">'
        text = text.replace(json.dumps(word)[1:-1], json.dumps(evil)[1:-1])
    folder = write_files(tmp_path / "run", json.loads(text))
    page = write_report(folder).read_text(encoding="utf-8")
    seen = Page(page)
    assert seen.count("img") == 0
    assert all("onerror" not in attributes for _, attributes in seen.tags)
    for place in swapped:
        assert f'src="{place}"' in seen.text.replace("\u200b", ""), f"the {place} is not shown"


def test_the_same_run_gives_the_same_bytes(run_folder: Path, report: Path, tmp_path: Path) -> None:
    from persona_probe.report import write_report

    again = write_report(run_folder, tmp_path / "again.html").read_bytes()
    assert write_report(run_folder, tmp_path / "again.html").read_bytes() == again
    assert len(again) == pytest.approx(len(report.read_bytes()), abs=2000)  # links to files differ


def test_it_is_written_into_the_run_folder_unless_told_otherwise(tmp_path: Path) -> None:
    from persona_probe.report import write_report

    folder = write_synthetic_run(tmp_path / "run", without=("dose.json", "arms.json"))
    assert write_report(folder) == folder / "report.html"
    (tmp_path / "elsewhere").mkdir()
    assert write_report(folder, tmp_path / "elsewhere") == tmp_path / "elsewhere" / "report.html"


@pytest.mark.parametrize("missing", SECTION_OF)
def test_a_missing_stage_is_reported_as_not_measured(tmp_path: Path, missing: str) -> None:
    from persona_probe.report.palette import persona_colours
    from persona_probe.report.run_folder import read_run
    from persona_probe.report.sections import SECTIONS

    run = read_run(write_synthetic_run(tmp_path / "run", without=(missing,)))
    _, section = SECTIONS[SECTION_OF[missing]]
    html = section(run, persona_colours(run.personas))
    assert f"Not measured: {missing} is missing" in Page(html).words


@pytest.mark.parametrize("only", SECTION_OF)
def test_one_stage_alone_makes_a_report(tmp_path: Path, only: str) -> None:
    from persona_probe.report import write_report
    from persona_probe.report.sections import SECTIONS

    others = tuple(name for name in synthetic_files() if name != only)
    folder = write_synthetic_run(tmp_path / "run", without=others)
    seen = Page(write_report(folder).read_text(encoding="utf-8"))
    assert seen.words.lower().count("not measured") >= 5
    assert seen.count("section") == len(SECTIONS) + 1


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    from persona_probe.report import write_report

    folder = write_synthetic_run(tmp_path / "run")
    (folder / "dose.json").write_text('{"rows": [\n  {"persona": }\n]}')
    page = write_report(folder).read_text(encoding="utf-8")
    words = Page(page).section(page, "dose").words
    assert "dose.json could not be read: dose.json, line 2" in words
    assert str(folder) not in page


@pytest.mark.parametrize("content", [[], {}, None, [1, "x"], {"rows": [{}]}, {"rows": "no"}, 3])
def test_files_of_an_unexpected_shape_do_no_harm(tmp_path: Path, content: Any) -> None:
    from persona_probe.report import write_report

    files = {name: content for name in synthetic_files() if name.endswith(".json")}
    folder = write_files(tmp_path / "run", files)
    assert "not measured" in write_report(folder).read_text(encoding="utf-8").lower()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.report import write_report

    with pytest.raises(RequestError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RequestError, match=r"holds none of a run's files.*study run"):
        write_report(tmp_path)


def test_the_headline_counts_personas(run_folder: Path, page: str) -> None:
    heading = re.search(r"<h1>(.*?)</h1>", page)
    assert heading is not None
    assert heading[1] == (
        "Adding one direction brings at least half of finetuning’s safety, side effects within "
        "their limits, in two of four personas, and as much as finetuning in one; of these it "
        "carries the persona’s own voice in one"
    )


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ({}, "not measured in this run"),
        ({"L3": False}, "in none of the personas"),
        ({"L2": True, "L3": False}, "changes refusals in all four personas, but in none does it"),
        ({"L3": True}, "within their limits, in all four personas"),
        ({"L3": True, "L4": False}, "and as much as finetuning in none"),
    ],
)
def test_the_headline_says_no_more_than_the_ladder(
    tmp_path: Path, passed: dict[str, bool], expected: str
) -> None:
    from persona_probe.report.opening import headline
    from persona_probe.report.run_folder import read_run

    files = synthetic_files()
    for verdict in files["verdict.json"]["personas"].values():
        for rung in verdict["rungs"]:
            rung["passed"] = passed.get(rung["rung"])
    assert expected in headline(read_run(write_files(tmp_path / "run", files)))


def test_every_rung_of_every_persona_is_shown_with_its_evidence(page: str) -> None:
    seen = Page(page).section(page, "verdict")
    cells = [a["class"] for tag, a in seen.tags if tag == "td" and "rung" in a.get("class", "")]
    assert len(cells) == 8 * len(PERSONAS)
    assert sum("passed" in cell for cell in cells) == 7 + 6 + 3 + 3
    assert sum("open" in cell for cell in cells) == 6
    assert sum("first" in cell for cell in cells) == 3
    assert (
        "It first fails at L6: taking it out of the finetuned model was not shown to" in seen.words
    )
    assert "removes 0.441 [0.322, 0.561]" in seen.words


def test_tables_hold_the_numbers_with_interval_and_n(run_folder: Path, page: str) -> None:
    from persona_probe.report.estimates import estimate, plain

    files = synthetic_files()
    arms = {arm["arm"]: arm for arm in files["arms.json"]}
    words = Page(page).section(page, "controls").words
    for name in ("steered/virtue", "system_prompt/service", "placebo-0", "random/virtue/3"):
        safe = estimate(arms[name]["safe"])
        shown = f"{plain(safe.value)} [{plain(safe.low)}, {plain(safe.high)}] n = {safe.n} in"
        row = words[words.index(f" {name}") :]
        assert shown in row[:160], name
    for name in arms:
        assert name in words, f"{name} is missing from the table of controls"
    profile_words = Page(page).section(page, "profiles").words
    assert profile_words.count("n = 24 ") == 4 * 4 * len(DIMENSIONS)


def test_what_finetuning_itself_costs_stands_beside_the_guards(page: str) -> None:
    words = Page(page).section(page, "controls").words
    assert "length × 1.04 (1.21), variety × 0.97 (0.76)" in words
    told = "multiple choice right 0.95 [0.89, 0.98], n = 100 in 80 families"
    assert f"{told} (before 0.98; finetuned 0.97)" in words


def test_requests_put_in_other_ways_show_what_is_left_and_what_was_not_asked(page: str) -> None:
    words = Page(page).section(page, "reach").words
    assert "Not measured, as the pack has no such prompts: attack." in words
    assert "Paraphrase steered" in words
    assert "Several turns another persona" not in words
    assert words.count("5 of 32") == 4 * 3 * 5
    assert "the denominator does not exclude 0" in words


def test_the_judges_and_how_far_they_agree_stand_among_the_methods(tmp_path: Path) -> None:
    from persona_probe.files import read_json, write_json
    from persona_probe.report import write_report

    folder = write_synthetic_run(tmp_path / "run")
    assert "Agreement of the judges" not in Page(write_report(folder).read_text()).words
    judges = {"judge": "phrases", "second_judge": "chat=sceptic"}
    write_json(folder / "study.json", read_json(folder / "study.json") | judges)
    kappa = {"value": 0.71, "low": 0.6, "high": 0.8, "n": 90, "n_clusters": 30}
    write_json(folder / "agreement.json", {"overall": {"kappa": kappa, "unscored": 7}})
    words = Page(write_report(folder).read_text()).words
    assert "chat=sceptic" in words
    assert "kappa 0.71 [0.60, 0.80], n = 90 in 30 families; 7 replies not scored by both" in words
    silent = {"value": None, "low": None, "high": None, "n": 0, "reason": "none was scored by both"}
    write_json(folder / "agreement.json", {"overall": {"kappa": silent, "unscored": 97}})
    words = Page(write_report(folder).read_text()).words
    assert "kappa undefined: none was scored by both; 97 replies" in words


def test_control_finetunes_are_not_taken_for_control_directions(page: str) -> None:
    words = Page(page).section(page, "controls").words
    assert "shuffled labels found in the same way" in words
    assert "shuffled constitutions finetuned on samples mixed across personas" in words


def test_steered_failures_come_first_and_the_gravest_before_all(page: str) -> None:
    words = Page(page).section(page, "replies").words
    start = words.index("Deontology :")
    first = words[start : words.index("Consequentialism :")]
    grave, broken = first.index("<script>"), first.index("duty duty duty the")
    harmless = first.index("garden bed number 0")
    assert grave < broken < harmless
    assert re.search(r"\d+ of 68 replies failed \(", first)


def test_a_reply_missing_from_one_model_is_said_to_be(tmp_path: Path) -> None:
    from persona_probe.report import write_report

    files = synthetic_files()
    files["replies.jsonl"] = [r for r in files["replies.jsonl"] if r["arm_kind"] == "steered"]
    page = write_report(write_files(tmp_path / "run", files)).read_text(encoding="utf-8")
    assert "finetuned not measured" in Page(page).section(page, "replies").words


def test_plotly_js_is_the_one_that_the_installed_plotly_draws_for() -> None:
    from plotly.offline import get_plotlyjs_version

    from persona_probe.report.page import DATA

    source = gzip.decompress((DATA / "plotly-cartesian.min.js.gz").read_bytes()).decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in source[:200]
    assert "Licensed under the MIT license" in source[:300]
    assert get_plotlyjs_version() in (DATA / "README.md").read_text()
    assert "</script" not in source.lower()


def write_files(folder: Path, files: dict[str, Any]) -> Path:
    from persona_probe.files import write_json, write_jsonl

    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (write_jsonl if name.endswith(".jsonl") else write_json)(folder / name, content)
    return folder


def test_the_profile_says_which_dimensions_are_greyed_or_that_nobody_looked(
    page: str, tmp_path: Path
) -> None:
    from persona_probe.report import write_report

    assert "In grey: Character, Practice." in Page(page).words
    files = synthetic_files()
    del files["profiles.json"]["consistency"]
    words = Page(write_report(write_files(tmp_path / "run", files)).read_text("utf-8")).words
    assert "In grey" not in words
    assert "move together is not measured in this run" in words


def test_training_has_a_section_only_where_a_finetuning_was_watched(
    page: str, tmp_path: Path
) -> None:
    from persona_probe.report import write_report

    assert ("section", {"id": "training"}) not in Page(page).tags
    files = synthetic_files() | {"projection.jsonl": projection_rows()}
    seen = Page(write_report(write_files(tmp_path / "run", files)).read_text("utf-8"))
    assert ("section", {"id": "training"}) in seen.tags
    ids = [attributes["id"] for tag, attributes in seen.tags if tag == "section"]
    assert ids.index("training") == ids.index("methods") - 1


def test_a_watched_finetuning_alone_gives_a_page_of_its_own(tmp_path: Path) -> None:
    from persona_probe.errors import RequestError
    from persona_probe.report import write_report

    folder = write_files(tmp_path / "watched", {"projection.jsonl": projection_rows()})
    seen = Page(write_report(folder).read_text("utf-8"))
    ids = [attributes["id"] for tag, attributes in seen.tags if tag == "section"]
    assert ids == ["training", "rows"]
    assert "verdict" not in seen.words
    assert "Virtue" in seen.words
    assert any(a.get("id") == "projection.jsonl-20" for _, a in seen.tags), "the last step's row"
    study = write_synthetic_run(tmp_path / "study")
    for run, other in ((folder, study), (study, folder)):
        with pytest.raises(RequestError, match="watched holds no study's results"):
            write_report(run, against=other)
