"""Estimators whose answer is found by iterating, as loops that stop where theirs do."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.decisions import decision
from modelpack.adapters.sklearn_converters.imputers import (
    is_missing,
    statistics_of,
    with_indicator,
)
from modelpack.adapters.sklearn_converters.writer import Writer

_EPSILON = float(np.finfo(np.float32).eps)
"""Below which NMF takes a divisor for zero (``EPSILON`` in sklearn/decomposition/_nmf.py)."""

_MOST_SPARSE = 64
"""Atoms of a code: each is written down as a step of its own."""


def nmf(w: Writer) -> None:
    """Weights of fixed parts by coordinate descent or multiplicative updates (NMF).

    Raises:
        NotImplementedError: of another loss than the Frobenius norm.
    """
    item = w.item
    if item._beta_loss != 2:
        raise NotImplementedError(f"beta_loss={item.beta_loss!r}")
    if item.solver == "mu":
        return _multiplied(w, item.max_iter, every=10)
    rows = w.rows()
    parts = np.asarray(item.components_, np.float64)
    l1, l2 = _regularization(item, parts.shape[1])
    gram = parts @ parts.T + l2 * np.eye(len(parts))
    wanted = w.op("Sub", w.linear(rows, parts.T), w.constant(l1))
    start = w.repeated(rows, np.zeros(len(parts)))
    columns = [f"v{t}" for t in range(len(parts))]
    lines = [f"{', '.join(columns)} = Split<axis=1, num_outputs={len(parts)}>(v)"]
    zero = w.constant(0.0)
    moved = []
    for t in range(len(parts)):
        if gram[t, t] == 0:
            continue
        lines += [
            f"all{t} = Concat<axis=1>({', '.join(columns)})",
            f"pull{t} = MatMul(all{t}, {w.constant(gram[:, [t]])})",
            f"want{t} = Gather<axis=1>({wanted}, {w.integers(t)})",
            f"slope{t} = Sub(pull{t}, want{t})",
            f"down{t} = Min(slope{t}, {zero})",
            f"at_zero{t} = Equal({columns[t]}, {zero})",
            f"free{t} = Where(at_zero{t}, down{t}, slope{t})",
            f"size{t} = Abs(free{t})",
            f"step{t} = Div(slope{t}, {w.constant(gram[t, t])})",
            f"next{t} = Sub({columns[t]}, step{t})",
            f"new{t} = Max(next{t}, {zero})",
        ]
        columns[t] = f"new{t}"
        moved.append(f"size{t}")
    lines += [
        f"out = Concat<axis=1>({', '.join(columns)})",
        f"sizes = Concat<axis=1>({', '.join(moved)})",
        "violation = ReduceSum<keepdims=0>(sizes)",
        f"is_first = Equal(i, {w.constant(0, 'int64')})",
        "first_out = Where(is_first, violation, first)",
        f"limit = Mul(first_out, {w.constant(float(item.tol))})",
        "again = Greater(violation, limit)",
    ]
    found = w.loop(item.max_iter, lines, {"v": ("out", start, 2), "first": ("first_out", zero, 0)})
    return w.finish(found[0])


def mini_batch_nmf(w: Writer) -> None:
    """Weights of fixed parts by multiplicative updates (MiniBatchNMF).

    Raises:
        NotImplementedError: of another loss than the Frobenius norm.
    """
    if w.item._beta_loss != 2:
        raise NotImplementedError(f"beta_loss={w.item.beta_loss!r}")
    _multiplied(w, w.item._transform_max_iter, every=1)


def _regularization(item: Any, columns: int) -> tuple[float, float]:
    """Weights of the L1 and L2 norms."""
    return columns * item.alpha_W * item.l1_ratio, columns * item.alpha_W * (1 - item.l1_ratio)


def _multiplied(w: Writer, most: int, every: int) -> None:
    """Multiplicative updates from the same start for all rows.

    Raises:
        NotImplementedError: of NMF, which looks at its error every ten steps.
    """
    item, rows = w.item, w.rows()
    if every > 1:
        raise NotImplementedError("solver='mu'")
    parts = np.asarray(item.components_, np.float64)
    l1, l2 = _regularization(item, parts.shape[1])
    numerator = w.linear(rows, parts.T)
    mean = w.op("ReduceMean", rows, keepdims=0)
    height = w.op("Sqrt", w.op("Div", mean, w.constant(float(len(parts)))))
    start = w.op("Mul", w.repeated(rows, np.ones(len(parts))), height)
    lines = [
        f"pull = MatMul(v, {w.constant(parts @ parts.T + l2 * np.eye(len(parts)))})",
        f"under = Add(pull, {w.constant(l1)})",
        f"gone = Equal(under, {w.constant(0.0)})",
        f"safe = Where(gone, {w.constant(_EPSILON)}, under)",
        f"factor = Div({numerator}, safe)",
    ]
    power = float(getattr(item, "_gamma", 1.0))
    lines.append(
        f"powered = Pow(factor, {w.constant(power)})"
        if power != 1
        else "powered = Identity(factor)"
    )
    lines += [
        "out = Mul(v, powered)",
        "apart = Sub(out, v)",
        "squares = Mul(apart, apart)",
        "change = ReduceSum<keepdims=0>(squares)",
        "own_squares = Mul(out, out)",
        "own = ReduceSum<keepdims=0>(own_squares)",
        f"limit = Mul(own, {w.constant(float(item.tol) ** 2)})",
        "again = Greater(change, limit)",
    ]
    if item.tol <= 0:
        lines[-1] = f"again = Identity({w.constant(True, 'bool')})"
    w.finish(w.loop(most, lines, {"v": ("out", start, 2)})[0])


# --- topics --------------------------------------------------------------------------------


def latent_dirichlet(w: Writer) -> None:
    """Shares of topics in each row, which stops when it changes little (Hoffman et al., 2010)."""
    item, rows = w.item, w.rows()
    words = np.asarray(item.exp_dirichlet_component_, np.float64)
    topics = len(words)
    one, tiny = w.constant(1.0), w.constant(float(np.finfo(np.float64).eps))
    start = w.repeated(rows, np.ones(topics))
    lines = [
        *_expectation(w, "v", "grown"),
        f"phi = MatMul(grown, {w.constant(words)})",
        f"norm = Add(phi, {tiny})",
        f"ratio = Div({rows}, norm)",
        f"shared = MatMul(ratio, {w.constant(words.T)})",
        "told = Mul(grown, shared)",
        f"new = Add(told, {w.constant(float(item.doc_topic_prior_))})",
        "apart = Sub(new, v)",
        "size = Abs(apart)",
        f"total = ReduceSum<keepdims=1>(size, {w.integers(1)})",
        f"change = Div(total, {w.constant(float(topics))})",
        "out = Where(busy, new, v)",
        f"moves = GreaterOrEqual(change, {w.constant(float(item.mean_change_tol))})",
        "busy_out = And(busy, moves)",
        f"ones = Where(busy_out, {one}, {w.constant(0.0)})",
        "left = ReduceSum<keepdims=0>(ones)",
        f"again = Greater(left, {w.constant(0.0)})",
    ]
    busy = w.cast(w.repeated(rows, [1.0]), "bool")
    state = {"v": ("out", start, 2), "busy": ("busy_out", busy, 2)}
    found = w.loop(item.max_doc_update_iter, lines, state)[0]
    w.finish(w.op("Div", found, w.summed(found)))


def _expectation(w: Writer, source: str, result: str) -> list[str]:
    """``exp(psi(x) - psi(sum of x))`` of rows."""
    return [
        f"sum_{source} = ReduceSum<keepdims=1>({source}, {w.integers(1)})",
        *_digamma(w, source),
        *_digamma(w, f"sum_{source}"),
        f"log_{result} = Sub(psi_{source}, psi_sum_{source})",
        f"{result} = Exp(log_{result})",
    ]


def _digamma(w: Writer, x: str) -> list[str]:
    """``psi_<x>``, by its asymptotic series (J. M. Bernardo, AS 103, 1976), six steps up."""
    lines, total = [], []
    for step in range(6):
        lines += [
            f"up{step}_{x} = Add({x}, {w.constant(float(step))})",
            f"part{step}_{x} = Reciprocal(up{step}_{x})",
        ]
        total.append(f"part{step}_{x}")
    lines += [
        f"less_{x} = Sum({', '.join(total)})",
        f"far_{x} = Add({x}, {w.constant(6.0)})",
        f"r_{x} = Reciprocal(far_{x})",
        f"r2_{x} = Mul(r_{x}, r_{x})",
        f"half_{x} = Mul(r_{x}, {w.constant(0.5)})",
        f"a_{x} = Mul(r2_{x}, {w.constant(-1 / 252)})",
        f"b_{x} = Add(a_{x}, {w.constant(1 / 120)})",
        f"c_{x} = Mul(b_{x}, r2_{x})",
        f"d_{x} = Sub({w.constant(1 / 12)}, c_{x})",
        f"e_{x} = Mul(d_{x}, r2_{x})",
        f"log_{x} = Log(far_{x})",
        f"f_{x} = Sub(log_{x}, half_{x})",
        f"g_{x} = Sub(f_{x}, e_{x})",
        f"psi_{x} = Sub(g_{x}, less_{x})",
    ]
    return lines


# --- codes ---------------------------------------------------------------------------------


def sparse_code(w: Writer) -> None:
    """Codes of few atoms of a dictionary.

    Raises:
        NotImplementedError: of algorithms other than matching pursuit and thresholds.
    """
    item, rows = w.item, w.rows()
    atoms = getattr(item, "components_", None)
    atoms = np.asarray(item.dictionary if atoms is None else atoms, np.float64)
    if item.transform_algorithm == "omp":
        count = item.transform_n_nonzero_coefs
        count = min(max(atoms.shape[1] / 10, 1), len(atoms)) if count is None else count
        code = _pursued(w, rows, atoms, int(count))
    elif item.transform_algorithm == "threshold":
        code = _thresholded(w, rows, atoms)
    else:
        raise NotImplementedError(f"transform_algorithm={item.transform_algorithm!r}")
    if item.split_sign:
        zero = w.constant(0.0)
        code = w.joined([w.op("Max", code, zero), w.op("Max", w.op("Neg", code), zero)])
    w.finish(code)


def _thresholded(w: Writer, rows: str, atoms: Any) -> str:
    item = w.item
    alpha = item.transform_alpha
    alpha = getattr(item, "alpha", None) if alpha is None else alpha
    alpha = 1.0 if alpha is None else alpha
    near = w.linear(rows, atoms.T)
    less = w.op("Sub", w.op("Abs", near), w.constant(float(alpha)))
    code = w.op("Mul", w.op("Sign", near), w.op("Max", less, w.constant(0.0)))
    return w.op("Max", code, w.constant(0.0)) if item.positive_code else code


def _pursued(w: Writer, rows: str, atoms: Any, count: int) -> str:
    """Orthogonal matching pursuit: the atom nearest to what is left, and again.

    Atoms are made orthogonal to those before, which solves the normal equations that
    scikit-learn solves by Cholesky (``_gram_omp``).

    Raises:
        NotImplementedError: of codes of many atoms.
    """
    if count > _MOST_SPARSE:
        raise NotImplementedError(f"a code of {count} atoms")
    zero, one = w.constant(0.0), w.constant(1.0)
    table, left = w.constant(atoms), rows
    steps: list[tuple[str, str, str, list[str]]] = []
    going = ""
    for _ in range(count):
        near = w.linear(left, atoms.T)
        size = w.op("Abs", near)
        chosen = w.op("ArgMax", size, axis=1, keepdims=0)
        best = w.reduced("ReduceMax", size)
        found = w.op("Greater", w.op("Mul", best, best), w.constant(float(np.finfo(float).eps)))
        going = w.op("And", going, found) if going else found
        atom = w.op("Gather", table, chosen, axis=0)
        shares = []
        for _, unit, _, _ in steps:
            share = w.summed(w.op("Mul", atom, unit))
            shares.append(share)
            atom = w.op("Sub", atom, w.op("Mul", share, unit))
        length = w.op("Sqrt", w.summed(w.op("Mul", atom, atom)))
        unit = w.op("Div", atom, w.op("Where", going, length, one))
        part = w.op("Where", going, w.summed(w.op("Mul", left, unit)), zero)
        left = w.op("Sub", left, w.op("Mul", part, unit))
        steps.append((chosen, unit, w.op("Where", going, length, one), [part, *shares]))
    return _solved(w, steps, len(atoms))


def _solved(w: Writer, steps: list[tuple[str, str, str, list[str]]], atoms: int) -> str:
    """Back substitution: weights of the atoms as they are in the dictionary."""
    weights: list[str] = [""] * len(steps)
    code = ""
    for index in reversed(range(len(steps))):
        chosen, _, length, (part, *_) = steps[index]
        for later in range(index + 1, len(steps)):
            share = steps[later][3][1 + index]
            part = w.op("Sub", part, w.op("Mul", weights[later], share))
        weights[index] = w.op("Div", part, length)
        place = w.op("Equal", w.upright(chosen), w.constant([range(atoms)], "int64"))
        own = w.op("Where", place, weights[index], w.constant(0.0))
        code = w.op("Add", code, own) if code else own
    return code


# --- imputation ----------------------------------------------------------------------------


def iterative_imputer(w: Writer) -> None:
    """Missing values by the regressors of each column, in the order they were fitted.

    Raises:
        NotImplementedError: values are drawn at random, or columns are dropped.
    """
    item, rows = w.item, w.rows()
    first = item.initial_imputer_
    if item.sample_posterior:
        raise NotImplementedError("values drawn at random (sample_posterior)")
    if np.isnan(first.statistics_).any():
        raise NotImplementedError("columns without any value")
    missing = is_missing(w, rows, item.missing_values, "float64")
    filled = w.op("Where", missing, w.constant(statistics_of(first)[None]), rows)
    width = len(first.statistics_)
    columns = [w.columns(filled, [index]) for index in range(width)]
    gaps = [w.columns(missing, [index]) for index in range(width)]
    for feature, neighbors, estimator in item.imputation_sequence_:
        known = w.joined([columns[index] for index in neighbors])
        if hasattr(estimator, "coef_"):
            guess = decision(w, estimator, known)
        else:
            guess = w.upright(w.ask(estimator, known).scores)
        low, high = (
            np.ravel(np.broadcast_to(bound, width))[feature]
            for bound in (item._min_value, item._max_value)
        )
        guess = w.op("Min", w.op("Max", guess, w.constant(low)), w.constant(high))
        columns[feature] = w.op("Where", gaps[feature], guess, columns[feature])
    # Where every value is missing, scikit-learn does not begin.
    nothing = w.op("ReduceMin", w.cast(missing, "float64"), keepdims=0)
    stays = w.op("Greater", nothing, w.constant(0.5))
    imputed = w.op("Where", stays, filled, w.joined(columns))
    w.finish(with_indicator(w, imputed, rows, "float64"))
