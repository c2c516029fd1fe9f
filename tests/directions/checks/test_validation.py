"""Validation: truth is confirmed, chance is not, and leaks are refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.directions.finders import FINDERS
from persona_probe.errors import RequestError, SplitLeakError


def found_and_held_out(planted: Any, **options: Any) -> tuple[Any, Any, Any]:
    from persona_probe.directions.finder import find_directions

    finder = options.pop("finder", "mean_difference")
    found_on = planted(0, **options).activations
    held_out = planted(1, prefix="held", **options).activations
    directions = find_directions(found_on, FINDERS[finder](), "hero", "neutral")
    return directions, held_out, found_on


@pytest.mark.parametrize("name", FINDERS)
def test_a_planted_direction_passes_everything(name: str, planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.models.site import Site

    directions, held_out, found_on = found_and_held_out(planted, gap=5.0, finder=name)
    result = validate(
        directions,
        held_out,
        found_on,
        permutations=200,
        relabellings=19,
    )
    assert [row.site for row in result.rows] == sorted(directions)
    for row in result.rows:
        assert row.auroc.value > 0.75
        assert row.auroc.excludes(0.5)
        assert row.d_prime.low > 0.5
        assert row.balanced_accuracy.low > 0.6
        assert row.p == row.p_over_sites == 1 / 201
        assert row.chance is not None
        # Who is paired with whom is enough for a principal component of the differences.
        assert row.chance.without_labels == (name == "principal_component")
        assert row.chance.without_labels or row.chance.p == row.chance.p_over_sites == 1 / 20
        if row.chance.without_labels:
            assert "no null" in (row.chance.auroc.reason or "")
            assert np.isnan([row.chance.p, row.chance.p_over_sites, row.chance.auroc.high]).all()
            assert row.chance.to_json()["p"] is None
        else:
            assert row.chance.auroc.low < 0.5 < row.chance.auroc.high
        assert row.chance.control_accuracy.value == pytest.approx(0.5, abs=0.1)
        assert row.chance.selectivity.low > 0.05
        assert row.reliability is not None
        assert row.reliability.spearman_brown > 0.7
        assert not row.outlier_flag
        assert row.p_holm == pytest.approx(3 / 201)
        assert row.online_code is not None
        assert row.online_code.compression.low > 1 > row.online_code.control.low
        assert row.without_outliers is not None
        assert row.without_outliers.masked.value == pytest.approx(row.auroc.value, abs=0.1)
        assert row.controls["isotropic"].value == pytest.approx(0.5, abs=0.1)
        assert row.controls["sign_flipped"].value == pytest.approx(1 - row.auroc.value)
        assert row.controls["sign_flipped"].high == pytest.approx(1 - row.auroc.low)
        assert row.variance_share is not None
        assert row.variance_share.matched.value == pytest.approx(0.9, abs=0.05)
        assert set(row.flags) <= {"labels unused", "unreliable"}
        assert (row.auroc.n, row.auroc.n_clusters) == (256, 16)
    assert result.at(next(iter(directions))) is result.rows[0]
    assert result.profile("d_prime") == {row.site: row.d_prime for row in result.rows}
    with pytest.raises(RequestError, match="no profile of 'beauty'"):
        result.profile("beauty")
    with pytest.raises(RequestError, match="was not validated at layer 9"):
        result.at(Site(9))
    text = json.dumps(result.to_json(), allow_nan=False)
    assert len(json.loads(text)["rows"]) == 3


@pytest.mark.parametrize("name", ["principal_component", "mean_difference"])
def test_a_shuffle_p_is_told_only_where_shuffles_are_a_null(name: str, planted: Any) -> None:
    from persona_probe.directions.checks.evaluating import Evaluated
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.checks.validation_table import footnotes, full_rows

    directions, held_out, found_on = found_and_held_out(planted, gap=5.0, finder=name)
    options = {"permutations": 49, "relabellings": 9}
    found = Evaluated(validate(directions, held_out, found_on, **options), None, 0)
    told = {row[2]: row for row in full_rows([found])}
    none = name == "principal_component"
    assert (told["shuffle p"][3] == "-") == none
    assert ("are no null for this finder" in told["shuffle p"][-1]) == none
    assert ("shuffled" in told["AUROC"][-1]) != none
    assert ("no shuffle null; p max-T permutes" in footnotes([found])[-1]) == none
    assert told["permutation p"][3] != "-"


def test_labels_without_meaning_pass_nothing(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate

    directions, held_out, found_on = found_and_held_out(planted, gap=0.0)
    result = validate(directions, held_out, found_on, permutations=500)
    for row in result.rows:
        assert not row.auroc.excludes(0.5)
        assert row.p > 0.02
        assert row.p_over_sites >= row.p
        assert row.chance is not None
        assert row.chance.p > 0.02
        assert abs(row.chance.selectivity.value) < 0.12
        assert row.p_holm >= row.p_over_sites >= row.p
        assert row.online_code is not None
        assert row.online_code.compression.value == pytest.approx(1, abs=0.05)
        assert {"shuffles", "unreliable"} <= set(row.flags)


def test_labels_of_families_are_memorised_and_selectivity_shows_it(planted: Any) -> None:
    """Each family differs along its own axis: it can be remembered and does not generalise."""
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions

    def own_axes(seed: int, prefix: str) -> Any:
        data = planted(seed, gap=0.0, d_model=64, sites=(0,), prefix=prefix).activations
        axes = 2 * np.random.default_rng(seed).normal(size=(16, 1, 64))
        part = torch.from_numpy(np.tile(np.repeat(axes, 8, axis=0), (2, 1, 1))).float()
        sign = torch.tensor([1.0 if label == "hero" else -1.0 for label in data.labels])
        return data.with_values(data.values + sign[:, None, None] * part)

    found_on, held_out = own_axes(0, "family"), own_axes(1, "held")
    directions = find_directions(found_on, FINDERS["linear_probe"](), "hero", "neutral")
    row = validate(directions, held_out, found_on, relabellings=19).rows[0]
    assert row.chance is not None
    assert row.chance.control_accuracy.value > 0.7
    assert row.chance.selectivity.value < -0.1


def test_families_that_were_used_are_refused(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate

    directions, _, found_on = found_and_held_out(planted)
    with pytest.raises(SplitLeakError, match="held-out families"):
        validate(directions, found_on)


def test_without_the_activations_it_was_found_on_only_held_out_numbers_are_given(
    planted: Any,
) -> None:
    from persona_probe.directions.checks.validation import validate

    directions, held_out, _ = found_and_held_out(planted)
    row = validate(directions, held_out, permutations=50).rows[0]
    assert row.auroc.defined
    assert row.chance is row.reliability is None
    assert row.to_json()["chance"] is None


def test_a_direction_that_only_reads_length_does_not_beat_length(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions

    def wordy(seed: int, prefix: str, gap: float) -> Any:
        data = planted(seed, gap=gap, prefix=prefix, sites=(0,)).activations
        rng = np.random.default_rng(seed)
        longer = [label == "hero" for label in data.labels]
        counts = rng.integers(5, 15, size=len(data)) + 8 * np.array(longer)
        values = data.values.clone()
        values[:, 0, 0] += torch.from_numpy(counts).float() * 3
        return replace(data.with_values(values), texts=tuple("x " * int(c) for c in counts))

    found_on, held_out = wordy(0, "family", 0.0), wordy(1, "held", 0.0)
    directions = find_directions(found_on, FINDERS["mean_difference"](), "hero", "neutral")
    row = validate(directions, held_out, found_on, relabellings=19).rows[0]
    assert set(row.baselines) == {"bag_of_words", "length"}
    assert row.auroc.value > 0.85
    assert row.baselines["length"].value > 0.9
    assert row.gain.value <= 0.02

    found_on, held_out = wordy(0, "family", 40.0), wordy(1, "held", 40.0)
    directions = find_directions(found_on, FINDERS["mean_difference"](), "hero", "neutral")
    row = validate(directions, held_out, found_on, relabellings=19).rows[0]
    assert row.gain.low > 0


def test_texts_in_other_words_are_caught_by_the_bag_of_words(planted: Any) -> None:
    from persona_probe.directions.checks.surface import surface_scores

    def worded(seed: int) -> Any:
        data = planted(seed).activations
        words = {"hero": "duty now", "neutral": "maybe so"}
        return replace(data, texts=tuple(words[label] for label in data.labels))

    train, test = worded(0), worded(1)
    y = torch.tensor([label == "hero" for label in train.labels])
    scores = surface_scores(train, y, test)
    assert (scores["bag_of_words"][y.numpy()] > 0).all()
    assert (scores["bag_of_words"][~y.numpy()] < 0).all()
    assert len(set(scores["length"])) == 1
    assert surface_scores(replace(train, texts=None), y, test) == {}


def test_further_baselines_count_too(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.classes import projections

    directions, held_out, _ = found_and_held_out(planted)
    copy = projections(list(directions.values()), held_out)[0].numpy()
    rows = validate(directions, held_out, baselines={"embedding": copy}).rows
    assert rows[0].baselines["embedding"].value == rows[0].auroc.value
    assert rows[0].gain.value == 0.0


def test_a_captured_set_is_a_baseline_too(planted: Any) -> None:
    """What tells the classes apart before the first block is matched by id and label."""
    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.checks.validation import validate
    from persona_probe.models.site import Site

    def embedded(activations: Any, gap: float) -> Any:
        sign = torch.tensor([0.5 if label == "hero" else -0.5 for label in activations.labels])
        noise = torch.randn(len(activations), 1, 4, generator=torch.Generator().manual_seed(0))
        noise[:, 0, 2] += gap * sign
        made = ActivationSet.of(
            noise, [Site(0)], "last_prompt_token", activations.ids, activations.labels,
            activations.families, activations.provenance,
        )  # fmt: skip
        order = torch.randperm(len(made), generator=torch.Generator().manual_seed(1)).tolist()
        return made.take(order)

    directions, held_out, found_on = found_and_held_out(planted, gap=4.0)
    both = joined(found_on, held_out)
    options = {"permutations": 9, "relabellings": 9}
    for gap, beaten in ((0.0, True), (6.0, False)):
        captured = {"embedding": embedded(both, gap)}
        row = validate(directions, held_out, found_on, captured=captured, **options).rows[0]
        area = row.baselines["embedding"].value
        assert area == pytest.approx(1.0 if gap else 0.5, abs=0.1)
        assert (row.gain.low > 0) is beaten
        assert ("surface" in row.flags) is not beaten
    short = {"embedding": embedded(found_on, 0.0)}
    with pytest.raises(RequestError, match="'embedding' lacks the example 'held-0' labelled"):
        validate(directions, held_out, found_on, captured=short, **options)


def joined(one: Any, other: Any) -> Any:
    from persona_probe.activations.activation_set import ActivationSet

    return ActivationSet.of(
        torch.cat([one.values, other.values]),
        one.sites,
        one.position,
        one.ids + other.ids,
        one.labels + other.labels,
        one.families + other.families,
        one.provenance,
    )


def test_other_personas_and_nuisances_stand_beside_the_direction(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions
    from persona_probe.models.site import Site

    directions, held_out, _ = found_and_held_out(planted, gap=5.0)
    finder = FINDERS["mean_difference"]()
    other = find_directions(planted(7, truth_seed=99).activations, finder, "hero", "neutral")
    nearly = {site: directions[site] + 0.1 * other[site] for site in directions}
    result = validate(
        directions,
        held_out,
        wrong={"villain": other},
        nuisances={"refusal": other, "itself": nearly},
    )
    for row in result.rows:
        names = {"wrong: villain", "without: refusal", "without: itself", "without: all"}
        assert names < set(row.controls)
        assert row.controls["wrong: villain"].high < row.auroc.low
        assert row.controls["without: refusal"].value == pytest.approx(row.auroc.value, abs=0.1)
        assert row.controls["without: itself"].high < row.auroc.low
        assert not row.controls["without: all"].defined
        assert "lies in the span of the others" in str(row.controls["without: all"].reason)
        assert row.controls["without: refusal"].n == row.auroc.n
    fewer = validate(directions, held_out, wrong={"villain": {Site(1): other[Site(1)]}})
    assert ["wrong: villain" in row.controls for row in fewer.rows] == [False, True, False]


def test_one_loud_coordinate_is_flagged(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate

    directions, held_out, _ = found_and_held_out(planted)
    assert not validate(directions, held_out).rows[0].outlier_flag
    loud = held_out.values.clone()
    loud[:, 0, 5] *= 200
    result = validate(directions, held_out.with_values(loud))
    assert [row.outlier_flag for row in result.rows] == [True, False, False]


def test_validation_is_the_same_twice(planted: Any) -> None:
    from persona_probe.directions.checks.validation import validate

    directions, held_out, found_on = found_and_held_out(planted)
    options = {"permutations": 50, "relabellings": 9}
    first = validate(directions, held_out, found_on, **options)
    assert validate(directions, held_out, found_on, **options).to_json() == first.to_json()


def null_p_values(planted: Any, draws: int) -> tuple[list[float], list[float], list[float]]:
    """Permutation and shuffle p values, and AUROCs, of labels without meaning."""
    from persona_probe.directions.checks.validation import validate
    from persona_probe.directions.finder import find_directions

    options = {"families": 10, "per_family": 4, "gap": 0.0, "d_model": 16, "sites": (0,)}
    p, shuffled, areas = [], [], []
    for seed in range(draws):
        found_on = planted(2 * seed, **options).activations
        held_out = planted(2 * seed + 1, prefix="held", **options).activations
        directions = find_directions(found_on, FINDERS["mean_difference"](), "hero", "neutral")
        row = validate(
            directions,
            held_out,
            found_on,
            permutations=99,
            relabellings=99,
            seed=seed,
        ).rows[0]
        assert row.chance is not None
        p.append(row.p)
        shuffled.append(row.chance.p)
        areas.append(row.auroc.value)
    return p, shuffled, areas


def test_null_labels_rarely_look_significant(planted: Any) -> None:
    p, shuffled, areas = null_p_values(planted, 40)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)
    # With a true rate of 5 %, 40 draws hold more than 7 with probability 0.001.
    assert sum(value <= 0.05 for value in p) <= 7
    assert sum(value <= 0.05 for value in shuffled) <= 7


@pytest.mark.slow
def test_null_p_values_are_uniform(planted: Any) -> None:
    from scipy.stats import kstest

    p, shuffled, areas = null_p_values(planted, 250)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.01)
    assert kstest(p, "uniform").pvalue > 0.01
    assert kstest(shuffled, "uniform").pvalue > 0.01
