"""Selecting on the select part, validating on the evaluate part, and the tables that say so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_probe.directions.finders import finder_named
from persona_probe.errors import RequestError

FEW = {"permutations": 19, "relabellings": 9}


def three_labels(planted: Any, sites: tuple[int, ...] = tuple(range(5)), gap: float = 4.0) -> Any:
    """Heroes, villains and neutral ones, the two characters along axes of their own."""
    from persona_probe.activations.activation_set import ActivationSet

    one = planted(0, families=20, per_family=4, sites=sites, gap=gap).activations
    other = planted(1, families=20, per_family=4, sites=sites, gap=gap, truth_seed=9).activations
    villains = other.where(labels=["hero"])
    return ActivationSet.of(
        torch.cat([one.values, villains.values]),
        one.sites,
        one.position,
        one.ids + villains.ids,
        one.labels + ("villain",) * len(villains),
        one.families + villains.families,
        one.provenance,
    )


def found_in(activations: Any, seed: int = 0) -> Any:
    from persona_probe.directions.per_label import find_per_label

    return find_per_label(activations, finder_named("mean_difference"), "neutral", seed=seed)


def test_select_chooses_and_only_evaluate_judges(planted: Any) -> None:
    from persona_probe.directions.checks.evaluating import evaluate_all
    from persona_probe.directions.checks.selection import separations
    from persona_probe.personas.splits import split_families
    from persona_probe.provenance import content_hash

    activations = three_labels(planted)
    directions, split = found_in(activations), split_families(activations.families)
    found = evaluate_all(directions, activations, **FEW)
    assert [each.validation.persona for each in found] == ["hero", "villain"]
    for each, by_site in zip(found, directions.values(), strict=True):
        assert each.validation.held_out_hash == content_hash(sorted(split.evaluate))
        assert each.n_select == 2 * 4 * len(split.select)
        quality = separations(by_site, activations.where(families=split.select))
        middle = [site for site in quality if site.layer <= 3]
        assert each.chosen == max(middle, key=lambda site: quality[site])
        assert each.validation.rows[0].auroc.n == 2 * 4 * len(split.evaluate)
        (other,) = {"hero", "villain"} - {each.validation.persona}
        assert f"wrong: {other}" in each.validation.rows[0].controls
    json.dumps([each.to_json() for each in found], allow_nan=False)


def test_under_another_split_nothing_is_selected_and_all_other_families_judge(planted: Any) -> None:
    from persona_probe.directions.checks.evaluating import evaluate_all

    activations = three_labels(planted)
    directions = found_in(activations, seed=5)
    found = evaluate_all(directions, activations, **FEW)[0]
    assert found.chosen is None
    assert found.n_select == 0
    assert found.validation.rows[0].auroc.n_clusters == 10
    again = evaluate_all(directions, activations, 5, **FEW)[0]
    assert again.chosen is not None
    assert again.validation.rows[0].auroc.n_clusters == 6


def test_without_middle_layers_all_are_candidates(planted: Any) -> None:
    from persona_probe.directions.checks.evaluating import evaluate_all
    from persona_probe.models.site import Site

    activations = three_labels(planted, sites=(9,))
    found = evaluate_all(found_in(activations), activations, **FEW)[0]
    assert found.chosen == Site(9)


def test_nothing_to_validate_is_said(planted: Any) -> None:
    from persona_probe.directions.checks.evaluating import captured_in, evaluate_all

    with pytest.raises(RequestError, match="no directions to validate"):
        evaluate_all({}, planted().activations)
    with pytest.raises(RequestError, match="--baseline 'embedding': write NAME=FOLDER"):
        captured_in(["embedding"])


@pytest.fixture
def folders(planted: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Directions and the activations they were found in, on disk."""
    from persona_probe.directions.direction_set import save_directions

    activations = three_labels(planted)
    activations.save(tmp_path / "activations")
    save_directions(found_in(activations), tmp_path / "directions")
    return tmp_path / "directions", tmp_path / "activations"


def call(*arguments: object) -> Any:
    from typer.testing import CliRunner

    from persona_probe.cli.app import app

    quick = ["--permutations", 19, "--relabellings", 9]
    return CliRunner().invoke(app, [*map(str, ["validate", *arguments, *quick])])


def test_the_command_prints_a_table_that_says_what_it_was_measured_on(
    folders: tuple[Path, Path],
) -> None:
    done = call(*folders)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["direction", "layer"]
    assert sum(line.startswith(("hero ", "villain ")) for line in lines) == 10
    assert sum("*  " in line for line in lines) == 2
    assert max(map(len, lines)) <= 300
    said = " ".join(done.stdout.split())
    assert "chosen on 32 select examples; judged on 48 examples of 6 families" in said
    assert "p max-T: permutation" in said


def test_full_and_json_hold_every_number(folders: tuple[Path, Path]) -> None:
    full = call(*folders, "--full")
    for name in (
        "AUROC", "balanced accuracy", "d'", "gain over surface", "control: isotropic",
        "control: covariance_matched", "control: sign_flipped", "control: wrong: villain",
        "permutation p", "control-task accuracy", "selectivity", "shuffles: |cosine|",
        "split-half cosine", "Spearman-Brown", "resampled cosine", "consistency",
        "pairwise cosine", "online code compression", "components", "loudest coordinate",
        "AUROC, masked", "AUROC, standardised",
    ):  # fmt: skip
        assert name in full.stdout
    value = json.loads(call(*folders, "--json").stdout)
    assert len(value["rows"]) == 10
    for row in value["rows"]:
        assert {"persona", "layer", "auroc", "p_over_sites", "p_holm", "controls", "flags"} < set(
            row
        )
        for part in ("chance", "reliability", "online_code", "variance_share", "without_outliers"):
            assert row[part] is not None
    assert {"chosen_layer", "split_hash", "held_out_hash", "effort"} < set(value["directions"][0])


def test_the_numbers_go_into_the_card_on_demand(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "README.md"
    before = path.read_text()
    call(*folders)
    assert path.read_text() == before
    assert call(*folders, "--card").exit_code == 0
    assert "| hero | 1 |" in path.read_text()
    path.write_text("mine")
    assert "is not a card; left alone" in call(*folders, "--card").stderr
    assert path.read_text() == "mine"


def test_a_captured_baseline_is_read_from_its_folder(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    value = json.loads(call(*folders, "--baseline", f"itself={folders[1]}", "--json").stdout)
    row = next(row for row in value["rows"] if row["layer"] == 0)
    # The difference of means at the first site, which is the first direction itself.
    assert row["baselines"]["itself"]["value"] == pytest.approx(row["auroc"]["value"])
    gone = call(*folders, "--baseline", f"none={tmp_path / 'none'}")
    assert gone.exit_code != 0


def test_directions_of_elsewhere_or_of_every_family_are_refused(
    folders: tuple[Path, Path], planted: Any, tmp_path: Path
) -> None:
    from persona_probe.directions.direction_set import save_directions
    from persona_probe.directions.finder import find_directions

    activations = three_labels(planted)
    everything = find_directions(activations, finder_named("mean_difference"), "hero", "neutral")
    save_directions({"hero": everything}, tmp_path / "leaky")
    done = call(tmp_path / "leaky", folders[1])
    assert type(done.exception).__name__ == "RequestError"
    assert "were found on every family" in str(done.exception)
