"""What skl2onnx cannot mirror, although it may convert it without complaint."""

from __future__ import annotations

from typing import Any

from skl2onnx._supported_operators import sklearn_operator_name_map

from modelpack.adapters.boosters import is_booster
from modelpack.adapters.boosters.reading import problem as booster_problem
from modelpack.adapters.sklearn_columns import OF_TEXT
from modelpack.adapters.sklearn_converters.text import vectorizers
from modelpack.adapters.sklearn_loading import walk
from modelpack.errors import UnsupportedOpsError

# Estimators that convert, but whose ONNX file does not run or answers something else.
_REFUSED = {
    "KNeighborsTransformer": "of rows at equal distance it keeps others than scikit-learn",
    "KNNImputer": "of rows at equal distance it takes others than scikit-learn",
}

# From so many features on, a row of hashes takes a noticeable amount of memory.
_MANY_HASHES = 1 << 16


def refuse_unsupported(model: Any) -> None:
    """Check every step of an estimator.

    Raises:
        UnsupportedOpsError: some cannot be converted faithfully; all are listed.
    """
    problems = []
    for path, item in walk(model):
        reason = _problem(item)
        if reason:
            problems.append(f"{path} ({type(item).__name__}): {reason}")
    if problems:
        raise UnsupportedOpsError(
            "cannot be converted to ONNX: " + "; ".join(dict.fromkeys(problems)),
            hint="replace these steps, or move them out of the model",
        )


def refuse_boosters(model: Any) -> None:
    """Check the boosters inside of an estimator that cannot be called.

    Raises:
        UnsupportedOpsError: some cannot be converted; all are listed.
    """
    found = [
        f"{path} ({type(item).__name__}): {problem}"
        for path, item in walk(model)
        if is_booster(item) and (problem := booster_problem(item))
    ]
    if found:
        raise UnsupportedOpsError("cannot be converted to ONNX: " + "; ".join(found))


def caveats(model: Any) -> tuple[str, ...]:
    """Say where the converted estimator is an approximation, or takes much memory."""
    found = []
    for path, item in walk(model):
        if type(item).__name__ == "CalibratedClassifierCV" and item.method == "isotonic":
            steps = "a step function, whose steps ONNX places approximately"
            found.append(f"{path}: isotonic calibration is {steps}")
        if type(item).__name__ == "HashingVectorizer" and item.n_features >= _MANY_HASHES:
            size = f"{4 * item.n_features / 1e6:.1f} MB a row"
            found.append(f"{path}: ONNX has no sparse tensors, so {size}: fewer n_features help")
    return tuple(found)


def outline(model: Any) -> str:
    """Name an estimator and, for a pipeline, its steps."""
    if not hasattr(model, "steps"):
        return type(model).__name__
    return f"{type(model).__name__} of " + ", ".join(outline(step) for _, step in model.steps)


def _problem(item: Any) -> str:
    name = type(item).__name__
    if name in _REFUSED:
        return _REFUSED[name]
    if is_booster(item):
        return booster_problem(item)
    root = type(item).__module__.partition(".")[0]
    if root not in {"sklearn", "modelpack"}:  # of ours, see sklearn_forms
        return f"skl2onnx does not know this class of {root}"
    if name in OF_TEXT:
        return vectorizers.problem(item)
    return "" if type(item) in sklearn_operator_name_map else "skl2onnx does not know it"
