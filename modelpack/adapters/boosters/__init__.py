"""Gradient boosters: XGBoost, LightGBM and CatBoost, as estimators and as files of their own.

Their trees are read from what each library itself writes, and written to ONNX directly. No
module here imports a booster's library before a model of it is met.
"""

from __future__ import annotations

from typing import Any

LIBRARIES = {"xgboost": "XGBoost", "lightgbm": "LightGBM", "catboost": "CatBoost"}
"""Names of the libraries by that of their package."""


def library_of(item: Any) -> str:
    """The package of the booster that an estimator is one of; empty if it is none."""
    from modelpack.adapters.boosters.wrapped import WrappedBooster

    if isinstance(item, WrappedBooster):
        return "lightgbm"
    for base in type(item).__mro__:
        root = base.__module__.partition(".")[0]
        if root in LIBRARIES:
            return root
    return ""


def is_booster(item: Any) -> bool:
    """Whether an estimator is one of XGBoost, LightGBM or CatBoost."""
    return bool(library_of(item))


def columns_of_booster(item: Any) -> tuple[tuple[str, ...], int]:
    """Names and number of the columns that a fitted booster takes; no names that it made up."""
    if library_of(item) == "catboost":  # it does not count them in a file that it loads
        names = tuple(map(str, item.feature_names_))
        width = len(names)
        made_up = tuple(map(str, range(width)))
    else:
        names = tuple(map(str, getattr(item, "feature_names_in_", ())))
        width = int(item.n_features_in_)
        made_up = tuple(f"Column_{index}" for index in range(width))
    return () if names == made_up else names, width


def count_columns(item: Any) -> None:
    """Let a booster know how many columns it takes: CatBoost forgets it when it is copied."""
    if library_of(item) == "catboost" and is_fitted(item):
        item._n_features_in = len(item.feature_names_)


def is_fitted(item: Any) -> bool:
    """Whether a booster is fitted."""
    if library_of(item) == "catboost":
        return bool(item.is_fitted())
    return bool(item.__sklearn_is_fitted__())


def ranks(model: Any) -> bool:
    """Whether an estimator, or the last step of a pipeline, answers scores to rank by."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return is_booster(model) and type(model).__name__.endswith("Ranker")
