"""Approximate feature maps of kernels, and estimators that are sums of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.distances import kernel, metric_distances
from modelpack.adapters.sklearn_converters.writer import Writer

# The width at which AdditiveChi2Sampler samples, by steps (Vedaldi and Zisserman, figure 2c).
_INTERVALS = {1: 0.8, 2: 0.5, 3: 0.4}


def nystroem(w: Writer) -> None:
    item = w.item
    near = kernel(w, w.rows(), item.components_, item.kernel, **_parameters(item))
    w.finish(w.linear(near, item.normalization_.T))


def kernel_ridge(w: Writer) -> None:
    item = w.item
    near = kernel(w, w.rows(), item.X_fit_, item.kernel, **_parameters(item))
    dual = item.dual_coef_
    result = w.linear(near, dual.reshape(len(dual), -1))
    w.finish(result if dual.ndim == 2 else w.upright(result))


def _parameters(item: Any) -> dict[str, Any]:
    named = {name: getattr(item, name) for name in ("gamma", "coef0", "degree")}
    return {**named, **(item.kernel_params or {})}


def rbf_sampler(w: Writer) -> None:
    w.finish(_waves(w, w.rows()))


def skewed_chi2_sampler(w: Writer) -> None:
    w.finish(_waves(w, w.op("Log", w.op("Add", w.rows(), w.constant(w.item.skewedness)))))


def _waves(w: Writer, rows: str) -> str:
    item = w.item
    angles = w.linear(rows, item.random_weights_, item.random_offset_)
    return w.op("Mul", w.op("Cos", angles), w.constant(np.sqrt(2.0 / item.n_components)))


def additive_chi2_sampler(w: Writer) -> None:
    """``AdditiveChi2Sampler._transform_dense``; zero where a value is zero."""
    steps = w.item.sample_steps
    width = _INTERVALS.get(steps, 1.0) if w.item.sample_interval is None else w.item.sample_interval
    rows = w.rows()
    none = w.op("Equal", rows, w.constant(0.0))
    zero, logarithm = w.constant(0.0), w.op("Log", w.op("Where", none, w.constant(1.0), rows))
    parts = [w.op("Sqrt", w.op("Mul", rows, w.constant(width)))]
    for step in range(1, steps):
        factor = 2 * width / np.cosh(np.pi * step * width)
        height = w.op("Sqrt", w.op("Mul", rows, w.constant(factor)))
        angle = w.op("Mul", logarithm, w.constant(step * width))
        parts += [
            w.op("Where", none, zero, w.op("Mul", height, w.op(kind, angle)))
            for kind in ("Cos", "Sin")
        ]
    w.finish(w.joined(parts))


def polynomial_count_sketch(w: Writer) -> None:
    """Products of Fourier transforms of sketches, as products with the transform's matrices."""
    item = w.item
    width = item.n_components
    # Angles within one turn: of many, the cosine has fewer digits.
    turns = 2 * np.pi * (np.outer(np.arange(width), np.arange(width)) % width) / width
    rows = w.op("Mul", w.rows(), w.constant(np.sqrt(item.gamma)))
    real = imaginary = ""
    for index, bits in zip(item.indexHash_, item.bitHash_, strict=True):
        matrix = np.zeros((len(index), width))
        matrix[np.arange(len(index)), index] = bits
        # The last of the columns is a constant, unless coef0 is 0.
        inputs = len(index) - (item.coef0 != 0)
        bias = np.sqrt(item.coef0) * matrix[-1] if item.coef0 != 0 else np.zeros(width)
        sketch = w.linear(rows, matrix[:inputs], bias)
        own, other = w.linear(sketch, np.cos(turns)), w.linear(sketch, -np.sin(turns))
        if not real:
            real, imaginary = own, other
            continue
        real, imaginary = (
            w.op("Sub", w.op("Mul", real, own), w.op("Mul", imaginary, other)),
            w.op("Add", w.op("Mul", real, other), w.op("Mul", imaginary, own)),
        )
    back = w.op(
        "Sub", w.linear(real, np.cos(turns) / width), w.linear(imaginary, np.sin(turns) / width)
    )
    w.finish(back)


def label_propagation(w: Writer) -> None:
    """Labels of known rows, weighted by a kernel.

    Raises:
        NotImplementedError: the kernel is a function, or takes the nearest rows, of which
            those at equal distance cannot be told apart.
    """
    item = w.item
    if item.kernel != "rbf":
        raise NotImplementedError(f"the kernel {item.kernel!r}")
    near = kernel(w, w.rows(), item.X_, "rbf", gamma=item.gamma)
    weights = w.linear(near, item.label_distributions_)
    w.finish_classes(w.op("Div", weights, w.summed(weights)))


def kernel_density(w: Writer) -> None:
    """Logarithm of the mean of a kernel around known rows.

    Raises:
        NotImplementedError: the answer is approximate, or the kernel has an edge.
    """
    item = w.item
    if item.atol or item.rtol:
        raise NotImplementedError("an approximate answer (atol, rtol)")
    if item.kernel not in {"gaussian", "exponential"}:
        raise NotImplementedError(f"the kernel {item.kernel!r}")
    points = np.asarray(item.tree_.data)
    far = metric_distances(w, w.rows(), points, item.metric)
    scaled = w.op("Div", far, w.constant(item.bandwidth_))
    if item.kernel == "gaussian":
        scaled = w.op("Mul", w.op("Mul", scaled, scaled), w.constant(0.5))
    weights = item.tree_.sample_weight
    known = np.zeros(len(points)) if weights is None else np.log(np.asarray(weights))
    logs = w.op("Sub", w.constant(known), scaled)
    highest = w.reduced("ReduceMax", logs)
    shares = w.summed(w.op("Exp", w.op("Sub", logs, highest)))
    total = w.op("Add", w.op("Log", shares), highest)
    w.finish(w.flat(w.op("Add", total, w.constant(_scale_of_density(item, points, known)))))


def _scale_of_density(item: Any, points: Any, known: Any) -> float:
    """What the logarithm of a sum is off by: told from the answer at a known row.

    The norm of a kernel in many dimensions is in compiled code of scikit-learn only.
    """
    place = points[:1]
    far = item.tree_.query(place, k=len(points), sort_results=True)
    order, scaled = far[1][0], far[0][0] / item.bandwidth_
    shape = -(scaled**2) / 2 if item.kernel == "gaussian" else -scaled
    return float(item.score_samples(place)[0] - np.logaddexp.reduce(known[order] + shape))


def kernel_components(w: Writer) -> None:
    """Projections in the space of a kernel, which is centered there (KernelPCA)."""
    item = w.item
    given = {name: getattr(item, name) for name in ("coef0", "degree")}
    near = kernel(
        w,
        w.rows(),
        item.X_fit_,
        item.kernel,
        gamma=getattr(item, "gamma_", item.gamma),
        **{**given, **(item.kernel_params or {})},
    )
    known = item._centerer
    mean = w.op("Div", w.summed(near), w.constant(float(len(known.K_fit_rows_))))
    offset = known.K_fit_all_ - known.K_fit_rows_
    centered = w.op("Add", w.op("Sub", near, mean), w.constant(offset[None]))
    kept = item.eigenvalues_ != 0
    sizes = np.sqrt(np.where(kept, item.eigenvalues_, 1.0))
    w.finish(w.linear(centered, np.where(kept, item.eigenvectors_ / sizes, 0.0)))
