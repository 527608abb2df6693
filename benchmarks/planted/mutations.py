"""Bugs planted in ONNX models: a table of small functions, each with a kind.

Each takes a model, which it changes in place, and a random generator that chooses among the
places where it applies; it returns whether it applies at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx

from benchmarks.planted.classical import class_order, dropped_threshold, nan_routing, open_intervals
from benchmarks.planted.graph import Mutate
from benchmarks.planted.operators import (
    align_corners,
    approximate_gelu,
    baked_branch,
    epsilon,
    missing_bias,
    padding_counted,
    saturated,
    swapped_outputs,
    wrong_rounding,
)
from benchmarks.planted.rounding import (
    computed_in_float16,
    float64_downcast,
    one_through,
    one_weight,
    through,
    whole_tensor,
)
from benchmarks.planted.shapes import (
    baked_batch,
    pad_side,
    slice_off_by_one,
    swapped_axis,
    transposed,
)

SCALES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Mutation:
    """A kind of bug, as the table of results names it, and one way to make it."""

    kind: str
    mutate: Mutate


def mutated(
    model: onnx.ModelProto, mutation: Mutation, rng: np.random.Generator
) -> onnx.ModelProto | None:
    """A copy of the model with the bug, or None where it does not apply or changes nothing."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not mutation.mutate(copy, rng) or copy == model:
        return None
    return copy


MUTATIONS: tuple[Mutation, ...] = (
    *(Mutation(f"one weight, {scale:g}", one_weight(scale)) for scale in SCALES),
    Mutation("a tensor scaled by 1 + 1e-4", whole_tensor),
    Mutation("weights through float16", through(np.float16)),
    Mutation("weights through bfloat16", through(ml_dtypes.bfloat16)),
    Mutation("one tensor through float16", one_through),
    Mutation("one value computed in float16", computed_in_float16),
    Mutation("float64 downcast", float64_downcast),
    Mutation("swapped axis", swapped_axis),
    Mutation("transposed square matrix", transposed),
    Mutation("wrong pad side", pad_side),
    Mutation("off-by-one slice", slice_off_by_one),
    Mutation("baked batch", baked_batch),
    Mutation("wrong epsilon", epsilon),
    Mutation("missing bias", missing_bias),
    Mutation("swapped outputs", swapped_outputs),
    Mutation("approximate GELU", approximate_gelu),
    Mutation("align corners", align_corners),
    Mutation("baked branch", baked_branch),
    Mutation("wrong activation", saturated),
    Mutation("wrong rounding", wrong_rounding),
    Mutation("padding in averages", padding_counted),
    Mutation("NaN routing", nan_routing),
    Mutation("open intervals in trees", open_intervals),
    Mutation("dropped threshold", dropped_threshold),
    Mutation("class order", class_order),
)
