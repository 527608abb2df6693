"""Exchanging blocks of pixels for channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from modelpack.lowering import dtypes
from modelpack.lowering.context import Context
from modelpack.lowering.layout import from_channel_last, to_channel_last
from modelpack.lowering.moving import moved
from modelpack.lowering.registry import lowers
from modelpack.lowering.value import Value


@lowers("DepthToSpace", 1)
def depth_to_space_1(ctx: Context, x: Value, *, blocksize: int) -> Value:
    return depth_to_space_11(ctx, x, blocksize=blocksize)


@lowers("DepthToSpace", 11, 13, 28)
def depth_to_space_11(ctx: Context, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    channels = x.shape[1]
    if channels is None:
        raise ctx.refuse("the number of channels is not known")
    order = _block_first(channels // blocksize**2, blocksize) if mode == "CRD" else None

    def moved_to_space(tensor: Any) -> Any:
        tensor = tensor if order is None else tf.gather(tensor, order, axis=3)
        return tf.nn.depth_to_space(tensor, blocksize)

    return from_channel_last(moved(ctx, moved_to_space, to_channel_last(x), kernel=dtypes.TFLITE))


@lowers("SpaceToDepth", 1, 13)
def space_to_depth_1(ctx: Context, x: Value, *, blocksize: int) -> Value:
    return space_to_depth_28(ctx, x, blocksize=blocksize)


@lowers("SpaceToDepth", 28)
def space_to_depth_28(ctx: Context, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    channels = x.shape[1]
    if channels is None:
        raise ctx.refuse("the number of channels is not known")
    order = np.argsort(_block_first(channels, blocksize)) if mode == "CRD" else None

    def moved_to_depth(tensor: Any) -> Any:
        tensor = tf.nn.space_to_depth(tensor, blocksize)
        return tensor if order is None else tf.gather(tensor, order, axis=3)

    return from_channel_last(moved(ctx, moved_to_depth, to_channel_last(x), kernel=dtypes.TFLITE))


def _block_first(channels: int, blocksize: int) -> Any:
    """Channels of the order (channel, row, column) in the order (row, column, channel)."""
    count = channels * blocksize**2
    order = np.arange(count, dtype=np.int32).reshape(channels, blocksize**2)
    return order.T.reshape(-1)
