"""Fourier transforms, window functions, mel filter banks.

A complex tensor of ONNX has a last axis of size 2; one of size 1 holds real numbers. LiteRT
has no complex arithmetic to speak of, so there a transform is a product with the matrices of
cosines and sines. Elsewhere transforms are computed in float64: a frequency that a signal does
not contain is else drowned in the rounding of those that it does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from modelpack.lowering.context import Context
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Size, Value

_FLOAT = 1
"""ONNX's element type of float32."""


@lowers("DFT", 17)
def dft_17(
    ctx: Context,
    x: Value,
    dft_length: Value | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Any:
    at = Value(const=np.array(axis))
    return dft_20(ctx, x, dft_length, at, inverse=inverse, onesided=onesided)


@lowers("DFT", 20)
def dft_20(
    ctx: Context,
    x: Value,
    dft_length: Value | None = None,
    axis: Value | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Any:
    _check_parts(ctx, x)
    swap = _swapping(x.rank, -2 if axis is None else axis.sizes()[0])
    if ctx.builtin_only and tf.is_tensor(swap):
        raise ctx.refuse("the axis is not known before it runs")
    tensor = tf.transpose(x.tensor, swap)
    count = Value(tensor).dims()[-2]
    if dft_length is not None:
        length = dft_length.sizes()[0]
    else:
        length = 2 * (count - 1) if inverse and onesided else count
    if inverse and onesided:
        result = _real_of_half(ctx, tensor, count, length)
    else:
        result = _spectrum(ctx, tensor, count, length, bool(inverse), bool(onesided))
    return tf.transpose(result, swap)


@lowers("STFT", 17)
def stft(
    ctx: Context,
    signal: Value,
    frame_step: Value,
    window: Value | None = None,
    frame_length: Value | None = None,
    *,
    onesided: int = 1,
) -> Any:
    _check_parts(ctx, signal)
    total, step = signal.dims()[1], frame_step.sizes()[0]
    if frame_length is not None:
        length = frame_length.sizes()[0]
    else:
        length = total if window is None else window.dims()[0]
    starts = tf.range((total - length) // step + 1) * step
    indices = starts[:, None] + tf.range(length)[None]
    frames = tf.gather(signal.tensor, indices, axis=1)
    if window is not None:
        frames *= window.tensor[:, None]
    return _spectrum(ctx, frames, length, length, False, bool(onesided))


def _check_parts(ctx: Context, x: Value) -> None:
    if x.shape[-1] not in {1, 2}:
        raise ctx.refuse("the last axis, of size 1 or 2 for real or complex, is not known")


def _swapping(rank: int, axis: Size) -> Any:
    """The order of axes that exchanges an axis and the last but one."""
    if isinstance(axis, int):
        order = list(range(rank))
        order[axis], order[-2] = order[-2], order[axis]
        return order
    places = tf.range(rank)
    axis %= rank
    return tf.where(places == axis, rank - 2, tf.where(places == rank - 2, axis, places))


# --- transforms of the last axis but one -----------------------------------------------------


def _spectrum(
    ctx: Context, x: Any, count: Size, length: Size, inverse: bool, onesided: bool
) -> Any:
    """The transform of a real or complex tensor, cut or filled with zeros to a length."""
    bins = length // 2 + 1 if onesided else length
    if ctx.builtin_only:
        return _by_matrices(x, _least(count, length), length, bins, inverse)
    parts = _padded(x, count, length)
    real = tf.cast(parts[..., 0], tf.float64)
    complex_ = x.shape[-1] == 2
    numbers = tf.complex(real, tf.cast(parts[..., 1], tf.float64) if complex_ else 0 * real)
    spectrum = (tf.signal.ifft(numbers) if inverse else tf.signal.fft(numbers))[..., :bins]
    return tf.cast(tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], -1), x.dtype)


def _real_of_half(ctx: Context, x: Any, count: Size, length: Size) -> Any:
    """The real signal of a spectrum of which the first half is given."""
    bins = _least(count, length // 2 + 1)
    if not ctx.builtin_only:
        parts = tf.cast(x, tf.float64)
        half = tf.complex(parts[..., 0], parts[..., 1])
        signal = tf.signal.irfft(half, [length])
        return tf.cast(signal[..., None], x.dtype)
    cosines, sines = _matrices(bins, length, length)
    # Every frequency but the first, and the last of an even length, stands for two.
    k = tf.range(bins)[:, None]
    twice = tf.where((k == 0) | (k * 2 == length), 1.0, 2.0) / tf.cast(length, tf.float32)
    parts = x[..., :bins, :]
    signal = _product(parts[..., 0], cosines * twice) - _product(parts[..., 1], sines * twice)
    return signal[..., None]


def _by_matrices(x: Any, rows: Size, length: Size, bins: Size, inverse: bool) -> Any:
    cosines, sines = _matrices(rows, bins, length)
    if inverse:
        cosines, sines = cosines / tf.cast(length, tf.float32), -sines / tf.cast(length, tf.float32)
    real = x[..., :rows, 0]
    if x.shape[-1] == 1:
        return tf.stack([_product(real, cosines), -_product(real, sines)], -1)
    imaginary = x[..., :rows, 1]
    return tf.stack(
        [
            _product(real, cosines) + _product(imaginary, sines),
            _product(imaginary, cosines) - _product(real, sines),
        ],
        -1,
    )


def _matrices(rows: Size, columns: Size, length: Size) -> tuple[Any, Any]:
    """Cosines and sines of 2 pi n k / length; constants if the sizes are."""
    if not all(isinstance(size, int) for size in (rows, columns, length)):
        return _turns(rows, columns, length, tf.float32)
    with tf.init_scope():
        cosines, sines = _turns(rows, columns, length, tf.float64)
        return cosines.numpy().astype(np.float32), sines.numpy().astype(np.float32)


def _turns(rows: Size, columns: Size, length: Size, real: Any) -> tuple[Any, Any]:
    # The product is reduced as an integer: a float would lose the angle of a long signal.
    steps = tf.range(rows)[:, None] * tf.range(columns)[None] % length
    angles = tf.cast(steps, real) * (2 * math.pi / tf.cast(length, real))
    return tf.cos(angles), tf.sin(angles)


def _product(a: Any, b: Any) -> Any:
    return tf.matmul(a[None], b)[0] if a.shape.rank == 1 else tf.matmul(a, b)


def _padded(x: Any, count: Size, length: Size) -> Any:
    kept = _least(count, length)
    rank = x.shape.rank
    missing = [[0, 0]] * (rank - 2) + [[0, length - kept], [0, 0]]
    return tf.pad(x[..., :kept, :], missing)


def _least(a: Size, b: Size) -> Size:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tf.minimum(a, b)


# --- windows -----------------------------------------------------------------------------------


@lowers("HannWindow", 17)
def hann(ctx: Context, size: Value, *, output_datatype: int = _FLOAT, periodic: int = 1) -> Any:
    return _cosine_window(ctx, size, (0.5, 0.5), output_datatype, periodic)


@lowers("HammingWindow", 17)
def hamming(ctx: Context, size: Value, *, output_datatype: int = _FLOAT, periodic: int = 1) -> Any:
    return _cosine_window(ctx, size, (25 / 46, 21 / 46), output_datatype, periodic)


@lowers("BlackmanWindow", 17)
def blackman(ctx: Context, size: Value, *, output_datatype: int = _FLOAT, periodic: int = 1) -> Any:
    return _cosine_window(ctx, size, (0.42, 0.5, 0.08), output_datatype, periodic)


def _cosine_window(
    ctx: Context, size: Value, terms: tuple[float, ...], output_datatype: int, periodic: int
) -> Any:
    """The sum over i of (-1)^i terms[i] cos(2 pi i n / size)."""
    real = _widest(ctx)
    count = tf.cast(size.tensor, tf.int32)
    whole = tf.cast(count if periodic else count - 1, real)
    turns = tf.cast(tf.range(count), real) / whole
    result = sum((-1) ** i * term * tf.cos(2 * math.pi * i * turns) for i, term in enumerate(terms))
    return tf.cast(result, _dtype_of(output_datatype))


@lowers("MelWeightMatrix", 17)
def mel_weight_matrix(
    ctx: Context,
    num_mel_bins: Value,
    dft_length: Value,
    sample_rate: Value,
    lower_edge_hertz: Value,
    upper_edge_hertz: Value,
    *,
    output_datatype: int = _FLOAT,
) -> Any:
    """Triangles over the bins of a spectrum, evenly spaced in mel = 2595 log10(1 + hertz/700)."""
    real = _widest(ctx)
    hertz = [tf.cast(edge.tensor, real) for edge in (lower_edge_hertz, upper_edge_hertz)]
    low, high = (2595 / math.log(10) * tf.math.log(1 + edge / 700) for edge in hertz)
    count, length, rate = (
        tf.cast(size.tensor, tf.int32) for size in (num_mel_bins, dft_length, sample_rate)
    )
    mels = low + tf.cast(tf.range(count + 2), real) * (high - low) / tf.cast(count + 2, real)
    edges = 700 * (tf.exp(mels * (math.log(10) / 2595)) - 1)
    corners = tf.floor(tf.cast(length + 1, real) * edges / tf.cast(rate, real))
    left, top, right = corners[:-2], corners[1:-1], corners[2:]
    bins = tf.cast(tf.range(length // 2 + 1), real)[:, None]
    rising = (bins - left) / tf.maximum(top - left, 1)
    rising = tf.where(bins == top, tf.ones_like(rising), tf.where(bins < left, 0 * rising, rising))
    falling = (right - bins) / tf.maximum(right - top, 1)
    weights = tf.where(bins <= top, rising, tf.maximum(falling, 0))
    return tf.cast(weights, _dtype_of(output_datatype))


def _widest(ctx: Context) -> Any:
    """The dtype to compute in: what is evaluated while lowering may use any."""
    return tf.float32 if ctx.builtin_only and not tf.executing_eagerly() else tf.float64


def _dtype_of(element_type: int) -> Any:
    return tf.as_dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type))
