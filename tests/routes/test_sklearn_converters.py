"""Estimators that modelpack writes itself: right on made-up and on real rows, or refused by name.

The whole list is in tests/sweep/test_sklearn_estimators.py; here is one of each kind.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import FunctionTransformer

from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.adapters.sklearn_converters.functions import UNARY
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import UnsupportedOpsError
from modelpack.parity import Verdict
from modelpack.steps import StepOptions
from tests.sweep.test_sklearn_estimators import CASES, take
from tests.thinned import thinned

CHOSEN = (
    "BisectingKMeans on iris",
    "ClassifierChain on iris, two labels",
    "FixedThresholdClassifier on breast_cancer",
    "GaussianProcessClassifier on iris",
    "IsotonicRegression on diabetes, one column",
    "IterativeImputer on iris, NaN",
    "LatentDirichletAllocation on iris",
    "LocallyLinearEmbedding on iris",
    "NMF on iris",
    "PowerTransformer on iris",
    "RadiusNeighborsClassifier on iris",
    "SparseCoder on iris",
    "SplineTransformer on iris",
    "calibrated isotonic, binary",
    "calibrated temperature",
    "forest of two outputs",
    "function",
    "hist boosting, categorical",
    "stacking",
    "transformed target",
)


@pytest.mark.parametrize("case", thinned(CHOSEN, 4))
def test_an_estimator_is_right_on_real_rows(case: str, tmp_path: Path) -> None:
    source, model = CASES[case]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = take(source.fit(model), source.rows, tmp_path)
    assert outcome.kind == "converted", outcome
    assert outcome.real is not None
    assert outcome.real.verdict is not Verdict.FAILED, outcome.real.reason


def _converted(model: Any, folder: Path) -> Any:
    """A session of the estimator's ONNX file."""
    joblib.dump(model, folder / "m.joblib")
    source = ModelRef("sklearn", Encoding.PICKLE, str(folder / "m.joblib"), trusted=True)
    sklearn_adapter.to_onnx(source, str(folder / "m.onnx"), StepOptions())
    return onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])


def test_a_density_far_from_all_known_rows_is_the_sum_itself(tmp_path: Path) -> None:
    """Scikit-learn's tree stops too early there: it says -6366 where the sum is -2579."""
    rows = load_breast_cancer().data
    model = KernelDensity().fit(rows[:380])
    session = _converted(model, tmp_path)
    asked = rows[380:].astype(np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: asked})
    squares = ((asked[:, None].astype(np.float64) - rows[None, :380]) ** 2).sum(-1)
    norm = np.log(380) + rows.shape[1] / 2 * np.log(2 * np.pi)
    wanted = np.logaddexp.reduce(-squares / 2, axis=1) - norm
    np.testing.assert_allclose(found, wanted, rtol=2.0**-22, atol=0)


# From far below what float32 can tell from 0 or 1 to where exponentials are large.
VALUES = np.concatenate(
    [sign * np.array([1e-12, 1e-6, 1e-3, 0.4, 0.5, 1.0, 2.5, 30.0]) for sign in (1, -1)]
).astype(np.float32)[:, None]


@pytest.mark.parametrize("name", thinned(sorted(UNARY), 8))
def test_functions_of_numpy_keep_their_digits(name: str, tmp_path: Path) -> None:
    function = getattr(np, name)
    rows = VALUES
    with np.errstate(all="ignore"):
        wanted = np.asarray(function(rows.astype(np.float64)), np.float64)
    good = np.isfinite(wanted[:, 0])
    if not good.all():  # outside of where the function is defined
        rows, wanted = rows[good], wanted[good]
    model = FunctionTransformer(function).fit(rows)
    session = _converted(model, tmp_path)
    (found,) = session.run(None, {session.get_inputs()[0].name: rows})
    # A result in float64, given out as float32.
    np.testing.assert_allclose(found, wanted, rtol=2.0**-23, atol=0)


def _branches(rows: Any) -> Any:
    return rows if rows.sum(axis=1)[0] > 0 else -rows


def _of_other_rows(rows: Any) -> Any:
    return rows - rows[:1]


X = np.random.default_rng(0).standard_normal((40, 3))
Y = (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (FunctionTransformer(_branches), "FunctionTransformer"),
        (FunctionTransformer(_of_other_rows), "choice of rows"),
        (DummyClassifier(strategy="stratified"), "random answer"),
        (KernelRidge(kernel=lambda a, b: float(a @ b)), "kernel"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(
    model: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = model.fit(X, Y)
    monkeypatch.setattr(sklearn_adapter, "load", lambda _: fitted)
    source = ModelRef("sklearn", Encoding.PICKLE, str(tmp_path / f"{id(model)}"), trusted=True)
    with pytest.raises(UnsupportedOpsError, match=reason) as caught:
        sklearn_adapter.to_onnx(source, str(tmp_path / "m.onnx"), StepOptions())
    assert type(model).__name__ in str(caught.value)
