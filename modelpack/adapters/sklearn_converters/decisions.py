"""Decision functions, which skl2onnx writes with varying signs and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.pipeline import Pipeline

from modelpack.adapters.boosters import library_of
from modelpack.adapters.boosters.converting import sums_of
from modelpack.adapters.boosters.from_lightgbm import slope
from modelpack.adapters.sklearn_columns import final_step
from modelpack.adapters.sklearn_converters.boosting import has_categories
from modelpack.adapters.sklearn_converters.distances import kernel, squared_distances
from modelpack.adapters.sklearn_converters.writer import Answer, Writer
from modelpack.samples import Array

# Where the exponential of float64 becomes 0.
_LEAST_EXPONENT = float(np.log(np.finfo(np.float64).smallest_subnormal))
# A number that float32 holds, and that changes no sum that it is added to.
_NEXT_TO_ZERO = 1e-30

# Writes the decision function of an estimator at rows, shaped as `decision` says.
_Decide: TypeAlias = Callable[[Writer, Any, str], str]
_OF_CLASS: dict[str, _Decide] = {}


def decides(*names: str) -> Callable[[_Decide], _Decide]:
    """Let `decision` write classes of estimators that are made of others by a function."""

    def added(function: _Decide) -> _Decide:
        _OF_CLASS.update(dict.fromkeys(names, function))
        return function

    return added


def decision(w: Writer, estimator: Any, rows: str) -> str:
    """The decision function, ``[rows, classes]``, or ``[rows, 1]`` for two classes.

    Raises:
        NotImplementedError: it is not known how the estimator decides.
    """
    name = type(estimator).__name__
    if name in _OF_CLASS:
        return _OF_CLASS[name](w, estimator, rows)
    if hasattr(estimator, "steps"):
        before = [pair for pair in estimator.steps[:-1] if pair[1] not in (None, "passthrough")]
        if before:
            rows = w.ask(Pipeline(before), rows).scores
        return decision(w, estimator.steps[-1][1], rows)
    if name in {"SVC", "NuSVC"}:
        return _of_machine(w, estimator, rows)
    if library_of(estimator) == "lightgbm":
        sums = w.cast(sums_of(w, estimator, w.cast(rows, "float32")), "float64")
        return w.op("Div", sums, w.constant(slope(estimator)))
    if name == "OneVsRestClassifier" and not estimator.multilabel_:
        return w.joined([positive(w, inner, rows) for inner in estimator.estimators_])
    if name == "OneVsOneClassifier":
        return _of_pairs(w, estimator, rows)
    if name == "LinearDiscriminantAnalysis" or isinstance(
        getattr(estimator, "coef_", None), np.ndarray
    ):
        matrix = np.atleast_2d(estimator.coef_)
        return w.linear(rows, matrix.T, np.ravel(estimator.intercept_))
    raise NotImplementedError(f"the decision function of {name}")


@decides("GradientBoostingClassifier", "HistGradientBoostingClassifier")
def _of_boosting(w: Writer, item: Any, rows: str) -> str:
    if has_categories(item):
        raise NotImplementedError(f"the decision function of {type(item).__name__} of categories")
    said = w.ask_raw(item, rows)
    return w.columns(said, [1]) if len(item.classes_) == 2 else said


@decides("FixedThresholdClassifier", "TunedThresholdClassifierCV")
def _of_threshold(w: Writer, item: Any, rows: str) -> str:
    return decision(w, below_threshold(item), rows)


def below_threshold(item: Any) -> Any:
    """The estimator whose answers a FixedThreshold- or TunedThresholdClassifier compares."""
    return getattr(item, "estimator_", None) or item.estimator


def can_decide(estimator: Any) -> bool:
    """Whether to ask a classifier for its decision function.

    Of others that have one, probabilities are in the same order.
    """
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    if not hasattr(estimator, "decision_function"):
        return False
    if library_of(estimator) == "lightgbm" or type(estimator).__name__ == "BaggingClassifier":
        return True
    if type(estimator).__name__ in {"SVC", "NuSVC"}:
        return isinstance(estimator.kernel, str)
    return isinstance(getattr(estimator, "coef_", None), np.ndarray)


def shares(w: Writer, estimator: Any, rows: str, answer: Answer | None = None) -> str:
    """Probabilities, ``[rows, classes]``; in float64 where a threshold may follow.

    Args:
        w: of the estimator that asks.
        estimator: is asked.
        rows: float64 ``[rows, columns]``.
        answer: what the estimator said of these rows, if it was asked already.
    """
    name = type(estimator).__name__
    if name not in {"LogisticRegression", "LogisticRegressionCV"} or _by_class(estimator):
        return (answer or w.ask(estimator, rows)).scores
    said = decision(w, estimator, rows)
    if len(estimator.classes_) > 2:
        return w.op("Softmax", said, axis=1)
    share = w.sigmoid(said)
    return w.joined([w.op("Sub", w.constant(1.0), share), share])


def _by_class(estimator: Any) -> bool:
    """Whether a logistic regression has one decision per class, and not one for all."""
    return estimator.solver == "liblinear" and len(estimator.classes_) > 2


def positive(w: Writer, estimator: Any, rows: str) -> str:
    """How sure an estimator of two classes is of the second, ``[rows, 1]``.

    As ``sklearn.multiclass._predict_binary``.
    """
    if type(estimator).__name__ == "_ConstantPredictor":
        return w.repeated(rows, [float(estimator.y_[0])])
    if is_regressor(estimator):
        return w.upright(w.ask(estimator, rows).scores)
    if hasattr(estimator, "decision_function"):
        return decision(w, estimator, rows)
    return w.columns(shares(w, estimator, rows), [1])


def _of_machine(w: Writer, item: Any, rows: str) -> str:
    """The decision function of a support vector machine.

    Raises:
        NotImplementedError: of a kernel that is a function, or of a matrix of kernels.
    """
    return _of_classes(w, item, _of_each(w, item, rows))


def _of_each(w: Writer, item: Any, rows: str) -> str:
    """Sums of a kernel at the support vectors, for each pair of classes."""
    near = _at_vectors(w, item, rows)
    weights = item.dual_coef_.T if len(item.classes_) == 2 else _of_each_pair(item)
    alone = np.ravel(item.intercept_) == 0
    said = w.linear(near, weights, np.ravel(item.intercept_))
    if item.kernel != "rbf" or not alone.any():
        return said
    return w.op("Add", said, _signs_far_out(w, item, rows, np.where(alone, weights, 0.0)))


def _signs_far_out(w: Writer, item: Any, rows: str, weights: Array) -> str:
    """Signs of sums of a kernel that nothing is added to, as numbers next to zero.

    Far from all support vectors the kernels vanish in float32, but not in float64, where the
    sign of their sum decides. It is that of the sum of the kernels over the largest of them.
    """
    far = squared_distances(w, rows, item.support_vectors_)
    far = w.op("Mul", far, w.constant(item._gamma))
    nearest = w.reduced("ReduceMin", far)
    signs = w.op("Sign", w.linear(w.op("Exp", w.op("Sub", nearest, far)), weights))
    seen = w.cast(w.op("Less", nearest, w.constant(-_LEAST_EXPONENT)), "float64")
    return w.op("Mul", w.op("Mul", signs, seen), w.constant(_NEXT_TO_ZERO))


def _of_classes(w: Writer, item: Any, said: str) -> str:
    if len(item.classes_) == 2 or item.decision_function_shape == "ovo":
        return said
    second = w.cast(w.op("Less", said, w.constant(0.0)), "float64")
    return _votes(w, second, w.op("Neg", said), len(item.classes_))


def _at_vectors(w: Writer, item: Any, rows: str) -> str:
    if not isinstance(item.kernel, str):
        raise NotImplementedError("the kernel of a function")
    return kernel(
        w,
        rows,
        item.support_vectors_,
        item.kernel,
        gamma=item._gamma,
        coef0=item.coef0,
        degree=item.degree,
    )


def has_named_kernel(item: Any) -> bool:
    """Whether the kernel is one that `kernel` knows."""
    return item.kernel in {"linear", "poly", "rbf", "sigmoid"}


def decides_alone(item: Any) -> bool:
    """Whether a support vector machine has a known kernel, and no probabilities of its own."""
    return has_named_kernel(item) and not hasattr(item, "predict_proba")


def machine(w: Writer) -> None:
    """The class with the most votes of pairs, as LIBSVM counts them, and the decisions."""
    item = w.item
    said = _of_each(w, item, w.rows())
    scores = _of_classes(w, item, said)
    if len(item.classes_) == 2:
        second = w.op("GreaterOrEqual", w.flat(said), w.constant(0.0))
        return w.finish(w.chosen_labels(w.cast(second, "int64"), item.classes_), scores)
    votes = scores
    if not (item.break_ties and item.decision_function_shape == "ovr"):
        first = w.cast(w.op("Greater", said, w.constant(0.0)), "float64")
        firsts, seconds = _pairs(len(item.classes_))
        votes = w.linear(first, firsts - seconds, seconds.sum(0))
    best = w.op("ArgMax", votes, axis=1, keepdims=0)
    return w.finish(w.chosen_labels(best, item.classes_), scores)


def support_vectors(w: Writer) -> None:
    """The sum of a kernel at the support vectors: SVR, NuSVR and OneClassSVM."""
    item = w.item
    said = w.linear(_at_vectors(w, item, w.rows()), item.dual_coef_.T, item.intercept_)
    if not is_outlier_detector(item):
        return w.finish(said)
    inlying = w.op("Greater", w.flat(said), w.constant(0.0))
    label = w.op("Where", inlying, *(w.constant(value, "int64") for value in (1, -1)))
    return w.finish(label, w.flat(said))


def _of_each_pair(item: Any) -> Array:
    """Weights of the support vectors in the decision of each pair, ``[vectors, pairs]``.

    A pair takes the vectors of its two classes only; those of class i have their weight against
    class j in row ``j - 1`` if i is before j, else in row j (LIBSVM's ``sv_coef``).
    """
    ends = np.cumsum([0, *item.n_support_])
    classes = range(len(item.classes_))
    pairs = [(i, j) for i in classes for j in classes if i < j]
    weights = np.zeros((ends[-1], len(pairs)))
    for index, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            part = slice(ends[own], ends[own + 1])
            weights[part, index] = item.dual_coef_[row, part]
    return weights


def _of_pairs(w: Writer, item: Any, rows: str) -> str:
    if item.pairwise_indices_ is not None:
        raise NotImplementedError("precomputed kernels")
    each = [positive(w, inner, rows) for inner in item.estimators_]
    pairs = zip(item.estimators_, each, strict=True)
    seconds = [_is_second(w, inner, rows, said) for inner, said in pairs]
    votes = _votes(w, w.joined(seconds), w.joined(each), len(item.classes_))
    return w.upright(w.column(votes, 1)) if len(item.classes_) == 2 else votes


def _is_second(w: Writer, inner: Any, rows: str, said: str) -> str:
    """1 where an estimator of two classes, 0 and 1, predicts the second, ``[rows, 1]``."""
    if type(final_step(inner)).__name__ == "GradientBoostingClassifier":
        # For skl2onnx a decision of 0 is for the first class.
        return w.cast(w.op("GreaterOrEqual", said, w.constant(0.0)), "float64")
    return w.upright(w.cast(w.ask(inner, rows).labels, "float64"))


def _pairs(classes: int) -> tuple[Array, Array]:
    """Which class is the first and which the second of each pair, ``[pairs, classes]``."""
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    first_of, second_of = (np.zeros((len(pairs), classes)) for _ in range(2))
    for index, (i, j) in enumerate(pairs):
        first_of[index, i] = second_of[index, j] = 1.0
    return first_of, second_of


def _votes(w: Writer, second: str, sure: str, classes: int) -> str:
    """``sklearn.utils.multiclass._ovr_decision_function``, of which of each pair has won."""
    first_of, second_of = _pairs(classes)
    # A pair's vote is 1 for its second, and 1 less that for its first.
    votes = w.linear(second, second_of - first_of, first_of.sum(0))
    total = w.linear(sure, second_of - first_of)
    size = w.op("Mul", w.op("Add", w.op("Abs", total), w.constant(1.0)), w.constant(3.0))
    return w.op("Add", votes, w.op("Div", total, size))


def limit_of(estimator: Any) -> float:
    """Above which `positive` means the second class (``_threshold_for_binary_predict``)."""
    decides = is_classifier(estimator) and hasattr(estimator, "decision_function")
    return 0.0 if decides else 0.5


def one_versus_one(w: Writer) -> None:
    """The class with the most votes of pairs, and the votes."""
    votes = _of_pairs(w, w.item, w.rows())
    if len(w.item.classes_) > 2:
        return w.finish_classes(votes)
    limit = w.constant(limit_of(w.item.estimators_[0]))
    second = w.cast(w.op("Greater", w.flat(votes), limit), "int64")
    return w.finish(w.chosen_labels(second, w.item.classes_), votes)
