"""Rows that the models of the planted-bug benchmark are trained on and tried with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0

# Rows of the real data that no model is trained on.
HELD_OUT = 300


def digits() -> tuple[Any, Any, Any]:
    """Digits between 0 and 1 as [n, 8, 8] of float32: training rows, labels, held-out rows."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8)
    order = np.random.default_rng(SEED).permutation(len(images))
    train, test = order[HELD_OUT:], order[:HELD_OUT]
    return images[train], labels[train].astype(np.int64), images[test]


def table(name: str) -> tuple[Any, Any, Any]:
    """A table of scikit-learn by name: training rows, targets, held-out rows (a quarter)."""
    from sklearn import datasets

    rows, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(rows))
    count = min(HELD_OUT, len(rows) // 4)
    return rows[order[count:]], targets[order[count:]], rows[order[:count]]


def write(folder: Path, rows: Mapping[str, Any]) -> None:
    """Keep held-out rows, and as many that are jittered, by input name.

    Real values move by a twentieth of their column's standard deviation; others stay.
    """
    rng = np.random.default_rng([SEED, 1])
    kept = {}
    for name, given in rows.items():
        array = given.astype(np.str_) if given.dtype.kind == "O" else given
        moved = array
        if array.dtype.kind == "f":
            deviation = np.nanstd(array, axis=0, keepdims=True)
            noise = 0.05 * deviation * rng.standard_normal(array.shape)
            moved = (array + noise).astype(array.dtype)
        kept[name] = np.concatenate([array, moved])
    np.savez(folder / "rows.npz", **kept)
