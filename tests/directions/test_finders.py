"""What every finder in the list must do, and what each one equals."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from persona_probe.directions import FINDERS
from persona_probe.errors import (
    DegenerateClassesError,
    PersonaProbeError,
    RequestError,
    SplitLeakError,
)


@pytest.mark.parametrize("name", FINDERS)
def test_a_planted_direction_is_found(name: str, planted: Any) -> None:
    # Least cosine of the three sites at 1,000 pairs, width 32, classes 3 noise deviations apart:
    # mean difference .996, linear probe .978, whitened difference .989, shrinkage LDA .994,
    # principal component .995. At 128 pairs: .958, .823, .912, .947, .950.
    from persona_probe.directions.finder import find_directions

    data = planted(families=40, per_family=25)
    found = find_directions(data.activations, FINDERS[name](), "hero", "neutral")
    for i, direction in enumerate(found.values()):
        assert direction.unit @ data.truth[i] > 0.95


@pytest.mark.parametrize("name", FINDERS)
def test_exchanging_the_labels_turns_the_direction_round(name: str, planted: Any) -> None:
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    there = find_directions(activations, FINDERS[name](), "hero", "neutral")
    back = find_directions(activations, FINDERS[name](), "neutral", "hero")
    for site, direction in there.items():
        assert direction.cosine(back[site]) == pytest.approx(-1, abs=1e-5)
        assert direction.gap == pytest.approx(back[site].gap, rel=1e-4)


def in_pairs(n: int, sites: int = 1) -> Any:
    """The design of `planted`: the k-th examples of both halves are a pair."""
    from persona_probe.directions.design import Design
    from persona_probe.models.site import Site

    pair = torch.arange(n) % (n // 2)
    return Design(tuple(map(Site, range(sites))), pair // 8, pair)


def fit(finder: Any, x: Any, y: Any, design: Any) -> Any:
    return finder.fit_many(x[None], y[None], torch.ones(1, len(y)), design)[0, 0]


@pytest.mark.parametrize("name", FINDERS)
def test_the_order_of_examples_and_a_shift_of_all_of_them_change_nothing(
    name: str, planted: Any
) -> None:
    x = planted().activations.values[:, 0].double()
    design = in_pairs(len(x))
    y = torch.arange(len(x)) < len(x) // 2
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    finder = FINDERS[name]()
    raw = fit(finder, x, y, design)
    assert torch.isfinite(raw).all()
    same = fit(finder, x[order], y[order], design.take(order))
    # The solvers of the probe and of the principal component stop at a tolerance.
    assert same == pytest.approx(raw, abs=1e-4 * float(raw.norm()))
    shifted = fit(finder, x + 100.0, y, design)
    assert shifted == pytest.approx(raw, abs=1e-4 * float(raw.norm()))


@pytest.mark.parametrize("name", FINDERS)
def test_the_unit_of_the_activations_does_not_matter(name: str, planted: Any) -> None:
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    larger = activations.with_values(activations.values * 1000.0)
    found = find_directions(activations, FINDERS[name](), "hero", "neutral")
    for site, direction in find_directions(larger, FINDERS[name](), "hero", "neutral").items():
        assert direction.cosine(found[site]) == pytest.approx(1, abs=1e-5)
        assert direction.gap == pytest.approx(1000.0 * found[site].gap, rel=1e-4)


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("width", [32, 12])
def test_a_weight_of_two_is_the_example_twice_and_a_weight_of_zero_is_its_absence(
    name: str, width: int, planted: Any
) -> None:
    """So all sites and draws at once are what each is by itself; more examples than axes or not."""
    data = planted(families=4 if width == 32 else 16, per_family=3, d_model=width)
    x = data.activations.values.transpose(0, 1).double()
    n = x.shape[1]
    y = torch.arange(n) < n // 2
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([y, ~y, torch.rand(n, generator=generator) < 0.5])
    weights = torch.randint(0, 3, (3, n), generator=generator).double()
    design = in_pairs(n, sites=3)
    finder = FINDERS[name]()
    many = finder.fit_many(x, labels, weights, design)
    assert many.shape == (3, 3, width)
    for draw in range(3):
        rows = torch.repeat_interleave(torch.arange(n), weights[draw].long())
        for site in range(3):
            repeated = fit(finder, x[site, rows], labels[draw, rows], design.take(rows))
            # The probe's solver stops at a tolerance: directions agree to 1e-5.
            cosine = torch.cosine_similarity(many[draw, site], repeated, dim=0)
            assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", FINDERS)
def test_a_class_that_is_missing_in_a_draw_is_refused(name: str, planted: Any) -> None:
    x = planted(families=2).activations.values.transpose(0, 1).double()
    n = x.shape[1]
    y = torch.arange(n) < n // 2
    weights = torch.stack([torch.ones(n), y.float()])
    with pytest.raises(DegenerateClassesError, match="got 16 positive and 0 negative ones"):
        FINDERS[name]().fit_many(x, y.expand(2, -1), weights, in_pairs(n, 3))


@pytest.mark.parametrize("name", FINDERS)
def test_two_planted_personas_are_separated(name: str, planted: Any) -> None:
    """Found together, each direction is its own truth's; the truths have a cosine below .2."""
    from dataclasses import replace

    from persona_probe.activations.activation_set import ActivationSet
    from persona_probe.directions.finder import find_contrasts, find_directions

    size = {"families": 40, "per_family": 25, "gap": 6.0}
    hero, villain = planted(**size), planted(seed=1, truth_seed=5678, **size)
    assert (hero.truth * villain.truth).sum(dim=1).abs().max() < 0.3
    n = len(hero.activations) // 2
    labels = ("hero",) * n + ("neutral",) * n + ("villain",) * n
    ids = (*hero.activations.ids, *hero.activations.ids[:n])
    values = [hero.activations.values, villain.activations.values[:n]]
    # The villain answers the hero's prompts: what is not his own comes from the hero's set.
    neutral = hero.activations.values[n:]
    values[1] = neutral + values[1] - villain.activations.values[n:]
    both = ActivationSet.of(
        torch.cat(values),
        hero.activations.sites,
        "last_prompt_token",
        ids,
        labels,
        (*hero.activations.families, *hero.activations.families[:n]),
        hero.activations.provenance,
    )
    finder = FINDERS[name]()
    found = find_contrasts(both, finder, ["hero", "villain"], "neutral")
    for i, site in enumerate(both.sites):
        assert found["hero"][site].unit @ hero.truth[i] > 0.95
        assert found["villain"][site].unit @ villain.truth[i] > 0.95
        assert abs(found["villain"][site].cosine(found["hero"][site])) < 0.4
        alone = find_directions(both, finder, "villain", "neutral")[site]
        assert alone.cosine(found["villain"][site]) == pytest.approx(1, abs=1e-6)
        assert alone.gap == pytest.approx(found["villain"][site].gap, rel=1e-4)
        assert replace(alone, unit=found["villain"][site].unit).norm == found["hero"][site].norm


@pytest.mark.parametrize("name", FINDERS)
def test_a_finder_holds_settings_only_and_can_be_compared_and_cloned(name: str) -> None:
    from sklearn.base import clone

    assert FINDERS[name]() == FINDERS[name]()
    assert FINDERS[name].name == name
    assert clone(FINDERS[name]()) == FINDERS[name]()
    with pytest.raises(AttributeError):
        FINDERS[name]().name = "other"


def test_the_mean_difference_is_the_difference_of_means(planted: Any) -> None:
    x = planted().activations.values[:, 0]
    y = torch.arange(len(x)) < 50
    raw = FINDERS["mean_difference"]().fit(x, y)
    assert raw == pytest.approx(x[:50].double().mean(0) - x[50:].double().mean(0), abs=1e-9)


def test_the_linear_probe_is_the_pipeline_of_scikit_learn(planted: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from persona_probe.directions.linear_probe import LinearProbe

    x = planted().activations.values[:, 0] * torch.linspace(0.1, 10, 32)
    y = torch.arange(len(x)) < len(x) // 2
    raw = LinearProbe(c=0.3, tolerance=1e-9).fit(x, y)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-9))
    pipeline.fit(x.double().numpy(), y.numpy())
    decision = pipeline.decision_function(x.double().numpy())
    ours = (x.double() @ raw).numpy()
    assert ours - ours.mean() == pytest.approx(decision - decision.mean(), abs=1e-5)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_many_probes_at_once_are_those_of_scikit_learn(c: float, planted: Any) -> None:
    """Separable and not, badly scaled, with a constant feature, at strong and weak penalties."""
    from persona_probe.directions.linear_probe import LinearProbe

    x = planted(gap=6.0, per_family=4).activations.values.transpose(0, 1).double()
    x = x * torch.logspace(-2, 2, 32) + 50.0
    x[..., 7] = 3.0
    n = x.shape[1]
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([torch.arange(n) < n // 2, torch.rand(n, generator=generator) < 0.3])
    weights = torch.randint(0, 3, (2, n), generator=generator).double()
    probe = LinearProbe(c=c, tolerance=1e-8)
    many = probe.fit_many(x, labels, weights)
    each = torch.stack(
        [
            torch.stack([probe._by_scikit_learn(at, y, w) for at in x])
            for y, w in zip(labels, weights, strict=True)
        ]
    )
    assert (torch.cosine_similarity(many, each, dim=-1) > 1 - 1e-6).all()
    assert many.norm(dim=-1) == pytest.approx(each.norm(dim=-1), rel=1e-3)


def test_probes_that_do_not_converge_in_a_batch_are_handed_to_scikit_learn(planted: Any) -> None:
    from persona_probe.directions.linear_probe import LinearProbe
    from persona_probe.directions.logistic import logistic_fits

    x = planted().activations.values[:, :1].transpose(0, 1).double()
    n = x.shape[1]
    labels = (torch.arange(n) < n // 2).expand(2, -1)
    weights = torch.ones(2, n, dtype=torch.float64)
    c = torch.ones(2, 1, dtype=torch.float64)
    fits = logistic_fits(x, labels, weights, c, max_iter=1, tolerance=1e-6)
    assert not fits.converged.any()
    probe = LinearProbe(max_iter=1)
    with pytest.warns(UserWarning, match="converge"):
        many = probe.fit_many(x, labels, weights)
    with pytest.warns(UserWarning, match="converge"):
        expected = probe._by_scikit_learn(x[0], labels[0], weights[0])
    assert many[0, 0] == pytest.approx(expected, abs=1e-12)


def test_the_score_of_a_probe_is_that_of_scikit_learn_intercept_included(planted: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from persona_probe.directions.logistic import logistic_fits

    x = planted().activations.values[:, :1].transpose(0, 1).double() + 30.0
    y = torch.arange(x.shape[1]) < 90
    ones = torch.ones(1, len(y), dtype=torch.float64)
    fits = logistic_fits(x, y[None], ones, ones[:, :1], 1000, 1e-9)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-9))
    expected = pipeline.fit(x[0].numpy(), y.numpy()).decision_function(x[0].numpy())
    assert (x[0] @ fits.weights[0, 0] + fits.intercept[0, 0]).numpy() == pytest.approx(
        expected, abs=1e-5
    )


def test_the_penalty_is_the_one_that_a_grid_search_over_families_chooses(planted: Any) -> None:
    """With labels of little meaning the choice is not the weakest penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from persona_probe.directions.design import family_folds
    from persona_probe.directions.linear_probe import LinearProbe
    from persona_probe.directions.penalty import GRID, chosen_penalty

    chosen = []
    for gap in (0.3, 6.0):
        activations = planted(gap=gap, families=12, per_family=4, sites=(0, 1)).activations
        x = activations.values.transpose(0, 1).double()
        n = x.shape[1]
        design = in_pairs(n, 2)
        y = (torch.arange(n) < n // 2)[None]
        ones = torch.ones(1, n)
        c = chosen_penalty(x, y, ones, design.families, 1000, 1e-6)
        folds = PredefinedSplit(family_folds(design.families, 5))
        grid = {"logisticregression__C": GRID}
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        search = GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=folds)
        for site in range(2):
            search.fit(x[site].numpy(), y[0].numpy())
            assert c[0, site] == search.best_params_["logisticregression__C"]
        chosen.append(float(c[0, 0]))
        found = LinearProbe(c=None, tolerance=1e-7).fit_many(x, y, ones, design)
        expected = LinearProbe(c=chosen[-1], tolerance=1e-7).fit(x[0], y[0])
        assert found[0, 0] == pytest.approx(expected, abs=1e-4)
    assert chosen[0] < chosen[1]


def test_families_stay_whole_in_folds_and_few_of_them_make_few_folds(planted: Any) -> None:
    from sklearn.model_selection import GroupKFold

    from persona_probe.directions.design import family_folds
    from persona_probe.directions.linear_probe import LinearProbe

    families = torch.tensor([0] * 5 + [1] * 3 + [2] * 3 + [3] * 2 + [4] * 2 + [5] * 1)
    fold = family_folds(families, 3)
    theirs = np.empty(len(families), dtype=int)
    split = GroupKFold(3).split(families, groups=families)
    for k, (_, tested) in enumerate(split):
        theirs[tested] = k
    assert np.bincount(fold).tolist() == sorted(np.bincount(theirs), reverse=True)
    assert all(len(set(fold[families == f])) == 1 for f in range(6))
    assert len(set(family_folds(families[:8], 5))) == 2
    x = planted(families=1).activations.values.transpose(0, 1).double()
    y = torch.arange(x.shape[1]) < x.shape[1] // 2
    with pytest.raises(DegenerateClassesError, match=r"two prompt families or more.*set c"):
        LinearProbe(c=None).fit_many(x, y[None], torch.ones(1, len(y)), in_pairs(len(y), 3))


@pytest.mark.parametrize(("n", "width"), [(200, 20), (40, 60)])
@pytest.mark.parametrize("loud", [1.0, 1e4])
def test_discriminants_are_those_of_scikit_learn(n: int, width: int, loud: float) -> None:
    """With fewer examples than axes, and with one axis whose variance is 1e8 that of the others."""
    from sklearn.covariance import LedoitWolf, ledoit_wolf
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, width)) @ np.diag(rng.uniform(0.5, 2, width)) + 3.0
    x[:, 3] *= loud
    y = np.arange(n) < n // 3
    x[y, 0] += 2.0
    lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=LedoitWolf())
    expected = lda.fit(x, y).coef_[0]
    found = FINDERS["shrinkage_lda"]().fit(torch.from_numpy(x), torch.from_numpy(y))
    # scikit-learn's least squares loses digits where variances differ by 1e8.
    assert found.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-6 * np.abs(expected).max())
    difference = x[y].mean(axis=0) - x[~y].mean(axis=0)
    within = np.concatenate([x[y] - x[y].mean(axis=0), x[~y] - x[~y].mean(axis=0)])
    covariance, amount = ledoit_wolf(within, assume_centered=True)
    assert 0 < amount < 1
    whitened = FINDERS["whitened_difference"]().fit(torch.from_numpy(x), torch.from_numpy(y))
    assert covariance @ whitened.numpy() == pytest.approx(difference, abs=1e-6 * loud)


def test_a_whitened_difference_separates_better_along_a_varying_axis() -> None:
    """Classes 1 apart on a quiet axis and on one of deviation 10: the second is worth little."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(4000, 2)) * [1.0, 10.0])
    y = torch.arange(4000) < 2000
    x[y] += 1.0
    for name in ("whitened_difference", "shrinkage_lda"):
        raw = FINDERS[name]().fit(x, y)
        assert raw[1] / raw[0] == pytest.approx(0.01, abs=0.006)
    plain = FINDERS["mean_difference"]().fit(x, y)
    assert plain[1] / plain[0] > 0.5


@pytest.mark.parametrize("name", ["whitened_difference", "shrinkage_lda"])
def test_classes_without_variation_are_refused_by_discriminants(name: str) -> None:
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    y = torch.tensor([True, True, False, False])
    with pytest.raises(DegenerateClassesError, match=r"vary too little .* use mean_difference"):
        FINDERS[name]().fit(x, y)


@pytest.mark.parametrize("name", ["whitened_difference", "shrinkage_lda"])
def test_collinear_activations_have_a_discriminant(name: str, planted: Any) -> None:
    """Copies of an axis have no invertible covariance; the shrunken one treats them alike."""
    x = planted().activations.values[:, 0].double()
    y = torch.arange(len(x)) < len(x) // 2
    raw = FINDERS[name]().fit(torch.cat([x, x[:, :5]], dim=1), y)
    assert torch.isfinite(raw).all()
    assert raw[32:] == pytest.approx(raw[:5], rel=1e-6)


def test_the_principal_component_is_that_of_centred_pairs(planted: Any) -> None:
    """scikit-learn's, of examples minus the midpoint of their pair."""
    from sklearn.decomposition import PCA

    x = planted().activations.values[:, 0].double().numpy()
    n = len(x) // 2
    middle = (x[:n] + x[n:]) / 2
    pca = PCA(1).fit(np.concatenate([x[:n] - middle, x[n:] - middle]))
    y = torch.arange(2 * n) < n
    found = fit(FINDERS["principal_component"](), torch.from_numpy(x), y, in_pairs(2 * n))
    assert abs(found.numpy() @ pca.components_[0]) == pytest.approx(1, abs=1e-9)


def test_the_principal_component_of_uneven_pairs_counts_them_as_stated() -> None:
    rng = np.random.default_rng(0)
    x, pair = rng.normal(size=(60, 5)), np.repeat(np.arange(12), 5)
    y = rng.random(60) < 0.4
    total = np.zeros((5, 5))
    for g in range(12):
        positive, negative = x[(pair == g) & y], x[(pair == g) & ~y]
        a, b = len(positive), len(negative)
        if a and b:
            d = positive.mean(axis=0) - negative.mean(axis=0)
            total += 2 * a * b / (a + b) * np.outer(d, d)
    expected = np.linalg.eigh(total)[1][:, -1]
    from persona_probe.directions.design import Design
    from persona_probe.models.site import Site

    number = torch.from_numpy(pair)
    design = Design((Site(0),), number, number)
    raw = fit(FINDERS["principal_component"](), torch.from_numpy(x), torch.from_numpy(y), design)
    assert abs(raw.numpy() @ expected) == pytest.approx(1, abs=1e-9)


def test_the_principal_component_finds_what_varies_most_and_not_what_the_classes_share() -> None:
    """Pairs differ by 1 along the first axis always, and by ±3 along the second."""
    sign = torch.tensor([3.0, -3.0]).repeat(50)
    delta = torch.stack([torch.ones(100), sign, torch.zeros(100)], dim=1)
    x, y = torch.cat([delta / 2, -delta / 2]), torch.arange(200) < 100
    raw = fit(FINDERS["principal_component"](), x, y, in_pairs(200))
    assert raw[1].abs() == pytest.approx(1, abs=1e-6)
    assert FINDERS["mean_difference"]().fit(x, y) == pytest.approx([1, 0, 0], abs=1e-9)


def test_a_principal_component_needs_pairs(planted: Any) -> None:
    x = planted().activations.values[:, 0]
    n = len(x)
    y = torch.arange(n) < n // 2
    finder = FINDERS["principal_component"]()
    with pytest.raises(RequestError, match="which examples are pairs"):
        finder.fit(x, y)
    from persona_probe.directions.design import Design
    from persona_probe.models.site import Site

    alone = Design((Site(0),), torch.arange(n), torch.arange(n))
    with pytest.raises(DegenerateClassesError, match="no id and no prompt family has"):
        fit(finder, x, y, alone)
    same = x[: n // 2].repeat(2, 1)
    with pytest.raises(DegenerateClassesError, match="members of every pair are equal"):
        fit(finder, same, y, in_pairs(n))


def test_pairs_are_ids_of_both_classes_and_else_families(planted: Any) -> None:
    from dataclasses import replace

    from persona_probe.directions.design import Design

    data = planted(families=2, per_family=2).activations
    y = torch.tensor([label == "hero" for label in data.labels])
    assert Design.of(data, y).pairs.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    unpaired = replace(data, ids=("0", "x", *data.ids[2:]))
    assert Design.of(unpaired, y).pairs.tolist() == [0, 0, 1, 2, 0, 0, 1, 2]
    assert Design.of(unpaired, y).families.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert Design.of(data, y, data.sites[1:2]).sites == data.sites[1:2]
    assert Design.of(data, y).model_hash == data.provenance.model_hash


def test_without_the_mean_difference_the_class_means_are_equal(planted: Any) -> None:
    """The identity that linear concept erasure rests on."""
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    found = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    n = len(activations) // 2
    for i, direction in enumerate(found.values()):
        x, unit = activations.values[:, i].double(), direction.unit.double()
        assert (x[:n].mean(0) - x[n:].mean(0)).norm() > 1
        erased = x - (x @ unit)[:, None] * unit
        assert (erased[:n].mean(0) - erased[n:].mean(0)).norm() < 1e-5


def test_the_direction_is_persona_vectors_difference_of_averages(planted: Any) -> None:
    """Mean over the persona's responses minus mean over the others', layer by layer."""
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    n = len(activations) // 2
    stacked = activations.values.transpose(0, 1)
    theirs = stacked[:, :n].mean(dim=1) - stacked[:, n:].mean(dim=1)
    found = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    for i, direction in enumerate(found.values()):
        assert direction.raw == pytest.approx(theirs[i], abs=1e-4)


def test_an_unknown_finder_is_refused_with_the_choices() -> None:
    from persona_probe.directions import finder_named

    with pytest.raises(RequestError, match="choose one of mean_difference, linear_probe, white"):
        finder_named("telepathy")
    with pytest.raises(RequestError, match="has no setting 'c'; only linear_probe has"):
        finder_named("mean_difference", c=1.0)
    assert finder_named("linear_probe", c=0.1).get_params()["c"] == 0.1
    with pytest.raises(RequestError, match="needs its nuisance directions"):
        finder_named("mean_difference orthogonal to refusal")


def test_sign_and_scale_do_not_depend_on_what_the_finder_returns(planted: Any) -> None:
    from persona_probe.directions.finder import Finder, find_directions

    @dataclass(frozen=True)
    class Backwards(Finder):
        name: ClassVar[str] = "backwards"

        def fit(self, x: Any, y: Any, weights: Any = None) -> Any:  # noqa: ARG002
            return -1e-3 * (x[y].mean(0) - x[~y].mean(0))

    activations = planted().activations
    expected = find_directions(activations, FINDERS["mean_difference"](), "hero", "neutral")
    found = find_directions(activations, Backwards(), "hero", "neutral")
    for site, direction in found.items():
        assert direction.cosine(expected[site]) == pytest.approx(1, abs=1e-6)
        assert direction.gap == pytest.approx(expected[site].gap, rel=1e-5)
        assert direction.finder == "backwards"


def test_a_direction_carries_where_it_came_from(planted: Any) -> None:
    from persona_probe.directions.finder import find_directions
    from persona_probe.models.site import Site
    from persona_probe.personas.splits import split_families

    data = planted().activations
    split = split_families(data.families, seed=0)
    find_part = data.where(families=split.find)
    finder = FINDERS["mean_difference"]()
    norms = dict.fromkeys(data.sites, 7.0)
    direction = find_directions(
        find_part, finder, "hero", "neutral", persona="deontology", split=split, norms=norms
    )[Site(1)]
    assert direction.persona == "deontology"
    assert direction.split_hash == direction.provenance.split_hash == split.hash
    assert direction.families_used == split.find
    assert direction.provenance.model_hash == data.provenance.model_hash
    assert (direction.norm, direction.position) == (7.0, "last_prompt_token")
    measured = find_directions(find_part, finder, "hero", "neutral")[Site(1)].norm
    neutral = find_part.where(labels=["neutral"]).site(Site(1))
    assert measured == pytest.approx(float(neutral.norm(dim=1).median()), rel=1e-5)
    with pytest.raises(SplitLeakError, match="'find' part"):
        find_directions(data, finder, "hero", "neutral", split=split)


def test_a_missing_class_or_two_equal_classes_are_refused(planted: Any) -> None:

    from persona_probe.directions.finder import find_directions

    finder = FINDERS["mean_difference"]()
    activations = planted().activations
    with pytest.raises(DegenerateClassesError, match="0 labelled 'villain'"):
        find_directions(activations, finder, "villain", "neutral")
    n = len(activations) // 2
    same = activations.with_values(activations.values[:n].repeat(2, 1, 1))
    with pytest.raises(DegenerateClassesError, match=r"coincide at blocks\.0\.hook_out"):
        find_directions(same, finder, "hero", "neutral")
    broken = activations.with_values(activations.values * float("nan"))
    with pytest.raises(PersonaProbeError, match="NaN"):
        find_directions(broken, finder, "hero", "neutral")


def test_importing_the_room_does_not_import_scikit_learn() -> None:
    import subprocess
    import sys

    code = (
        "import sys, persona_probe.directions, persona_probe.directions.validation\n"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_sets_become_one_contrast_whose_pairs_are_kept(planted: Any) -> None:
    from dataclasses import replace

    from persona_probe.activations.columns import InMemory
    from persona_probe.directions.finder import find_directions
    from persona_probe.directions.opposed import opposed
    from persona_probe.directions.relabelling import pair_index
    from persona_probe.errors import SiteMismatchError

    data = planted()
    after = data.activations.where(labels=["hero"])
    before = data.activations.where(labels=["neutral"])
    both = opposed(after, before)
    y = torch.tensor([label == "after" for label in both.labels])
    assert pair_index(both.ids, y) is not None
    finder = FINDERS["mean_difference"]()
    shift = find_directions(both, finder, "after", "before", family="model_diff")
    expected = find_directions(data.activations, finder, "hero", "neutral")
    for site, direction in shift.items():
        assert (direction.raw == expected[site].raw).all()
        assert direction.family == "model_diff"
    fewer = InMemory(before.values[:, :2], before.sites[:2])
    with pytest.raises(SiteMismatchError, match="same sites"):
        opposed(after, replace(before, columns=fewer))
    with pytest.raises(RequestError, match="response_mean"):
        opposed(after, replace(before, position="response_mean"))


def test_accumulation_is_exact_enough_beside_a_large_common_mean(planted: Any) -> None:
    """A residual stream with a mean of 1e4 and a class difference of 1e-2."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=64)
    x = 1e4 + rng.normal(size=(400, 64)) * 1e-3
    x[:200] += 1e-2 * truth
    y = torch.arange(400) < 200
    raw = FINDERS["mean_difference"]().fit(torch.from_numpy(x), y)
    assert torch.cosine_similarity(raw, torch.from_numpy(truth), dim=0) > 0.999
