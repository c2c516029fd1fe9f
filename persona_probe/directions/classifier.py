"""A direction as a scikit-learn classifier: for pipelines, cross-validation and grid searches.

Importing this module imports scikit-learn; nothing else of the package imports it.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator, ClassifierMixin  # noqa: TID253
from sklearn.utils import Tags  # noqa: TID253
from sklearn.utils.multiclass import check_classification_targets  # noqa: TID253
from sklearn.utils.validation import (  # noqa: TID253
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from persona_probe.directions.classes import class_means
from persona_probe.directions.design import Design, numbered
from persona_probe.directions.finder import Finder, fit_oriented
from persona_probe.directions.finders import finder_named

FINDER = "finder__"  # a finder's own settings, as grid searches name them


class DirectionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Find a direction between two classes; whoever lies beyond the midpoint is in the second.

    The threshold is half-way between the class means along the direction, as of `Direction`, and
    not the intercept of a probe: the classes may be unequally frequent.

        cross_val_score(DirectionClassifier("linear_probe"), x, y, groups=families, cv=GroupKFold())
        GridSearchCV(DirectionClassifier(LinearProbe()), {"finder__c": [0.01, 0.1, 1.0]})

    Args:
        finder: a name in `FINDERS`, or a finder with its settings.

    Attributes:
        classes_: both classes, sorted; the direction points to the second.
        coef_: the unit vector, [1, d_model], as linear models of scikit-learn have it.
        intercept_: minus the midpoint, [1].
        gap_: distance of the class means along the direction.
        n_features_in_: d_model.
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    gap_: float

    def __init__(self, finder: Any = "mean_difference") -> None:
        self.finder = finder  # not looked at before it is used: so says the contract

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> "DirectionClassifier":
        """Find the direction.

        Args:
            X: activations, [example, d_model].
            y: two classes.
            sample_weight: how often each example counts.
            groups: prompt family or pair of each example, for finders that need either.

        Raises:
            ValueError: there are more or fewer than two classes.
            RequestError: the finder needs groups.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        self.classes_, positive = np.unique(y, return_inverse=True)
        present = np.unique(y[weights > 0])
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass: "
                f"{len(self.classes_)} classes."
            )
        if len(present) < 2:
            raise ValueError(
                "a direction lies between two classes, and the examples of positive weight have "
                f"{len(present)} class"
            )
        x, counts = torch.tensor(X)[None], torch.tensor(weights)[None].double()
        labels = torch.from_numpy(positive.astype(bool))[None]
        design = None if groups is None else _design(groups)
        raw = fit_oriented(self._finder(), x, labels, counts, design)[0, 0]
        self._set_direction(raw, x[0], labels, counts)
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, " example"]:
        """Distance beyond the midpoint, in residual units."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(X @ self.coef_[0] + self.intercept_[0])

    def predict(self, X: Any) -> np.ndarray:
        """The class of each example."""
        beyond = self.decision_function(X) > 0
        return np.asarray(self.classes_[beyond.astype(int)])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Settings by name; those of the finder, if it is not just a name, as `finder__name`."""
        params: dict[str, Any] = {"finder": self.finder}
        if deep and isinstance(self.finder, Finder):
            settings = self.finder.get_params()
            params |= {FINDER + name: value for name, value in settings.items()}
        return params

    def set_params(self, **params: Any) -> "DirectionClassifier":
        """Change settings. A finder is never changed, but replaced by one with other settings."""
        if "finder" in params:
            self.finder = params.pop("finder")
        if not params:
            return self
        own = self._finder()
        unknown = [name for name in params if name.removeprefix(FINDER) not in own.get_params()]
        if unknown or not all(name.startswith(FINDER) for name in params):
            raise ValueError(
                f"Invalid parameter {(unknown or list(params))[0]!r} for {self!r}; there are "
                f"{', '.join(_settable(own))}"
            )
        changes = {name.removeprefix(FINDER): value for name, value in params.items()}
        self.finder = replace(own, **changes)  # type: ignore[type-var]
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _finder(self) -> Finder:
        return self.finder if isinstance(self.finder, Finder) else finder_named(self.finder)

    def _set_direction(
        self,
        raw: Float[Tensor, " d_model"],
        x: Float[Tensor, "example d_model"],
        labels: Bool[Tensor, "1 example"],
        weights: Float[Tensor, "1 example"],
    ) -> None:
        length = float(raw.norm())
        unit = raw / length if length > 0 else raw  # classes that coincide have no direction
        means = class_means((x @ unit)[None, None], labels, weights)
        positive, negative = (float(mean[0, 0]) for mean in means)
        self.coef_ = unit.numpy()[None]
        self.intercept_ = np.array([-(positive + negative) / 2])
        self.gap_ = positive - negative


def _design(groups: Any) -> Design:
    number = numbered(np.asarray(groups).tolist())
    return Design((), number, number)


def _settable(finder: Finder) -> list[str]:
    """What can be set: the finder itself, and its settings."""
    return ["finder", *(FINDER + name for name in finder.get_params())]
