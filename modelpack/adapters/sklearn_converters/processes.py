"""Gaussian processes (Rasmussen and Williams, Gaussian Processes for ML, 2006)."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelpack.adapters.sklearn_converters.distances import distances, squared_distances
from modelpack.adapters.sklearn_converters.functions import erf
from modelpack.adapters.sklearn_converters.writer import Writer

# The logistic function as a sum of error functions (Williams and Barber, 1998, appendix A), with
# the numbers of ``sklearn/gaussian_process/_gpc.py``.
_LAMBDAS = np.array([0.41, 0.4, 0.37, 0.44, 0.39])
_FACTORS = np.array([-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654])


def classifier(w: Writer) -> None:
    """Probabilities by Laplace's approximation, one process for each class or for two.

    Raises:
        NotImplementedError: of pairs of classes, and of kernels that are not known here.
    """
    item, rows = w.item, w.rows()
    base = item.base_estimator_
    if hasattr(base, "pairwise_indices_"):
        raise NotImplementedError("multi_class='one_vs_one'")
    if not hasattr(base, "estimators_"):
        share, mean = _share(w, base, rows)
        told = w.joined([w.op("Sub", w.constant(1.0), share), share])
        above = w.cast(w.op("Greater", w.flat(mean), w.constant(0.0)), "int64")
        return w.finish(w.chosen_labels(above, item.classes_), told)
    told = w.joined([_share(w, each, rows)[0] for each in base.estimators_])
    return w.finish_classes(w.op("Div", told, w.summed(told)))


def _share(w: Writer, process: Any, rows: str) -> tuple[str, str]:
    """Probability of the second class and the latent mean, ``[rows, 1]`` (algorithm 3.2)."""
    kernel = process.kernel_
    near = covariance(w, kernel, rows, process.X_train_)
    mean = w.linear(near, (process.y_train_ - process.pi_)[:, None])
    half = w.linear(near, process.W_sr_[:, None] * np.linalg.inv(process.L_).T)
    spread = w.op("Sub", _own_covariance(w, kernel, rows), w.summed(w.op("Mul", half, half)))
    alpha = w.op("Reciprocal", w.op("Mul", spread, w.constant(2.0)))
    root = w.op("Sqrt", w.op("Div", alpha, w.op("Add", alpha, w.constant(_LAMBDAS[None] ** 2))))
    angle = w.op("Mul", w.op("Mul", mean, w.constant(_LAMBDAS[None])), root)
    # sqrt(pi / alpha) / (2 sqrt(2 pi variance)) is 1 / 2.
    total = w.linear(erf(w, angle), 0.5 * _FACTORS[:, None], 0.5 * _FACTORS.sum())
    return total, mean


def regressor(w: Writer) -> None:
    """The mean of the process, in the units of the targets (algorithm 2.1).

    Raises:
        NotImplementedError: of a kernel that is not known here.
    """
    item = w.item
    near = covariance(w, item.kernel_, w.rows(), item.X_train_)
    weights = item.alpha_.reshape(len(item.alpha_), -1)
    spread, middle = np.ravel(item._y_train_std), np.ravel(item._y_train_mean)
    w.finish(w.linear(near, weights * spread, middle))


def is_known(item: Any) -> bool:
    """Whether a process is fitted, with kernels that `covariance` knows."""
    return hasattr(item, "X_train_") and _is_known(item.kernel_)


def _is_known(kernel: Any) -> bool:
    name = type(kernel).__name__
    if name in {"Sum", "Product"}:
        return _is_known(kernel.k1) and _is_known(kernel.k2)
    if name == "Exponentiation":
        return _is_known(kernel.kernel)
    return name in {"ConstantKernel", "WhiteKernel", "DotProduct", "RBF", "RationalQuadratic"} or (
        name == "Matern" and kernel.nu in {0.5, 1.5, 2.5, np.inf}
    )


def covariance(w: Writer, kernel: Any, rows: str, points: Any) -> str:
    """``kernel(rows, points)``.

    Raises:
        NotImplementedError: of a kernel that is not known here.
    """
    name = type(kernel).__name__
    if name in {"Sum", "Product"}:
        left, right = (covariance(w, part, rows, points) for part in (kernel.k1, kernel.k2))
        return w.op("Add" if name == "Sum" else "Mul", left, right)
    if name == "Exponentiation":
        inner = covariance(w, kernel.kernel, rows, points)
        return w.op("Pow", inner, w.constant(float(kernel.exponent)))
    if name in {"ConstantKernel", "WhiteKernel"}:
        value = kernel.constant_value if name == "ConstantKernel" else 0.0
        return w.repeated(rows, np.full(len(points), value))
    if name == "DotProduct":
        return w.linear(rows, np.asarray(points).T, kernel.sigma_0**2)
    if name in {"RBF", "Matern", "RationalQuadratic"}:
        scale = np.asarray(kernel.length_scale, np.float64)
        return _of_distance(w, kernel, w.op("Div", rows, w.constant(scale)), points / scale)
    raise NotImplementedError(f"the kernel {name}")


def _of_distance(w: Writer, kernel: Any, rows: str, points: Any) -> str:
    name, nu = type(kernel).__name__, getattr(kernel, "nu", np.inf)
    if name == "RationalQuadratic":
        share = w.constant(1 / (2 * kernel.alpha))
        grown = w.op("Add", w.op("Mul", squared_distances(w, rows, points), share), w.constant(1.0))
        return w.op("Pow", grown, w.constant(-float(kernel.alpha)))
    if name == "RBF" or nu == np.inf:
        return w.op("Exp", w.op("Mul", squared_distances(w, rows, points), w.constant(-0.5)))
    if nu not in {0.5, 1.5, 2.5}:
        raise NotImplementedError(f"the kernel Matern with nu={nu}")
    far = w.op("Mul", distances(w, rows, points), w.constant(np.sqrt(2 * nu)))
    falling = w.op("Exp", w.op("Neg", far))
    if nu == 0.5:
        return falling
    factor = w.op("Add", far, w.constant(1.0))
    if nu == 2.5:
        factor = w.op("Add", factor, w.op("Mul", w.op("Mul", far, far), w.constant(1 / 3)))
    return w.op("Mul", factor, falling)


def _own_covariance(w: Writer, kernel: Any, rows: str) -> str:
    """``kernel.diag(rows)``, ``[rows, 1]``."""
    name = type(kernel).__name__
    if name in {"Sum", "Product"}:
        left, right = (_own_covariance(w, part, rows) for part in (kernel.k1, kernel.k2))
        return w.op("Add" if name == "Sum" else "Mul", left, right)
    if name == "Exponentiation":
        inner = _own_covariance(w, kernel.kernel, rows)
        return w.op("Pow", inner, w.constant(float(kernel.exponent)))
    if name == "DotProduct":
        return w.op("Add", w.summed(w.op("Mul", rows, rows)), w.constant(kernel.sigma_0**2))
    value = {"ConstantKernel": "constant_value", "WhiteKernel": "noise_level"}.get(name)
    return w.repeated(rows, [1.0 if value is None else getattr(kernel, value)])
