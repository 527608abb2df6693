"""Random ensembles of trees, as attributes of the tree ops."""

from __future__ import annotations

from typing import Any

import numpy as np

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def ensemble(
    seed: int,
    modes: tuple[str, ...] = MODES[:1],
    *,
    trees: int = 7,
    depth: int = 4,
    features: int = 5,
    missing: bool = True,
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Attributes ``nodes_*`` of trees that split at small whole numbers, and their leaves."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, float, str, int, int, int]] = []
    for tree in range(trees):
        waiting, count = [(0, 0)], 1
        while waiting:
            node, level = waiting.pop(0)
            if level == depth or (level > 1 and rng.random() < 0.25):
                rows.append((tree, node, 0, 0.0, "LEAF", 0, 0, 0))
                continue
            below = (count, count + 1)
            waiting += [(number, level + 1) for number in below]
            count += 2
            test = (int(rng.integers(features)), float(rng.integers(-2, 3)), str(rng.choice(modes)))
            rows.append((tree, node, *test, *below, int(rng.integers(2))))
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    columns = list(zip(*rows, strict=True))
    found = {f"nodes_{name}": list(part) for name, part in zip(names, columns, strict=False)}
    if missing:
        found["nodes_missing_value_tracks_true"] = list(columns[7])
    return found, [row[:2] for row in rows if row[4] == "LEAF"]


def weighted(
    seed: int, prefix: str, leaves: list[tuple[int, int]], targets: list[int], **kind: Any
) -> dict[str, Any]:
    """Attributes of weights: each leaf has one for every one of ``targets``.

    Args:
        kind: ``positive`` for weights in [0, 1 / trees]; ``turns`` gives each tree one target.
    """
    rng = np.random.default_rng(seed)
    trees = 1 + max(tree for tree, _ in leaves)
    rows = [
        (tree, node, target)
        for tree, node in leaves
        for target in ([targets[tree % len(targets)]] if kind.get("turns") else targets)
    ]
    weights = rng.normal(size=len(rows)) * 0.3
    if kind.get("positive"):
        weights = rng.random(len(rows)) / trees
    tree_ids, nodes, ids = zip(*rows, strict=True)
    return {
        f"{prefix}_treeids": list(tree_ids),
        f"{prefix}_nodeids": list(nodes),
        f"{prefix}_ids": list(ids),
        f"{prefix}_weights": weights.astype(np.float32).tolist(),
    }


def grid(seed: int, count: int, dtype: Any = np.float32, features: int = 5) -> Any:
    """Rows of small whole numbers, so that many are equal to thresholds, with NaN among them."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (count, features)).astype(dtype)
    if values.dtype.kind == "f":
        values[rng.random(values.shape) < 0.2] = np.nan
    return values
