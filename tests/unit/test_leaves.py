"""Rows that are made up to visit leaves are in those leaves, as the estimators tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelpack.adapters.sklearn_leaves import rows_in_leaves

X, Y = load_digits(return_X_y=True)
X, Y = X[:400], Y[:400]
LOW, HIGH = X.min(0), X.max(0) + 1.0


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        make_pipeline(SimpleImputer(), StandardScaler(), ExtraTreesClassifier(5, random_state=0)),
        make_pipeline(PCA(10), RandomForestClassifier(5, random_state=0)),
    ],
    ids=["forest", "boosting", "scaled", "projected"],
)
def test_every_leaf_is_reached(model: Any) -> None:
    """One row for each leaf, and each leaf has a row."""
    model.fit(X, Y)
    rows = rows_in_leaves(model, LOW, HIGH)
    assert rows is not None
    last = model[-1] if hasattr(model, "steps") else model
    before = model[:-1].transform(rows) if hasattr(model, "steps") else rows
    reached = last.apply(before).reshape(len(rows), -1)
    trees = np.ravel(last.estimators_)
    assert len(rows) == sum(tree.get_n_leaves() for tree in trees)
    for index, tree in enumerate(trees):
        assert len(np.unique(reached[:, index])) == tree.get_n_leaves()


def test_bagged_trees_see_columns_of_their_own() -> None:
    """Columns are those of the whole model."""
    model = BaggingClassifier(n_estimators=4, max_features=0.3, random_state=0).fit(X, Y)
    rows = rows_in_leaves(model, LOW, HIGH)
    assert rows is not None
    for tree, columns in zip(model.estimators_, model.estimators_features_, strict=True):
        assert len(np.unique(tree.apply(rows[:, columns]))) == tree.get_n_leaves()


def test_what_cannot_be_undone_is_left() -> None:
    """Nothing is made up where rows of the trees cannot be turned into rows of the model."""
    halves = np.round(X[:, 20:24] / 8)
    added = make_pipeline(SimpleImputer(add_indicator=True), RandomForestClassifier(2)).fit(X, Y)
    assert rows_in_leaves(added, LOW, HIGH) is None
    encoded = make_pipeline(OneHotEncoder(), PCA(2), StandardScaler()).fit(halves, Y)
    assert rows_in_leaves(encoded, halves.min(0), halves.max(0)) is None


def test_large_forests_are_drawn_from() -> None:
    """The number of rows is bounded."""
    model = RandomForestClassifier(100, random_state=0).fit(X, Y)
    rows = rows_in_leaves(model, LOW, HIGH)
    assert rows is not None
    assert rows.size <= 1 << 16
