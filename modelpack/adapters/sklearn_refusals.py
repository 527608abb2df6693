"""What skl2onnx cannot mirror, although it may convert it without complaint."""

from __future__ import annotations

from typing import Any

from skl2onnx._supported_operators import sklearn_operator_name_map

from modelpack.adapters.boosters import is_booster
from modelpack.adapters.boosters.reading import problem as booster_problem
from modelpack.adapters.sklearn_loading import walk
from modelpack.adapters.sklearn_signature import first_step
from modelpack.errors import UnsupportedOpsError

QUANTILES = "QuantileTransformer"
_DEFAULT_TOKENS = {r"(?u)\b\w\w+\b": 2, r"(?u)\b\w+\b": 1}
_VECTORIZERS = {"CountVectorizer", "TfidfVectorizer"}

# Estimators that convert, but whose ONNX file does not run or answers something else.
_REFUSED = {
    "KNeighborsTransformer": "of rows at equal distance it keeps others than scikit-learn",
    "KNNImputer": "of rows at equal distance it takes others than scikit-learn",
}


def refuse_unsupported(model: Any) -> None:
    """Check every step of an estimator.

    Raises:
        UnsupportedOpsError: some cannot be converted faithfully; all are listed.
    """
    problems = []
    for path, item in walk(model):
        reason = _problem(item) or _misplaced(item, model)
        if reason:
            problems.append(f"{path} ({type(item).__name__}): {reason}")
    if problems:
        raise UnsupportedOpsError(
            "cannot be converted to ONNX: " + "; ".join(dict.fromkeys(problems)),
            hint="replace these steps, or move them out of the model",
        )


def caveats(model: Any) -> tuple[str, ...]:
    """Say where the converted estimator is an approximation that parity has to judge."""
    return tuple(
        f"{path}: isotonic calibration is a step function, whose steps ONNX places approximately"
        for path, item in walk(model)
        if type(item).__name__ == "CalibratedClassifierCV" and item.method == "isotonic"
    )


def _misplaced(item: Any, model: Any) -> str:
    """Why an estimator that could be converted cannot where it stands."""
    name = type(item).__name__
    if name == QUANTILES and item is not first_step(model):
        return "values on a quantile come out wrong unless it is the first step"
    return ""


def outline(model: Any) -> str:
    """Name an estimator and, for a pipeline, its steps."""
    if not hasattr(model, "steps"):
        return type(model).__name__
    return f"{type(model).__name__} of " + ", ".join(outline(step) for _, step in model.steps)


def final_step(model: Any) -> Any:
    """Return the last step of a pipeline; an estimator that is no pipeline itself."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def _problem(item: Any) -> str:
    name = type(item).__name__
    if name in _REFUSED:
        return _REFUSED[name]
    if is_booster(item):
        return booster_problem(item)
    root = type(item).__module__.partition(".")[0]
    if root != "sklearn":
        return f"skl2onnx does not know this class of {root}"
    if getattr(item, "add_indicator", False):
        return "the indicator of missing values (add_indicator) comes out wrong"
    if name in {*_VECTORIZERS, "TfidfTransformer"}:
        return _vectorizer_problem(item)
    return "" if type(item) in sklearn_operator_name_map else "skl2onnx does not know it"


def _vectorizer_problem(item: Any) -> str:
    if getattr(item, "sublinear_tf", False):
        return "sublinear_tf is computed as log(1 + tf), not 1 + log(tf)"
    if type(item).__name__ == "TfidfTransformer":
        return ""
    if item.stop_words and item.ngram_range[1] > 1:
        return "stop words together with n-grams come out wrong"
    if item.analyzer != "word":
        return f"the analyzer {item.analyzer!r} comes out wrong"
    if item.strip_accents or item.preprocessor or item.tokenizer:
        return "its own preprocessing or tokenizing is not converted"
    if item.token_pattern not in _DEFAULT_TOKENS:
        return f"the token pattern {item.token_pattern!r} has no counterpart"
    return ""


def token_expression(item: Any) -> str:
    """Return the vectorizer's token pattern in the syntax of ONNX Runtime's Tokenizer."""
    return rf"[\p{{L}}\p{{N}}_]{{{_DEFAULT_TOKENS[item.token_pattern]},}}"


def vectorizers(model: Any) -> list[Any]:
    """Return the text vectorizers inside of an estimator."""
    return [item for _, item in walk(model) if type(item).__name__ in _VECTORIZERS]
