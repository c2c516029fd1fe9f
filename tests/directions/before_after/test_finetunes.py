"""Several finetunes against each other, where it is known which of them are alike."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from persona_probe.errors import RequestError
from tests.directions.moved import activations, direction, orthonormal


@pytest.fixture
def world() -> dict[str, Any]:
    """H and four finetunes of it at two sites.

    "narrow" and "again" move along one axis, "broad" along that and another, "placebo" along a
    third. Axis 0 existed before: it is the direction of persona "one"; "two" is unrelated.
    """
    rng = np.random.default_rng(0)
    axes = orthonormal(rng, 48, 6).T
    n, sites = 96, 2
    before = rng.normal(size=(n, sites, 48)) * np.linspace(0.5, 2, 48)
    means = {
        "narrow": 2 * axes[0],
        "again": 2 * axes[0],
        "broad": 1.6 * axes[0] + 1.2 * axes[1],
        "placebo": axes[2],
    }
    finetunes = {
        name: activations(before + mean + 0.5 * rng.normal(size=before.shape))
        for name, mean in means.items()
    }
    directions = {
        "one": {s.site: s for s in (direction(axes[0], i, "one") for i in range(sites))},
        "two": {s.site: s for s in (direction(axes[5], i, "two") for i in range(sites))},
    }
    return {"before": activations(before), "finetunes": finetunes, "directions": directions}


def test_every_question_is_answered_with_its_controls(world: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.finetunes import compare_finetunes

    found = compare_finetunes(
        world["before"],
        world["finetunes"],
        world["directions"],
        placebo="placebo",
        second_seed="again",
        reliabilities={"one": dict.fromkeys(world["directions"]["one"], 0.9)},
        draws=50,
    )
    for site in world["directions"]["one"]:
        row = found.comparisons["narrow"].at("one", site)
        assert row.cosine_interval.value == pytest.approx(row.cosine, abs=1e-5)
        assert row.debiased.value > row.cosine
        assert row.debiased.value == pytest.approx(1, abs=0.05)
        assert abs(row.floor.value) < 0.25
        assert row.ceiling.value > 0.9
        assert not found.comparisons["broad"].at("one", site).ceiling.defined
        assert not found.comparisons["placebo"].at("one", site).floor.defined
        pairs = {(p.one, p.other): p for p in found.pairs if p.site == site}
        assert pairs["narrow", "again"].role == "ceiling"
        assert pairs["broad", "placebo"].role == "floor"
        assert pairs["narrow", "broad"].role is None
        assert pairs["narrow", "broad"].debiased.value == pytest.approx(0.8, abs=0.1)
        assert pairs["narrow", "again"].debiased.value == pytest.approx(1, abs=0.05)
        assert abs(pairs["narrow", "placebo"].debiased.value) < 0.2
        assert pairs["narrow", "again"].cosine.value > pairs["narrow", "again"].null_cosine.high
        assert all(p.cosine.n == 96 and p.cosine.n_clusters == 24 for p in pairs.values())
        older = {row.name: row for row in found.pre_existing if row.site == site}
        assert older["narrow"].debiased.value == pytest.approx(1, abs=0.1)
        assert older["broad"].debiased.value == pytest.approx(0.64, abs=0.1)
        assert older["placebo"].debiased.value < 0.15
        assert found.reliability["narrow"][site] > 0.9
    assert [row.cka.value > 0.8 for row in found.cka["narrow"]] == [True, True]
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert text["pairs"][0]["layer"] == 0
    assert text["finetunes"]["broad"]["rows"][0]["ceiling"]["reason"]


def test_without_directions_the_shifts_are_still_compared(world: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.finetunes import compare_finetunes

    two = {name: world["finetunes"][name] for name in ("narrow", "broad")}
    found = compare_finetunes(world["before"], two, draws=20)
    assert (found.comparisons, found.pre_existing) == ({}, [])
    assert len(found.pairs) == len(found.angles) == 2
    alone = compare_finetunes(world["before"], {"narrow": two["narrow"]}, draws=20)
    assert (alone.pairs, alone.angles) == ([], [])
    assert len(alone.spectra) == 2


def test_a_role_that_nobody_has_is_refused(world: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.finetunes import compare_finetunes

    with pytest.raises(RequestError, match="no finetune 'dough' among narrow, again"):
        compare_finetunes(world["before"], world["finetunes"], placebo="dough")


def test_a_site_that_did_not_move_is_undefined_and_not_zero(world: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare
    from persona_probe.models.site import Site

    before = world["before"]
    values = world["finetunes"]["narrow"].values.clone()
    values[:, 0] = before.values[:, 0]
    result = compare(before, before.with_values(values), world["directions"])
    still, moved = result.at("one", Site(0)), result.at("one", Site(1))
    assert np.isnan(still.cosine)
    assert not still.cosine_interval.defined
    assert not still.debiased.defined
    assert still.null_cosine.reason == "finetuning did not move this site"
    assert still.shift.value == 0
    assert list(result.model_diff) == [Site(1)]
    assert moved.cosine > 0.9
    text = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert text["rows"][0]["cosine"] is None


def test_directions_of_another_model_are_refused(world: dict[str, Any]) -> None:
    from persona_probe.directions.before_after.comparison import compare

    before, after = world["before"], world["finetunes"]["narrow"]
    elsewhere = replace(before, provenance=before.provenance.with_(model_hash="other"))
    with pytest.raises(RequestError, match="find it again in that model"):
        compare(elsewhere, after, world["directions"])


def test_the_context_free_share_is_the_planted_one() -> None:
    from persona_probe.directions.before_after.context_free import context_free
    from tests.directions.moved import shift_of

    rng = np.random.default_rng(1)
    axes = orthonormal(rng, 40, 2).T
    task, neutral = 3 * axes[0], 0.6 * 3 * (0.5 * axes[0] + np.sqrt(0.75) * axes[1])
    shares, cosines, hits = [], [], []
    for _ in range(40):
        found = context_free(
            shift_of(task + rng.normal(size=(1, 80, 40))),
            shift_of(neutral + rng.normal(size=(1, 120, 40))),
        )[0]
        shares.append(found.share.value)
        cosines.append(found.cosine.value)
        hits.append(found.share.low < 0.36 < found.share.high)
        assert (found.n_task, found.n_neutral) == (80, 120)
    assert np.mean(shares) == pytest.approx(0.36, abs=4 * np.std(shares) / np.sqrt(40))
    assert np.mean(cosines) == pytest.approx(0.5, abs=4 * np.std(cosines) / np.sqrt(40))
    assert np.mean(hits) > 0.85


def test_the_context_free_share_of_no_shift_is_undefined() -> None:
    from persona_probe.directions.before_after.context_free import context_free
    from tests.directions.moved import shift_of

    rng = np.random.default_rng(2)
    noise = shift_of(rng.normal(size=(1, 40, 16)))
    moved = shift_of(3 + rng.normal(size=(1, 40, 16)))
    found = context_free(noise, moved)[0]
    assert not found.share.defined
    assert "is not above 0" in str(found.share.reason)
    assert context_free(moved, noise)[0].share.value == pytest.approx(0, abs=0.05)
    with pytest.raises(RequestError, match="same sites"):
        context_free(moved, shift_of(np.ones((2, 8, 16))))
