"""Preparation of features: scaling, imputing, encoding of categories (ai.onnx.ml)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import elementwise
from modelpack.lowering.moving import gathered
from modelpack.lowering.ops import ml_scores
from modelpack.lowering.registry import lowers
from modelpack.lowering.searching import searched
from modelpack.lowering.value import Array, Value

_DOMAIN = "ai.onnx.ml"

Ints = Sequence[int] | None
Floats = Sequence[float] | None
Strings = Sequence[str] | None


@lowers("Scaler", 1, domain=_DOMAIN)
def scaler(x: Value, *, offset: Floats = None, scale: Floats = None) -> Any:
    wide = x.tensor if x.dtype == tf.float64 else tf.cast(x.tensor, tf.float32)
    dtype = wide.dtype.as_numpy_dtype
    # The attributes are float32 numbers, whatever the dtype is they are used in.
    shift, factor = (np.array(part, np.float32).astype(dtype) for part in (offset or 0, scale or 1))
    return tf.cast((wide - shift) * factor, tf.float32)


@lowers("Normalizer", 1, domain=_DOMAIN)
def normalizer(ctx: Context, x: Value, *, norm: str = "MAX") -> Any:
    """Rows divided by a norm; by 1 where it is 0. MAX is the highest value, not the largest."""
    tensor = tf.cast(x.tensor, tf.float32)
    if norm == "MAX":
        size = tf.reduce_max(tensor, -1, keepdims=True)
    elif norm == "L1":
        size = tf.reduce_sum(tf.abs(tensor), -1, keepdims=True)
    elif norm == "L2":
        size = tf.sqrt(tf.reduce_sum(tensor * tensor, -1, keepdims=True))
    else:
        raise ctx.refuse(f"norm '{norm}' is not defined")
    return tensor / tf.where(tf.equal(size, 0.0), tf.ones_like(size), size)


@lowers("Binarizer", 1, domain=_DOMAIN)
@elementwise
def binarizer(x: Any, *, threshold: float = 0.0) -> Any:
    limit = threshold if x.dtype.is_floating else int(np.floor(threshold))
    return tf.cast(x > tf.constant(limit, x.dtype), x.dtype)


@lowers("Imputer", 1, domain=_DOMAIN)
def imputer(
    ctx: Context,
    x: Value,
    *,
    imputed_value_floats: Floats = None,
    imputed_value_int64s: Ints = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Any:
    real = x.dtype.is_floating
    values = imputed_value_floats if real else imputed_value_int64s
    if not values or len(values) not in {1, x.shape[-1] or len(values)}:
        raise ctx.refuse("there is not one imputed value, or one for each feature")
    tensor = x.tensor
    replaced = tf.constant(replaced_value_float if real else replaced_value_int64, x.dtype)
    if real and np.isnan(replaced_value_float):
        replaced = tensor
        missing = tf.not_equal(tensor, tensor)
    else:
        missing = tf.equal(tensor, replaced)
    new = np.array(values, np.float32 if real else np.int64).astype(x.dtype.as_numpy_dtype)
    return tf.where(missing, new + tf.zeros_like(tensor), tensor)


@lowers("ArrayFeatureExtractor", 1, domain=_DOMAIN)
def array_feature_extractor(ctx: Context, x: Value, y: Value) -> Any:
    tensor = ml_scores.rows(x, x.dtype)
    index = y.const.reshape(-1) if y.const is not None else sizes.reshape(y.tensor, [-1])
    return gathered(ctx, tensor, index, tensor.shape.rank - 1)


@lowers("FeatureVectorizer", 1, domain=_DOMAIN)
def feature_vectorizer(*xs: Value, inputdimensions: Ints = None) -> Any:
    """Columns side by side; each input cropped, or filled up with zeros, to its dimension."""
    parts = []
    for position, x in enumerate(xs):
        part = ml_scores.rows(x)
        if x.rank > 2:
            part = sizes.reshape(part, [x.dims()[0], sizes.product(x.dims()[1:])])
        if inputdimensions:
            part = _fitted(part, inputdimensions[position])
        parts.append(part)
    return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


def _fitted(part: Any, width: int) -> Any:
    if part.shape[1] == width:
        return part
    if part.shape[1] is None:
        part = tf.pad(part, [[0, 0], [0, width]])[:, :width]
    else:
        part = tf.pad(part[:, :width], [[0, 0], [0, max(0, width - part.shape[1])]])
    return sizes.reshape(part, [-1, width])


# --- categories ----------------------------------------------------------------------------


@lowers("OneHotEncoder", 1, domain=_DOMAIN)
def one_hot_encoder(
    x: Value, *, cats_int64s: Ints = None, cats_strings: Strings = None, zeros: int = 1
) -> Any:
    """One-hot rows; unknown categories give zeros.

    With ``zeros=0`` an unknown category is an error in ONNX, which a graph cannot raise: its
    row is NaN, so that nothing computed from it can be taken for an answer.
    """
    keys: Array = np.array(cats_strings or cats_int64s, object if cats_strings else np.int64)
    tensor = x.tensor
    known = None
    if x.dtype.is_floating:  # NaN has no category, but may become an integer
        known = tf.equal(tensor, tensor)
        tensor = tf.cast(tensor, tf.int64)
    found = tf.cast(_equals(tensor, keys), tf.float32)
    if known is not None:
        found = found * tf.expand_dims(tf.cast(known, tf.float32), -1)
    if zeros:
        return found
    some = tf.reduce_max(found, -1, keepdims=True) > 0
    return tf.where(some, found, np.float32(np.nan) + tf.zeros_like(found))


@lowers("CategoryMapper", 1, domain=_DOMAIN)
def category_mapper(
    ctx: Context,
    x: Value,
    *,
    cats_int64s: Ints = None,
    cats_strings: Strings = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Any:
    numbers = np.array(cats_int64s, np.int64)
    texts = np.array(cats_strings, object)
    if x.dtype == tf.string:
        return _mapped(ctx, x, texts, numbers, default_int64)
    return _mapped(ctx, x, numbers, texts, default_string)


@lowers("LabelEncoder", 1, domain=_DOMAIN)
def label_encoder_1(
    ctx: Context,
    x: Value,
    *,
    classes_strings: Strings = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Any:
    numbers = list(range(len(classes_strings or ())))
    return category_mapper(
        ctx,
        x,
        cats_int64s=numbers,
        cats_strings=classes_strings,
        default_int64=default_int64,
        default_string=default_string,
    )


@lowers("LabelEncoder", 2, domain=_DOMAIN)
def label_encoder_2(
    ctx: Context,
    x: Value,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: Floats = None,
    keys_int64s: Ints = None,
    keys_strings: Strings = None,
    values_floats: Floats = None,
    values_int64s: Ints = None,
    values_strings: Strings = None,
) -> Any:
    keys = _listed(keys_strings, keys_int64s, keys_floats)
    values = _listed(values_strings, values_int64s, values_floats)
    default = {"O": default_string, "i": default_int64, "f": default_float}[values.dtype.kind]
    return _mapped(ctx, x, keys, values, default)


@lowers("LabelEncoder", 4, domain=_DOMAIN)
def label_encoder_4(
    ctx: Context,
    x: Value,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Array | None = None,
    keys_floats: Floats = None,
    keys_int64s: Ints = None,
    keys_strings: Strings = None,
    keys_tensor: Array | None = None,
    values_floats: Floats = None,
    values_int64s: Ints = None,
    values_strings: Strings = None,
    values_tensor: Array | None = None,
) -> Any:
    keys = _listed(keys_strings, keys_int64s, keys_floats, keys_tensor)
    values = _listed(values_strings, values_int64s, values_floats, values_tensor)
    default = {"O": default_string, "i": default_int64, "f": default_float}[values.dtype.kind]
    if default_tensor is not None:
        default = default_tensor.reshape(-1)[0]
    return _mapped(ctx, x, keys, values, default)


def _listed(strings: Strings, ints: Ints, floats: Floats, tensor: Array | None = None) -> Array:
    """The one of an attribute's forms that is given."""
    if tensor is not None:
        return tensor.reshape(-1)
    if strings is not None:
        return np.array(strings, object)
    return np.array(ints, np.int64) if ints is not None else np.array(floats or (), np.float32)


def _mapped(ctx: Context, x: Value, keys: Array, values: Array, default: Any) -> Any:
    """Elements replaced by the values of equal keys, or by the default."""
    if len(keys) != len(values):
        raise ctx.refuse(f"{len(keys)} keys for {len(values)} values")
    if len({str(key) for key in keys}) < len(keys):
        raise ctx.refuse("a key is repeated: runtimes differ in which of them counts")
    if values.dtype == np.float64 and ctx.builtin_only:
        values = values.astype(np.float32)
    table = np.append(values[:0], [default]).astype(values.dtype)
    table = np.concatenate([table, values])
    if x.dtype == tf.string and not ctx.builtin_only:
        return tf.gather(ctx.constant(table).tensor, searched(keys, x.tensor))
    position = np.arange(1, len(table), dtype=np.int32)
    found = tf.reduce_sum(tf.cast(_equals(x.tensor, keys), tf.int32) * position, -1)
    return tf.gather(ctx.constant(table).tensor, found)


def _equals(tensor: Any, keys: Array) -> Any:
    """Whether elements equal keys, [..., keys]. NaN equals NaN."""
    if tensor.dtype == tf.string:
        return tf.equal(tf.expand_dims(tensor, -1), tf.constant(list(keys), tf.string))
    if tensor.dtype in {tf.int16, tf.int32}:
        tensor = tf.cast(tensor, tf.int64)
    wide = tf.expand_dims(tensor, -1)
    same = tf.equal(wide, keys.astype(tensor.dtype.as_numpy_dtype))
    if keys.dtype.kind != "f" or not np.isnan(keys).any():
        return same
    return tf.logical_or(same, tf.logical_and(tf.not_equal(wide, wide), np.isnan(keys)))
