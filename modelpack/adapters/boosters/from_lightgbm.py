"""The trees of LightGBM, read from the text that it writes (``Tree::ToString``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from modelpack.adapters.boosters.trees import Forest, Sides, Tree, float32_not_above, runs
from modelpack.samples import Array

ZERO = np.float32(1e-35)
"""Up to which a number is taken for zero (``kZeroThreshold``)."""

# Bits of decision_type (include/LightGBM/tree.h).
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2

# What becomes of the sums (``ConvertOutput`` in src/objective/).
_TRANSFORMS = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    **dict.fromkeys(
        (
            *("regression", "regression_l1", "huber", "fair", "quantile", "mape"),
            *("lambdarank", "rank_xendcg"),
        ),
        "identity",
    ),
}


def problem(item: Any) -> str:
    """Why a fitted LightGBM estimator cannot be converted; empty if it can."""
    booster = _booster(item)
    header, trees = _parsed(booster)
    objective, *settings = header.get("objective", "custom").split()
    if callable(getattr(item, "objective_", None)) or objective not in _TRANSFORMS:
        return f"what becomes of the sum of its trees for the objective {objective!r} is not known"
    if any(tree.get("is_linear", "0") != "0" for tree in trees):
        return "its leaves are linear models (linear_tree)"
    if getattr(booster, "pandas_categorical", None):
        return (
            "it was fitted on columns of pandas categories; "
            "fit it on the numbers of an OrdinalEncoder, with categorical_feature"
        )
    if "sqrt" in settings and objective != "regression":
        return f"the square root (reg_sqrt) of its objective {objective!r} is not supported"
    return ""


def read(item: Any) -> Forest:
    """Read the trees of a fitted estimator, up to its best iteration if it stopped early."""
    header, parts = _parsed(_booster(item))
    targets = int(header["num_tree_per_iteration"])
    # Random forests average (``average_output`` in src/boosting/gbdt_model_text.cpp).
    share = targets / len(parts) if "average_output" in header else 1.0
    objective, *settings = header["objective"].split()
    share *= slope(item)
    trees = [_tree(part, index % targets, share) for index, part in enumerate(parts)]
    return Forest(
        trees,
        np.zeros(targets),
        strict=False,
        transform="signed_square" if "sqrt" in settings else _TRANSFORMS[objective],
        zero_missing=_zero_missing(parts),
    )


def slope(item: Any) -> float:
    """What the sums are multiplied by before they become probabilities."""
    _, *settings = _parsed(_booster(item))[0]["objective"].split()
    given = [float(part.partition(":")[2]) for part in settings if part.startswith("sigmoid:")]
    return given[0] if given else 1.0


def _booster(item: Any) -> Any:
    return item.booster if hasattr(item, "booster") else item.booster_


def _parsed(booster: Any) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The fields of the header and of each tree."""
    blocks = booster.model_to_string().split("\n\n")
    header = dict(_fields(blocks[0]))
    trees = [dict(_fields(block)) for block in blocks[1:] if block.lstrip().startswith("Tree=")]
    return header, trees


def _fields(block: str) -> Iterator[tuple[str, str]]:
    for line in block.splitlines():
        key, _, value = line.partition("=")
        yield key, value


def _numbers(part: dict[str, str], name: str, dtype: Any) -> Array:
    return np.array(part.get(name, "").split(), np.float64).astype(dtype)


def _tree(part: dict[str, str], target: int, share: float) -> Tree:
    """One tree: its inner nodes come first, then its leaves."""
    decisions = _numbers(part, "decision_type", np.int64)
    inner, values = len(decisions), _numbers(part, "leaf_value", np.float64) * share
    # A leaf is written as the complement of its number.
    left, right = (
        np.where(side < 0, inner + ~side, side)
        for side in (_numbers(part, name, np.int64) for name in ("left_child", "right_child"))
    )
    thresholds = _numbers(part, "threshold", np.float64)
    categorical = (decisions & _CATEGORICAL) > 0
    none = -np.ones(len(values), np.int64)
    return Tree(
        feature=np.append(_numbers(part, "split_feature", np.int64), none),
        threshold=np.append(_cuts(np.where(categorical, 0, thresholds)), 0 * values),
        left=np.append(left, none),
        right=np.append(right, none),
        missing_left=np.append(_missing_left(decisions, thresholds), none < 0),
        value=np.append(np.zeros(inner), values),
        target=target,
        sets=_sets(part, np.flatnonzero(categorical), thresholds),
    )


def _cuts(thresholds: Array) -> Array:
    """Thresholds for float32 values; LightGBM reads values up to `ZERO` from zero as zero."""
    cuts = float32_not_above(thresholds)
    near = abs(cuts) <= ZERO
    below = np.nextafter(-ZERO, np.float32(-np.inf))
    return np.where(near, np.where(thresholds < 0, below, ZERO), cuts)


def _missing_left(decisions: Array, thresholds: Array) -> Array:
    """Where NaN goes: the side that was learned, or that of zero (``NumericalDecision``)."""
    kind = (decisions >> 2) & 3
    learned = (decisions & _DEFAULT_LEFT) > 0
    found = np.where(kind == 0, thresholds >= 0, learned)
    return np.where(decisions & _CATEGORICAL, False, found)


def _zero_missing(parts: list[dict[str, str]]) -> tuple[int, ...]:
    """Columns in which zero is missing."""
    found: set[int] = set()
    for part in parts:
        decisions = _numbers(part, "decision_type", np.int64)
        zeros = ((decisions >> 2) & 3) == _MISSING_ZERO
        own = _numbers(part, "split_feature", np.int64)
        found.update(own[zeros & (decisions & _CATEGORICAL == 0)].tolist())
    return tuple(sorted(found))


def _sets(part: dict[str, str], nodes: Array, thresholds: Array) -> dict[int, Sides]:
    """Categories that go left; all else goes right, NaN and negative numbers too.

    A category is a number without its fraction, so that 0 begins above -1
    (``CategoricalDecision``).
    """
    bounds = _numbers(part, "cat_boundaries", np.int64)
    words = _numbers(part, "cat_threshold", np.uint32)
    found = {}
    for node in nodes:
        index = int(thresholds[node])
        own = words[bounds[index] : bounds[index + 1]]
        bits = np.unpackbits(own.view(np.uint8), bitorder="little")
        ends = []
        for low, high in runs(np.flatnonzero(bits).tolist()):
            ends += [_below(low) if low else -1.0, _below(high + 1)]
        found[int(node)] = Sides(np.array(ends, np.float32), first_left=False)
    return found


def _below(number: int) -> float:
    return float(np.nextafter(np.float32(number), np.float32(-np.inf)))
