"""Estimators fitted on float32 that compute in float64, as a measure of what float32 loses."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import NMF, PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelpack.adapters.sklearn_wide import widened
from modelpack.errors import InputError

ROWS, LABELS = load_breast_cancer(return_X_y=True)
NARROW = ROWS.astype(np.float32)


def test_what_was_learned_is_in_float64() -> None:
    model = make_pipeline(StandardScaler(), PCA(3), Ridge()).fit(NARROW, LABELS)
    _, projection, regression = (step for _, step in model.steps)
    before = projection.components_.tobytes()
    exact = widened(model)
    inner = model[0].transform(ROWS) - projection.mean_.astype(np.float64)
    inner = inner @ projection.components_.astype(np.float64).T
    expected = inner @ regression.coef_.astype(np.float64) + float(regression.intercept_)
    np.testing.assert_allclose(exact.predict(ROWS), expected, rtol=1e-12, atol=1e-12)
    assert projection.components_.dtype == np.float32
    assert projection.components_.tobytes() == before


def test_float32_loses_digits() -> None:
    model = NMF(3, random_state=0, max_iter=500).fit(NARROW)
    lost = np.abs(widened(model).transform(ROWS) - model.transform(NARROW))
    assert lost.max() > 1e-7


def test_of_float64_is_none() -> None:
    with pytest.raises(InputError, match="computes in float64 already"):
        widened(Ridge().fit(ROWS, LABELS))
