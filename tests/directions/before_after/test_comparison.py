"""Before against after, where it is known what finetuning did."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import DegenerateClassesError, RequestError, SplitLeakError


@pytest.fixture
def models(planted: Any) -> dict[str, Any]:
    """Two personas found in H, and H and F on other prompts.

    F is H moved by 1.5 along the first persona, by other amounts per prompt and with noise.
    """
    from persona_probe.directions.finder import find_directions

    finder = FINDERS["mean_difference"]()
    data = {"one": planted(0, gap=6.0), "two": planted(0, gap=6.0, truth_seed=77)}
    directions = {
        persona: find_directions(p.activations, finder, "hero", "neutral", persona=persona)
        for persona, p in data.items()
    }
    before = planted(5, gap=0.0, prefix="held").activations.where(labels=["neutral"])
    rng = np.random.default_rng(0)
    amount = torch.from_numpy(1.5 + 0.3 * rng.normal(size=(len(before), 1, 1))).float()
    noise = torch.from_numpy(0.3 * rng.normal(size=tuple(before.values.shape))).float()
    moved = before.values + amount * data["one"].truth[None] + noise
    after = replace(before.with_values(moved), provenance=before.provenance.with_(adapter="tuned"))
    return {"before": before, "after": after, "directions": directions, "truth": data["one"].truth}


def test_the_direction_that_was_moved_along_is_told_from_the_other(models: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare

    result = compare(models["before"], models["after"], models["directions"])
    for site, shift in result.model_diff.items():
        moved, still = result.at("one", site), result.at("two", site)
        assert moved.cosine > 0.95
        assert moved.whitened > 0.9
        assert abs(still.cosine) < 0.5
        assert moved.cosine > moved.null_cosine.high
        along = models["before"].site(site) @ models["directions"]["one"][site].unit
        expected = 1.5 / float(along.std())
        assert moved.shift.low < expected < moved.shift.high
        assert moved.shift.value == pytest.approx(expected, rel=0.15)
        assert abs(still.shift.value) < moved.shift.value / 2
        assert shift.family == "model_diff"
        assert shift.unit @ models["truth"][site.layer] > 0.98
        assert result.model_diff_reliability[site] > 0.9
        assert result.cosines[site][0][0] == pytest.approx(1)
        assert result.cosines[site][0][1] == result.cosines[site][1][0]
        assert set(result.energy[site]) == {"one", "two"}
    text = json.dumps(result.to_json(), allow_nan=False)
    assert len(json.loads(text)["rows"]) == 6


def test_the_projection_shift_by_hand(models: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.models.site import Site

    result = compare(models["before"], models["after"], models["directions"])
    unit = models["directions"]["one"][Site(0)].unit.double()
    old = models["before"].site(Site(0)).double() @ unit
    new = models["after"].site(Site(0)).double() @ unit
    expected = float((new.mean() - old.mean()) / old.std())
    assert result.at("one", Site(0)).shift.value == pytest.approx(expected)


def test_the_corrected_cosine_needs_a_reliability(models: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.models.site import Site

    site = Site(0)
    result = compare(
        models["before"],
        models["after"],
        models["directions"],
        reliabilities={"one": {site: 0.81}},
    )
    row = result.at("one", site)
    trust = result.model_diff_reliability[site]
    assert row.corrected == pytest.approx(row.cosine / np.sqrt(0.81 * trust))
    assert np.isnan(result.at("two", site).corrected)


def test_whitening_is_the_inverse_covariance_metric(models: dict[str, Any]) -> None:
    """Stretching one axis of both models changes the raw cosine and hardly the whitened one."""
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.models.site import Site

    site, stretch = Site(0), torch.ones(32)
    stretch[:4] = 6.0

    def stretched(direction: Any) -> Any:
        return direction.with_raw(direction.raw * stretch)

    plain = compare(models["before"], models["after"], models["directions"])
    wide = compare(
        models["before"].with_values(models["before"].values * stretch),
        models["after"].with_values(models["after"].values * stretch),
        {
            name: {at: stretched(direction) for at, direction in by_site.items()}
            for name, by_site in models["directions"].items()
        },
    )
    raw = abs(wide.at("two", site).cosine - plain.at("two", site).cosine)
    white = abs(wide.at("two", site).whitened - plain.at("two", site).whitened)
    assert raw > 0.1
    assert white < raw / 2


def test_a_model_that_only_got_noisier_has_not_moved(models: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare

    before = models["before"]
    noise = torch.randn(before.values.shape, generator=torch.Generator().manual_seed(0))
    after = before.with_values(before.values + noise)
    result = compare(before, after, models["directions"])
    outside = [row for row in result.rows if row.shift.excludes(0.0)]
    assert len(outside) <= 1
    assert max(result.model_diff_reliability.values()) < 0.7


def test_requests_that_make_no_sense_are_refused(models: dict[str, Any], planted: Any) -> None:
    from persona_probe.directions.before_after.comparison import compare

    before, after, directions = models["before"], models["after"], models["directions"]
    fewer = after.where(families=["held-0"])
    with pytest.raises(RequestError, match="different examples"):
        compare(before, fewer, directions)
    used = planted(0).activations
    with pytest.raises(SplitLeakError):
        compare(used, used, directions)
    with pytest.raises(DegenerateClassesError, match="coincide"):
        compare(before, before, directions)


def test_one_persona_alone_has_no_shared_part(models: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare

    alone = {"one": models["directions"]["one"]}
    result = compare(models["before"], models["after"], alone)
    assert result.energy == {}
    assert len(result.rows) == 3


def test_the_numbers_beside_the_cosine(models: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare

    before, after, directions = models["before"], models["after"], models["directions"]
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(before.values.shape, generator=rng)
    placebo = before.with_values(before.values + noise)
    again = before.with_values(after.values + 0.1 * noise)
    result = compare(before, after, directions, placebo=placebo, second_seed=again)
    for row in result.rows:
        assert row.cosine_interval.value == pytest.approx(row.cosine, abs=1e-5)
        assert row.cosine_interval.low < row.cosine < row.cosine_interval.high
        assert row.whitened_interval.value == row.whitened
        assert row.cosine_interval.n == len(before)
        assert row.debiased.value == pytest.approx(row.cosine, abs=0.05)
        assert row.ceiling.value > 0.95
        assert abs(row.floor.value) < 0.6
        matrix = np.array(result.whitened_cosines[row.site])
        assert matrix == pytest.approx(matrix.T)
        assert np.diag(matrix) == pytest.approx([1, 1])
    alone = compare(before, after, directions).at("one", result.rows[0].site)
    assert alone.floor.reason == "no placebo finetune was given"
    assert alone.ceiling.reason == "no second seed was given"


def test_reliabilities_are_those_of_the_prompts_they_were_found_on(planted: Any) -> None:
    from persona_probe.directions.before_after.comparison import reliabilities
    from persona_probe.directions.checks.reliability import reliability
    from persona_probe.directions.families.parts import SHARED
    from persona_probe.directions.finder import find_directions

    data, finder = planted(0).activations, FINDERS["mean_difference"]()
    found = find_directions(data, finder, "hero", "neutral")
    other = {site: replace(d, positive_label="villain") for site, d in found.items()}
    made = {site: replace(d, finder="sign_flipped") for site, d in found.items()}
    known = reliabilities({"hero": found, "villain": other, SHARED: made}, data)
    assert list(known) == ["hero"]
    expected = reliability(data, finder, "hero", "neutral")
    for site, value in known["hero"].items():
        assert value == expected[site].spearman_brown
