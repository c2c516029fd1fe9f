"""Many probes at once are those of scikit-learn, and so is the choice of their penalty."""

from typing import Any

import numpy as np
import pytest
import torch

from persona_probe.errors import DegenerateClassesError
from tests.directions.designs import in_pairs


def test_the_linear_probe_is_the_pipeline_of_scikit_learn(planted: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from persona_probe.directions.finders.linear_probe import LinearProbe

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
    from persona_probe.directions.finders.linear_probe import LinearProbe

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
    from persona_probe.directions.finders.linear_probe import LinearProbe
    from persona_probe.directions.finders.logistic import logistic_fits

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

    from persona_probe.directions.finders.logistic import logistic_fits

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
    from persona_probe.directions.finders.linear_probe import LinearProbe
    from persona_probe.directions.finders.penalty import GRID, chosen_penalty

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
    from persona_probe.directions.finders.linear_probe import LinearProbe

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
