"""Boosters of LightGBM that are no estimators, with what an estimator has."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from modelpack.samples import Array


class WrappedBooster(BaseEstimator):  # type: ignore[misc]
    """A fitted `lightgbm.Booster`.

    Args:
        booster: as ``lightgbm.Booster(model_file=...)`` gives it.
    """

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        self.n_features_in_ = booster.num_feature()
        names = booster.feature_name()
        if names != [f"Column_{index}" for index in range(len(names))]:
            self.feature_names_in_ = np.array(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __deepcopy__(self, memo: Any) -> WrappedBooster:
        return type(self)(self.booster)

    def _answer(self, rows: Any) -> Array:
        return np.asarray(self.booster.predict(np.asarray(rows)))


class WrappedRegressor(RegressorMixin, WrappedBooster):  # type: ignore[misc]
    """A booster that answers numbers."""

    def predict(self, rows: Any) -> Array:
        """Predict, ``[rows]``."""
        return self._answer(rows)


class WrappedClassifier(ClassifierMixin, WrappedBooster):  # type: ignore[misc]
    """A booster that answers probabilities; its classes are numbered from 0."""

    def __init__(self, booster: Any) -> None:
        super().__init__(booster)
        self.classes_ = np.arange(max(booster.num_model_per_iteration(), 2))

    def predict_proba(self, rows: Any) -> Array:
        """Probabilities, ``[rows, classes]``."""
        answer = self._answer(rows)
        return np.stack([1 - answer, answer], 1) if answer.ndim == 1 else answer

    def predict(self, rows: Any) -> Array:
        """The likeliest class, ``[rows]``."""
        return self.classes_[self.predict_proba(rows).argmax(1)]


def wrapped(booster: Any) -> WrappedBooster:
    """Give a booster the methods of an estimator, by its objective."""
    objective = _objective(booster)
    classifies = objective in {"binary", "multiclass", "multiclassova"}
    return WrappedClassifier(booster) if classifies else WrappedRegressor(booster)


def _objective(booster: Any) -> str:
    for line in booster.model_to_string(num_iteration=1).splitlines():
        if line.startswith("objective="):
            return str(line.partition("=")[2].split(" ")[0])
    return ""
