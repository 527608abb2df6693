"""Comparison, logic and choice, element by element with broadcasting."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.dtypes import built_in
from modelpack.lowering.layout import elementwise
from modelpack.lowering.registry import lowers


@lowers("Equal", 7, 11, 13, 19)
@elementwise
def equal(ctx: Context, a: Any, b: Any) -> Any:
    return tf.equal(a, b) if a.dtype is tf.bool else built_in(ctx, tf.equal, a, b)


@lowers("Less", 7, 9, 13)
@elementwise
def less(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.less, a, b)


@lowers("Greater", 7, 9, 13)
@elementwise
def greater(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.greater, a, b)


@lowers("LessOrEqual", 12, 16)
@elementwise
def less_equal(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.less_equal, a, b)


@lowers("GreaterOrEqual", 12, 16)
@elementwise
def greater_equal(ctx: Context, a: Any, b: Any) -> Any:
    return built_in(ctx, tf.greater_equal, a, b)


@lowers("And", 7)
@elementwise
def logical_and(a: Any, b: Any) -> Any:
    return tf.logical_and(a, b)


@lowers("Or", 7)
@elementwise
def logical_or(a: Any, b: Any) -> Any:
    return tf.logical_or(a, b)


@lowers("Xor", 7)
@elementwise
def logical_xor(a: Any, b: Any) -> Any:
    return tf.not_equal(a, b)


@lowers("Not", 1)
@elementwise
def logical_not(x: Any) -> Any:
    return tf.logical_not(x)


@lowers("Where", 9, 16)
@elementwise
def where(condition: Any, x: Any, y: Any) -> Any:
    return tf.where(condition, x, y)
