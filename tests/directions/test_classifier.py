"""The estimator that a direction induces, as scikit-learn sees it."""

from typing import Any

import numpy as np
import pytest

from persona_probe.directions.finders import FINDERS


def classes(n: int = 200, d: int = 8, gap: float = 1.0) -> Any:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(n) < 0.3, "hero", "neutral")
    x = rng.normal(size=(n, d)) + 5.0
    x[y == "hero", 0] += gap
    return x, y


@pytest.mark.parametrize("finder", ["mean_difference", "linear_probe"])
def test_it_follows_the_contract_of_estimators(finder: str) -> None:
    """About 1 s. The probe is solved to the digits that the check of sample weights compares."""
    from sklearn.utils.estimator_checks import check_estimator

    from persona_probe.directions.classifier import DirectionClassifier
    from persona_probe.directions.finders.linear_probe import LinearProbe

    exact = {"linear_probe": LinearProbe(tolerance=1e-12)}
    results = check_estimator(DirectionClassifier(exact.get(finder, finder)), on_skip=None)
    passed = [result["check_name"] for result in results if result["status"] == "passed"]
    assert len(passed) > 50
    # The only other one needs an array library that is not installed.
    others = {result["check_name"] for result in results} - set(passed)
    assert others == {"check_array_api_input"}


@pytest.mark.parametrize("name", FINDERS)
def test_it_points_where_the_direction_points(name: str, planted: Any) -> None:
    from persona_probe.directions.classifier import DirectionClassifier
    from persona_probe.directions.finder import find_directions

    activations = planted().activations
    site = activations.sites[1]
    direction = find_directions(activations, FINDERS[name](), "neutral", "hero")[site]
    x, y = activations.site(site).numpy(), np.array(activations.labels)
    found = DirectionClassifier(name).fit(x, y, groups=np.array(activations.ids))
    assert found.classes_.tolist() == ["hero", "neutral"]
    assert found.coef_[0] == pytest.approx(direction.unit.numpy(), abs=1e-5)
    assert -found.intercept_[0] == pytest.approx(direction.midpoint, rel=1e-4)
    assert found.gap_ == pytest.approx(direction.gap, rel=1e-4)
    beyond = direction.project(activations.site(site)).numpy() > 0
    assert (found.predict(x) == np.where(beyond, "neutral", "hero")).all()
    assert found.score(x, y) == (beyond == (y == "neutral")).mean()


def test_it_works_in_pipelines_cross_validation_and_grid_searches() -> None:
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from persona_probe.directions.classifier import DirectionClassifier
    from persona_probe.directions.finders.linear_probe import LinearProbe

    x, y = classes(gap=3.0)
    pipeline = make_pipeline(StandardScaler(), DirectionClassifier("shrinkage_lda"))
    scores = cross_val_score(pipeline, x, y, scoring="roc_auc", cv=4)
    assert scores.min() > 0.9
    assert cross_val_score(pipeline, x, np.random.default_rng(1).permutation(y)).mean() < 0.7
    probe = DirectionClassifier(LinearProbe())
    search = GridSearchCV(probe, {"finder__c": [1e-4, 1.0], "finder": [LinearProbe()]})
    search.fit(x, y)
    assert search.best_estimator_.finder in (LinearProbe(c=1e-4), LinearProbe(c=1.0))
    assert probe.finder == LinearProbe()
    assert clone(search.best_estimator_).get_params() == search.best_estimator_.get_params()


def test_settings_of_the_finder_are_set_by_name() -> None:
    from persona_probe.directions.classifier import DirectionClassifier
    from persona_probe.directions.finders.linear_probe import LinearProbe

    named = DirectionClassifier("linear_probe")
    assert named.get_params() == {"finder": "linear_probe"}
    assert named.set_params(finder__c=0.1).finder == LinearProbe(c=0.1)
    assert named.get_params()["finder__c"] == 0.1
    assert named.get_params(deep=False) == {"finder": LinearProbe(c=0.1)}
    assert named.set_params(finder="mean_difference").finder == "mean_difference"
    for wrong in ({"c": 1.0}, {"finder__c": 1.0}):
        with pytest.raises(ValueError, match=r"Invalid parameter .* there are finder"):
            named.set_params(**wrong)


def test_what_has_no_direction_is_refused() -> None:
    from persona_probe.directions.classifier import DirectionClassifier
    from persona_probe.errors import RequestError

    x, y = classes()
    with pytest.raises(ValueError, match="Only binary classification"):
        DirectionClassifier().fit(x[:6], list("aabbcc"))
    with pytest.raises(ValueError, match="1 class"):
        DirectionClassifier().fit(x, np.ones(len(x), dtype=int))
    with pytest.raises(ValueError, match="1 class"):
        DirectionClassifier().fit(x, y, sample_weight=(y == "hero").astype(float))
    with pytest.raises(RequestError, match="which examples are pairs"):
        DirectionClassifier("principal_component").fit(x, y)
    with pytest.raises(RequestError, match="no finder 'telepathy'"):
        DirectionClassifier("telepathy").fit(x, y)
