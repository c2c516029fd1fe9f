"""The benchmark of finding directions, on problems small enough for a second's test."""

import json
from typing import Any

import pytest


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from benchmarks.directions import main

    out = tmp_path_factory.mktemp("bench") / "directions"
    sizes = ["--sites", "1", "--n", "400", "--d-model", "48", "--repetitions", "1"]
    main([*sizes, "--out", str(out)])
    found: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
    found["page"] = out.with_suffix(".md").read_text()
    return found


def test_every_finder_is_timed_beside_a_peer(results: dict[str, Any]) -> None:
    from persona_probe.directions.finders import FINDERS

    assert {row["finder"] for row in results["rows"]} == set(FINDERS)
    for row in results["rows"]:
        assert row["ours_ms"] > 0
        assert row["theirs_ms"] > 0
        assert row["peer"] in results["page"]


def test_ours_is_the_exact_solution_where_the_peer_computes_the_same(
    results: dict[str, Any],
) -> None:
    """One pair of examples in the wrong order is 1 / (20 x 60) here, and two may be near ties."""
    for row in results["rows"]:
        if row["wanted"] or row["finder"] == "principal_component":
            assert row["auroc_apart"] <= 2 / (20 * 60), row["peer"]


def test_another_estimate_is_seen_to_be_one(results: dict[str, Any]) -> None:
    apart = [row["auroc_apart"] for row in results["rows"] if "another estimate" in row["peer"]]
    assert apart
    assert min(apart) > 2 / (20 * 60)
