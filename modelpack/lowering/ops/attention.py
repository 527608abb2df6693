"""Attention: which keys a query sees, scores, and the weighted sum of values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering import sizes
from modelpack.lowering.context import Context, Target
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

# A mask of known sizes up to this is a constant of the graph.
_LARGEST_CONSTANT = 1 << 20


@dataclass(frozen=True, slots=True)
class Masking:
    """Which keys a query sees.

    Attributes:
        mask: boolean, or numbers to add to the scores.
        pads: whether a mask shorter than the keys hides the rest of them.
        lengths: for each item of the batch, how many keys are no padding.
        past: how many keys precede the first query, unless ``lengths`` say it.
        left: how many keys before its own position a query sees; -1 for all.
        right: how many keys after it; -1 for all.
    """

    mask: Value | None = None
    pads: bool = False
    lengths: Value | None = None
    past: Size = 0
    left: int = -1
    right: int = -1

    @property
    def may_hide_all(self) -> bool:
        """Whether a query may see no key at all."""
        return self.mask is not None or self.lengths is not None or self.left >= 0

    def seen(self, queries: Size, keys: Size) -> Any | None:
        """Boolean, broadcasting to (batch, heads, queries, keys); None if all are seen."""
        seen = []
        if self.mask is not None and self.mask.dtype.is_bool:
            seen.append(self._as_long_as(keys, self.mask.tensor, False))
        if self.lengths is not None or self.left >= 0 or self.right >= 0:
            seen.append(self._near(queries, keys))
        return tf.logical_and(*seen) if len(seen) == 2 else next(iter(seen), None)

    def added(self, keys: Size, dtype: Any) -> Any | None:
        """Numbers to add to the scores."""
        if self.mask is None or self.mask.dtype.is_bool:
            return None
        return self._as_long_as(keys, tf.cast(self.mask.tensor, dtype), -np.inf)

    def _as_long_as(self, keys: Size, tensor: Any, filler: Any) -> Any:
        length = Value(tensor).dims()[-1]
        if not self.pads or (isinstance(length, int) and isinstance(keys, int) and length == keys):
            return tensor
        rank = tensor.shape.rank
        pads = tf.reshape(sizes.pack([*[0] * (2 * rank - 1), keys - length]), [rank, 2])
        padded = (
            tf.cast(tf.pad(tf.cast(tensor, tf.int32), pads), tf.bool)  # LiteRT pads no booleans
            if tensor.dtype.is_bool
            else tf.pad(tensor, pads, constant_values=filler)
        )
        padded.set_shape([*tensor.shape[:-1], *sizes.static([keys])])
        return padded

    def _near(self, queries: Size, keys: Size) -> Any:
        """Which keys are no padding and in reach: (queries, keys) or (batch, 1, queries, keys)."""
        small = all(isinstance(size, int) for size in (queries, keys))
        span = np.arange if small and queries * keys <= _LARGEST_CONSTANT else tf.range
        expand = np.expand_dims if span is np.arange else tf.expand_dims
        position, key = expand(span(queries), 1), expand(span(keys), 0)
        seen: Any = key >= 0
        if self.lengths is None:
            position = position + self.past
        else:
            lengths = tf.reshape(tf.cast(self.lengths.tensor, tf.int32), [-1, 1, 1, 1])
            position = tf.cast(position, tf.int32) + (lengths - queries)
            seen = tf.cast(key, tf.int32) < lengths
        if self.right >= 0:
            seen = seen & (key <= position + self.right)
        if self.left >= 0:
            seen = seen & (key >= position - self.left)
        return seen


@dataclass(frozen=True, slots=True)
class Scoring:
    """How scores are computed from queries and keys, and what is made of them.

    Attributes:
        scale: None for ``1 / sqrt(size of a head)``.
        softcap: scores become ``softcap * tanh(scores / softcap)``; 0 for no limit.
        precision: element type (of ``onnx.TensorProto``) of the softmax.
        shown: which scores the node returns: 0 as multiplied, 1 after the softcap, 2 with
            the mask, 3 after the softmax.
    """

    scale: float | None = None
    softcap: float = 0.0
    precision: int | None = None
    shown: int = 0


@lowers("Attention", 23)
def attention_23(
    ctx: Context,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Any:
    heads = _Heads(q, k, v, q_num_heads, kv_num_heads).after(past_key, past_value)
    masking = Masking(attn_mask, past=heads.past, right=0 if is_causal else -1)
    scoring = Scoring(scale, softcap, softmax_precision, qk_matmul_output_mode)
    return heads.attended(ctx, masking, scoring)


@lowers("Attention", 24)
def attention_24(
    ctx: Context,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    nonpad_kv_seqlen: Value | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Any:
    heads = _Heads(q, k, v, q_num_heads, kv_num_heads).after(past_key, past_value)
    right = 0 if is_causal else -1
    masking = Masking(attn_mask, True, nonpad_kv_seqlen, heads.past, right=right)
    scoring = Scoring(scale, softcap, softmax_precision, qk_matmul_output_mode)
    return heads.attended(ctx, masking, scoring)


@lowers("Attention", 25)
def attention_25(
    ctx: Context,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    nonpad_kv_seqlen: Value | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Any:
    heads = _Heads(q, k, v, q_num_heads, kv_num_heads).after(past_key, past_value)
    right = 0 if is_causal else right_window_size
    masking = Masking(attn_mask, True, nonpad_kv_seqlen, heads.past, left_window_size, right)
    scoring = Scoring(scale, softcap, softmax_precision, qk_matmul_output_mode)
    return heads.attended(ctx, masking, scoring)


class _Heads:
    """Queries, keys and values as (batch, heads, sequence, size of a head).

    Args:
        q: of that shape, or (batch, sequence, heads * size of a head); likewise ``k``, ``v``.
        q_heads: how many heads of queries there are in three dimensions.
        kv_heads: how many of keys and values; each serves as many heads of queries.
    """

    def __init__(
        self, q: Value, k: Value, v: Value, q_heads: int | None, kv_heads: int | None
    ) -> None:
        self.flat = q.rank == 3
        self.past: Size = 0
        self.q = split_heads(q, q_heads)
        self.k = split_heads(k, kv_heads)
        self.v = split_heads(v, kv_heads)

    def after(self, past_key: Value | None, past_value: Value | None) -> _Heads:
        """With the keys and values of a cache before them."""
        if past_key is not None and past_value is not None:
            self.past = past_key.dims()[2]
            self.k = tf.concat([past_key.tensor, self.k], 2)
            self.v = tf.concat([past_value.tensor, self.v], 2)
        return self

    def attended(self, ctx: Context, masking: Masking, scoring: Scoring) -> tuple[Any, ...]:
        """Return the outputs of the node."""
        result, shown = attend(ctx, self.q, self.k, self.v, masking, scoring)
        if self.flat:
            result = merge_heads(result)
        return result, self.k, self.v, shown


def split_heads(x: Value, heads: int | None) -> Any:
    """(batch, sequence, heads * size) as (batch, heads, sequence, size)."""
    if x.rank == 4:
        return x.tensor
    batch, length, width = x.dims()
    size = -1 if not isinstance(width, int) else width // (heads or 1)
    return tf.transpose(sizes.reshape(x.tensor, [batch, length, heads, size]), [0, 2, 1, 3])


def merge_heads(x: Any) -> Any:
    """(batch, heads, sequence, size) as (batch, sequence, heads * size)."""
    batch, heads, length, size = Value(x).dims()
    return sizes.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch, length, heads * size])


def attend(
    ctx: Context, q: Any, k: Any, v: Any, masking: Masking, scoring: Scoring
) -> tuple[Any, Any | None]:
    """The weighted sums of values, and the scores that ``scoring.shown`` names if wanted."""
    queries, keys = Value(q).dims()[2], Value(k).dims()[2]
    raw = _scores(q, k, scoring.scale)
    capped = tf.tanh(raw / scoring.softcap) * scoring.softcap if scoring.softcap else raw
    seen, added = masking.seen(queries, keys), masking.added(keys, q.dtype)
    biased = capped if added is None else capped + added
    if seen is not None:
        biased = biased + _hiding(seen, q.dtype)
    weights = _softmax(ctx, biased, scoring.precision)
    result = _per_group(weights, tf.cast(v, weights.dtype), False)
    if masking.may_hide_all:
        hidden = _hidden(ctx, seen, added)
        weights, result = _zero_where(hidden, weights), _zero_where(hidden, result)
    wanted = len(ctx.outputs) > 3 and ctx.outputs[3]
    return result, (raw, capped, biased, weights)[scoring.shown] if wanted else None


def _scores(q: Any, k: Any, scale: float | None) -> Any:
    """The scale is shared out between the factors where their product could overflow."""
    factor = scale or 1 / _sqrt(Value(q).dims()[3])
    if q.dtype.size > 2:
        return _per_group(q * tf.cast(factor, q.dtype), k, True)
    root = tf.cast(factor**0.5, q.dtype)
    return _per_group(q * root, k * root, True)


def _sqrt(size: Size) -> Any:
    return math.sqrt(size) if isinstance(size, int) else tf.sqrt(tf.cast(size, tf.float32))


def _per_group(a: Any, b: Any, flip_b: bool) -> Any:
    """The product of matrices by head, where each head of ``b`` serves some heads of ``a``.

    Heads that share their keys follow each other, so that they are one tall matrix.
    """
    a_dims, b_dims = Value(a).dims(), Value(b).dims()
    if isinstance(a_dims[1], int) and a_dims[1] == b_dims[1]:
        return tf.matmul(a, b, transpose_b=flip_b)
    batch, heads, rows, inner = a_dims
    tall = sizes.reshape(a, [batch, b_dims[1], heads // b_dims[1] * rows, inner])
    columns = b_dims[2] if flip_b else b_dims[3]
    return sizes.reshape(tf.matmul(tall, b, transpose_b=flip_b), [batch, heads, rows, columns])


def _softmax(ctx: Context, scores: Any, precision: int | None) -> Any:
    if precision is None or ctx.target is not Target.SAVEDMODEL:
        return tf.nn.softmax(scores)
    wide = tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(precision))
    return tf.cast(tf.nn.softmax(tf.cast(scores, wide)), scores.dtype)


def _hiding(visible: Any, dtype: Any) -> Any:
    """0 where visible, minus infinity elsewhere."""
    if isinstance(visible, np.ndarray):
        return tf.constant(np.where(visible, 0, -np.inf), dtype)
    return tf.where(visible, tf.constant(0, dtype), tf.constant(-np.inf, dtype))


def _hidden(ctx: Context, seen: Any | None, added: Any | None) -> Any:
    """Whether a query sees no key: the softmax of its scores is no number."""
    if added is not None:
        # The converter writes -inf as the lowest finite number, which roots tell from it.
        finite = tf.sqrt(tf.abs(added)) < 1e20 if ctx.builtin_only else added > -np.inf
        seen = finite if seen is None else tf.logical_and(seen, finite)
    return tf.logical_not(tf.reduce_any(seen, -1, keepdims=True))


def _zero_where(condition: Any, x: Any) -> Any:
    return tf.where(condition, tf.zeros([], x.dtype), x)
