"""Answers of a converted estimator against scikit-learn's, judged without modelpack.

scikit-learn is asked again with numbers moved by a unit in the last place of float32, or by far
less, in float32, and of a single row in a batch: answers that this moves far are ties, or lie on a
threshold, or are what is left after rounding, and are counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from modelpack.samples import Array, Case, numpy_dtype
from modelpack.signature import DType, Meaning, Signature, TensorSpec
from tests.sweep.sklearn_tables import Table, in_dtype, mapped

# Of an answer, and of the largest in its column.
RTOL, ATOL = 1e-4, 1e-5
# How many times as far as in scikit-learn last digits may move an answer.
SAFETY = 8.0
# Moved this share of the largest answer by last digits, an answer has jumped.
_JUMP = 1e-2
_DRAWS, _FINE_DRAWS = 4, 4
# Of a number: a thousandth of the last digit of float32.
_FINE = 2.0**-34
_BATCH = 8

_METHODS = {
    "label": "predict",
    "probabilities": "predict_proba",
    "scores": "decision_function",
    "prediction": "predict",
    "output": "transform",
}


@dataclass
class Comparison:
    """What was found, over all kinds of rows.

    Attributes:
        reason: what is wrong first; empty if nothing is.
        rows: that both sides answered.
        ties: elements that differ where scikit-learn leaves them open.
        by_rows: elements that are wrong, by the kind of rows.
    """

    reason: str = ""
    rows: int = 0
    ties: int = 0
    by_rows: Counter[str] = field(default_factory=Counter)


def compared(
    model: Any, made: Table, signature: Signature, run: Any, others: Sequence[Any] = ()
) -> Comparison:
    """Compare on all rows of a table that scikit-learn answers.

    Args:
        model: the fitted estimator.
        made: the table.
        signature: of the artifact.
        run: takes a feed, gives the artifact's answers.
        others: estimators that are as right; where their answers differ, these are open.
    """
    found = Comparison()
    scales: dict[str, Array] = {}
    for kind, rows in made.others.items():
        try:
            wanted = answers(model, signature, rows)
        except Exception:  # NaN, say, that the model does not take
            continue
        if kind != "NaN" and any(np.isnan(item).any() for item in _reals(wanted)):
            continue  # outside of where the model is defined
        found.rows += len(rows)
        try:
            have = run(feed_of(signature, rows))
        except Exception as error:  # ONNX Runtime raises its own kinds
            found.reason = found.reason or f"{kind}: does not run: {error}"
            continue
        for name, array in wanted.items():
            if array.dtype.kind == "f":
                scales[name] = np.maximum(scales.get(name, 0.0), _largest(array))
            if name == "probabilities":
                scales[name] = np.ones_like(scales[name])
        alone = Comparison()
        _compare(alone, kind, signature, wanted, have, [], scales)
        if alone.reason:  # to ask again takes time
            moved = _asked_again((model, *others), signature, rows)
            _compare(found, kind, signature, wanted, have, moved, scales)
        found.ties += 0 if alone.reason else alone.ties
    return found


def _asked_again(models: Sequence[Any], signature: Signature, rows: Any) -> list[Case]:
    """Answers that are as right, of the estimator to other rows and of the others to these."""
    model, *others = models
    asked = [(model, change(rows)) for change in _changes()]
    asked += [(other, rows) for other in others]
    found = [_answers_if_any(each, signature, given) for each, given in asked]
    return [answer for answer in found if answer is not None] + _in_batch(model, signature, rows)


def _reals(answer: Case) -> list[Array]:
    return [array for array in answer.values() if array.dtype.kind == "f"]


def answers(model: Any, signature: Signature, rows: Any) -> Case:
    """What scikit-learn answers, by output, in float64."""
    found = {}
    for spec in signature.outputs:
        method = _METHODS[spec.name]
        if not hasattr(model, method):
            method = "score_samples"
        result = _asked(getattr(model, method), rows)
        result = np.asarray(result.toarray() if hasattr(result, "toarray") else result)
        if spec.dtype is DType.STRING:
            result = np.array([str(item) for item in result.ravel()], object).reshape(result.shape)
        elif spec.dtype is DType.INT64:
            result = result.astype(np.int64)
        else:
            result = result.astype(np.float64)
        found[spec.name] = result
    return found


def _asked(method: Callable[[Any], Any], rows: Any) -> Any:
    try:
        return method(rows)
    except (TypeError, ValueError) as error:
        if not any(words in str(error) for words in ("Buffer dtype mismatch", "same dtype")):
            raise
        # Compiled parts may take the dtype that they were fitted on only.
        dtypes = ("float32", "float64")
        return method(in_dtype(rows, dtypes[_is_single(rows)]))


def _is_single(rows: Any) -> bool:
    return not isinstance(rows, pd.DataFrame) and rows.dtype == np.float32


def _answers_if_any(model: Any, signature: Signature, rows: Any) -> Case | None:
    try:
        return answers(model, signature, rows)
    except Exception:  # some compiled parts take float64 only
        return None


def _changes() -> list[Callable[[Any], Any]]:
    return [
        lambda rows: in_dtype(rows, "float32"),
        *(lambda rows, draw=draw: mapped(rows, _moved(draw)) for draw in range(_DRAWS)),
        *(lambda rows, draw=draw: mapped(rows, _rounded(draw)) for draw in range(_FINE_DRAWS)),
    ]


def _moved(draw: int) -> Callable[[Array], Array]:
    rng = np.random.default_rng(draw)

    def moved(values: Array) -> Array:
        narrow = values.astype(np.float32)
        towards = np.where(rng.random(values.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
        still = (narrow == 0) | ~np.isfinite(narrow)
        return np.where(still, narrow, np.nextafter(narrow, towards)).astype(np.float64)

    return moved


def _rounded(draw: int) -> Callable[[Array], Array]:
    """Moves numbers so little that float32 does not tell, and float64 has digits to round."""
    rng = np.random.default_rng(draw)
    return lambda values: values * (1 + rng.uniform(-_FINE, _FINE, values.shape))


def _in_batch(model: Any, signature: Signature, rows: Any) -> list[Case]:
    """What is answered to a single row among others: matrices are multiplied in other ways."""
    if len(rows) > 1:
        return []
    many = pd.concat([rows] * _BATCH) if hasattr(rows, "iloc") else np.repeat(rows, _BATCH, 0)
    answer = _answers_if_any(model, signature, many)
    return [] if answer is None else [{name: array[:1] for name, array in answer.items()}]


def feed_of(signature: Signature, rows: Any) -> Case:
    """Rows as the inputs of an artifact."""
    feed = {}
    for spec in signature.inputs:
        framed = isinstance(rows, pd.DataFrame)
        values = rows[list(spec.columns)].to_numpy() if framed else rows
        feed[spec.name] = values.astype(numpy_dtype(spec.dtype))
    return feed


# --- one kind of rows ----------------------------------------------------------------------


def _compare(
    found: Comparison,
    kind: str,
    signature: Signature,
    wanted: Case,
    have: Case,
    moved: Sequence[Case],
    scales: Case,
) -> None:
    open_rows = np.zeros(len(next(iter(wanted.values()))), bool)
    # Scores first: they tell which labels are ties.
    for spec in sorted(signature.outputs, key=lambda spec: spec.meaning is Meaning.LABEL):
        want, got = wanted[spec.name], have[spec.name]
        if want.shape != got.shape:
            found.reason = found.reason or f"{kind}: {spec.name} {got.shape} for {want.shape}"
            continue
        others = [answer[spec.name] for answer in moved]
        if want.dtype.kind == "f":
            allowed, jumps = _tolerances(want, others, scales[spec.name])
            wrong, undecided = _reals_differ(want, got.astype(np.float64), allowed, jumps)
            if spec.meaning is Meaning.PROBABILITIES:  # far out, scikit-learn's own may fail
                wrong &= np.isclose(want.sum(axis=1, keepdims=True), 1)
            if spec.meaning in {Meaning.PROBABILITIES, Meaning.SCORES}:
                open_rows |= _close(want, allowed)
                open_rows |= jumps.reshape(len(want), -1).any(1)
        else:
            differs = np.asarray(want != got, bool)
            undecided = np.any([other != want for other in others], axis=0) | open_rows
            wrong, undecided = differs & ~undecided, differs & undecided
        found.ties += int(np.count_nonzero(undecided))
        if wrong.any():
            found.by_rows[kind] += int(wrong.sum())
            found.reason = found.reason or _words(kind, spec, want, got, wrong)


def _words(kind: str, spec: TensorSpec, want: Array, got: Array, wrong: Array) -> str:
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return (
        f"{kind}: {spec.name}: {int(wrong.sum())} of {wrong.size}, "
        f"first {got[place]!r} for {want[place]!r} at {place}"
    )


def _reals_differ(want: Array, got: Array, allowed: Array, jumps: Array) -> tuple[Array, Array]:
    """Elements that are wrong, and those that differ where they are open."""
    same = (want == got) | (np.isnan(want) & np.isnan(got))
    # float32 has no larger numbers.
    same |= np.isinf(got) & (np.abs(want) > np.finfo(np.float32).max) & (want * got > 0)
    with np.errstate(invalid="ignore"):
        near = np.abs(want - got) <= allowed
    differs = ~(same | near)
    return differs & ~jumps, differs & jumps


def _tolerances(want: Array, others: Sequence[Array], scale: Array) -> tuple[Array, Array]:
    """How far each element may be, jumps aside, and which of them jump."""
    size = np.where(np.isfinite(want), np.abs(want), 0.0)
    change = _change(want, others)
    jumps = change > _JUMP * np.maximum(_largest(want), size)
    steady = np.where(jumps, 0.0, change)
    allowed = RTOL * size + ATOL * scale
    return allowed + SAFETY * np.maximum(steady, np.median(steady, axis=0)), jumps


def _change(want: Array, others: Sequence[Array]) -> Array:
    """How far last digits move each element."""
    if not others:
        return np.zeros_like(want)
    with np.errstate(invalid="ignore"):
        changes = [np.abs(other - want) for other in others]
    same = [(other == want) | (np.isnan(other) & np.isnan(want)) for other in others]
    pairs = zip(same, changes, strict=True)
    cleared = [np.where(s, 0.0, np.nan_to_num(c, nan=np.inf)) for s, c in pairs]
    return np.asarray(np.max(cleared, axis=0))


def _largest(want: Array) -> Array:
    """The largest finite magnitude of each column."""
    size = np.where(np.isfinite(want), np.abs(want), 0.0)
    return np.asarray(size.max(axis=0, initial=0.0))


def _close(want: Array, allowed: Array) -> Array:
    """Rows whose best score is not clear of the next, or whose only one is near zero."""
    if want.ndim == 1 or want.shape[1] == 1:
        return np.asarray(np.abs(want.reshape(len(want))) <= allowed.reshape(len(want)))
    order = np.sort(np.nan_to_num(want), axis=1)
    return np.asarray(order[:, -1] - order[:, -2] <= 2 * allowed.max(axis=1))
