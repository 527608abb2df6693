"""Every scikit-learn estimator that becomes ONNX, lowered to SavedModel and TFLite.

The references are ONNX Runtime, and scikit-learn itself; test_sklearn_estimators.py compares
these two with each other.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest

from fixtures.inline import InlinePool
from modelpack import onnx_graph
from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError, InputError, UnsupportedOpsError
from modelpack.judging.compare import Judgement, tolerance_for
from modelpack.parity import Verdict
from modelpack.samples import Case
from modelpack.signature import Signature
from modelpack.sources import run_cases
from modelpack.steps import RunOptions, StepOptions
from tests.lowering.backend_suite import RUNNERS, TARGETS
from tests.sweep.sklearn_outcomes import TOO_NARROW, WITHOUT_FORM
from tests.sweep.test_sklearn_estimators import CASES, _expected, real_cases
from tests.unit.judging import compare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SIZES = (1, 7, 100)


def onnx_of(model: Any, folder: Path) -> tuple[ModelRef, ModelRef, bool]:
    """The saved estimator, its ONNX file, and whether it takes NaN."""
    file, target = folder / "model.joblib", folder / "model.onnx"
    joblib.dump(model, file)
    source = ModelRef("sklearn", Encoding.PICKLE, str(file), trusted=True)
    description = sklearn_adapter.describe(source)
    signature = description.signature
    source = ModelRef("sklearn", Encoding.PICKLE, str(file), trusted=True, signature=signature)
    sklearn_adapter.to_onnx(source, str(target), StepOptions())
    made = ModelRef("onnx", Encoding.ONNX, str(target), signature=signature)
    return source, made, description.accepts_nan


def feeds(signature: Signature, rows: Any, accepts_nan: bool) -> list[Case]:
    """The first rows, in batches of several sizes; with values missing where that is allowed."""
    whole, _, *missing = real_cases(signature, rows, accepts_nan)
    return [
        {name: values[:size] for name, values in case.items()}
        for case in (whole, *missing)
        for size in SIZES
    ]


def exact(pool: InlinePool, estimator: ModelRef, cases: list[Case]) -> list[Case]:
    """scikit-learn's answers, in float64, as artifacts compute them."""
    wide = [
        {
            name: array.astype(np.float64) if array.dtype.kind == "f" else array
            for name, array in case.items()
        }
        for case in cases
    ]
    try:
        return run_cases(pool, estimator, wide, options=RunOptions(wide=True))[0]
    except InputError:  # fitted on float64
        return run_cases(pool, estimator, cases)[0]


def texts(array: Any) -> Any:
    """The array, with bytes as text."""
    return (
        np.char.decode(array.astype("S"), "utf-8").astype(object)
        if array.dtype == object
        else array
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", [name for name in CASES if _expected(name) == "converted"])
def test_an_estimator_is_lowered_right(case: str, target: str, tmp_path: Path) -> None:
    source, model = CASES[case]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = source.fit(model)
        try:
            estimator, made, accepts_nan = onnx_of(fitted, tmp_path)
        except (ConversionError, InputError) as error:
            pytest.skip(f"not converted to ONNX: {error}")
        signature = made.signature
        assert signature is not None
        cases = feeds(signature, source.rows, accepts_nan)
        pool = InlinePool(tmp_path)
        references = [run_cases(pool, made, cases)[0], exact(pool, estimator, cases)]
    model = onnx.load(made.path)
    without = WITHOUT_FORM[target] & {node.op_type for node in onnx_graph.nodes(model)}
    if without:
        with pytest.raises(UnsupportedOpsError, match=without.pop()):
            RUNNERS[target](model, tmp_path)
        return
    run = RUNNERS[target](model, tmp_path)
    names = [spec.name for spec in signature.outputs]
    inputs = [spec.name for spec in signature.inputs]
    actual = [
        dict(zip(names, map(texts, run([feed[name] for name in inputs])), strict=True))
        for feed in cases
    ]
    for reference in references:
        report = compare(signature, reference, actual, Judgement(tolerance_for("float32")))
        if report.verdict is Verdict.FAILED and case in TOO_NARROW[target]:
            pytest.xfail(f"float32 is too narrow: {report.reason}")
        assert report.verdict is not Verdict.FAILED, report.reason
