"""Small seeded Keras models, at least one for every public class of ``keras.layers``.

A case is called by the class that it is about, then what is special. Weights are far from
what layers begin with: norms have statistics, biases are not zero, nothing ends in a softmax
that would squash differences.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

# As workers have it: its kernels answer empty batches in other shapes.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import numpy as np
from keras import layers

SEED = 0

# Public classes that have no case, and why.
NO_CASE = {
    "Layer": "the base of all layers",
    "Wrapper": "the base of wrappers, which calls nothing",
    "InputSpec": "a description, no layer",
    "TFSMLayer": "loads a SavedModel from a path, which a Keras file does not hold",
    "FlaxLayer": "needs the JAX backend",
    "JaxLayer": "needs the JAX backend",
    "TorchModuleWrapper": "needs the PyTorch backend",
}

Build = Callable[[], Any]

WORDS = ["red", "green", "blue", "hello world"]


def seeded(build: Build) -> Any:
    """Build a model; its names and weights are the same whenever and wherever it is built."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(SEED)
    model = build()
    shake(model)
    return model


def shake(model: Any) -> None:
    """Give all float weights but those that an adapted layer has learned other values."""
    rng = np.random.default_rng(SEED)
    for layer in model._flatten_layers():
        if hasattr(layer, "adapt") or isinstance(layer, layers.MelSpectrogram):
            continue
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            value = np.asarray(variable)
            if value.dtype.kind == "f":
                variable.assign(_shaken(variable.name, value, rng))


def _shaken(name: str, value: Any, rng: Any) -> Any:
    if "variance" in name or "gamma" in name or name == "scale":
        return rng.uniform(0.5, 1.5, value.shape)
    if value.ndim > 1 and value.any():
        return value * rng.uniform(0.7, 1.3, value.shape)
    return rng.normal(0.0, 0.3, value.shape)


def one(layer: Any, *shape: int | None, dtype: str = "float32") -> Any:
    """A model of one layer, or of several in a row."""
    x = value = keras.Input(shape, name="x", dtype=dtype)
    for each in layer if isinstance(layer, list) else [layer]:
        value = each(value)
    return keras.Model(x, value)


def merged(layer: Any, *shapes: tuple[int | None, ...]) -> Any:
    """A layer that takes a list."""
    inputs = [keras.Input(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    return keras.Model(inputs, layer(inputs))


CASES: dict[str, Build] = {}


def case(name: str) -> Callable[[Build], Build]:
    """Add a case."""

    def add(build: Build) -> Build:
        assert name not in CASES, name
        CASES[name] = build
        return build

    return add


def each(name: str, make: Callable[..., Any], *shape: int | None, **options: Any) -> None:
    """Add a case of one layer; ``make`` gives the layer."""
    case(name)(lambda: one(make(), *shape, **options))


def layer_of(name: str) -> str:
    """The class that a case is about."""
    return name.partition(",")[0]


def public_classes() -> Iterator[str]:
    """Names of the public classes of ``keras.layers``; aliases are left out."""
    found = [getattr(layers, name) for name in dir(layers)]
    yield from sorted({item.__name__ for item in found if isinstance(item, type)})


# --- core ----------------------------------------------------------------------------------

IMAGE = (8, 8, 3)
VOLUME = (4, 4, 4, 2)
SERIES = (12, 4)

each("Dense", lambda: layers.Dense(5), 4)
each("Dense, on a sequence", lambda: layers.Dense(5, "gelu"), None, 4)
each("EinsumDense", lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de"), 6, 4)
each("Embedding", lambda: layers.Embedding(11, 4), 6, dtype="int32")
each("ReversibleEmbedding", lambda: layers.ReversibleEmbedding(11, 4), 6, dtype="int32")
each("Identity", lambda: [layers.Identity(), layers.Dense(3)], 4)
each("InputLayer", lambda: layers.Dense(3), 4)
each("Lambda", lambda: layers.Lambda(lambda x: x * 2.0 + 1.0), 4)
each("Masking", lambda: [layers.Masking(0.0), layers.LSTM(4)], 6, 3)
each("Masking, dense", lambda: [layers.Masking(0.0), layers.Dense(4)], 6, 3)
each("Pipeline", lambda: layers.Pipeline([layers.Rescaling(0.5), layers.CenterCrop(4, 4)]), *IMAGE)


@case("ReversibleEmbedding, both ways")
def _reversible() -> Any:
    x = keras.Input((6,), name="x", dtype="int32")
    layer = layers.ReversibleEmbedding(11, 4, tie_weights=True)
    return keras.Model(x, layer(layers.Dense(4, "tanh")(layer(x)), reverse=True))


# --- activations ---------------------------------------------------------------------------

_NO_ACTIVATIONS = {"deserialize", "get", "serialize"} | {"threshold"}  # which needs arguments
for _name in dir(keras.activations):
    _function = getattr(keras.activations, _name)
    if getattr(_function, "__name__", "") == _name and _name not in _NO_ACTIVATIONS:
        each(
            f"Activation, {_name}",
            lambda n=_name: [layers.Dense(6), layers.Activation(n)],
            4,
        )
each("ELU", lambda: layers.ELU(0.7), 6)
each("LeakyReLU", lambda: layers.LeakyReLU(0.2), 6)
each("PReLU", layers.PReLU, 6)
each("PReLU, shared axes", lambda: layers.PReLU(shared_axes=[1, 2]), *IMAGE)
each("ReLU", layers.ReLU, 6)
each("ReLU, all arguments", lambda: layers.ReLU(2.0, 0.1, 0.3), 6)
each("Softmax", layers.Softmax, 6)
each("Softmax, two axes", lambda: layers.Softmax(axis=(1, 2)), 3, 4)


@case("Softmax, with a mask")
def _masked_softmax() -> Any:
    x, mask = keras.Input((6,), name="x"), keras.Input((6,), name="mask", dtype="bool")
    return keras.Model([x, mask], layers.Softmax()(x, mask=mask))


# --- convolutions --------------------------------------------------------------------------

for _rank, _shape in ((1, SERIES), (2, IMAGE), (3, VOLUME)):
    _conv = getattr(layers, f"Conv{_rank}D")
    _up = getattr(layers, f"Conv{_rank}DTranspose")
    _any = (None,) * _rank + _shape[-1:]
    for _text, _options in {
        "": {},
        ", same and strides": {"padding": "same", "strides": 2},
        ", dilated": {"dilation_rate": 2, "padding": "same"},
        ", no bias": {"use_bias": False, "activation": "relu"},
    }.items():
        each(f"Conv{_rank}D{_text}", lambda c=_conv, o=_options: c(4, 3, **o), *_shape)
    _even = (*_shape[:-1], 4)
    each(f"Conv{_rank}D, groups", lambda c=_conv: c(8, 3, groups=2, activation="relu"), *_even)
    each(f"Conv{_rank}D, any size", lambda c=_conv: c(4, 3, padding="same"), *_any)
    each(f"Conv{_rank}DTranspose", lambda c=_up: c(4, 3), *_shape)
    each(f"Conv{_rank}DTranspose, same", lambda c=_up: c(4, 3, padding="same", strides=2), *_shape)
    each(f"Conv{_rank}DTranspose, valid", lambda c=_up: c(4, 2, strides=3), *_shape)
    each(
        f"Conv{_rank}DTranspose, output padding",
        lambda c=_up: c(4, 3, strides=2, output_padding=1),
        *_shape,
    )
    each(f"Conv{_rank}DTranspose, any size", lambda c=_up: c(4, 3, strides=2), *_any)
each("Conv1D, causal", lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), *SERIES)
each("Conv2D, kernel 1", lambda: layers.Conv2D(4, 1), *IMAGE)
each("Conv2D, uneven", lambda: layers.Conv2D(4, (3, 2), (1, 2), padding="same"), 7, 9, 3)
each("Conv2D, channels first", lambda: layers.Conv2D(4, 3, data_format="channels_first"), 3, 8, 8)
each("DepthwiseConv1D", lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), *SERIES)
each("DepthwiseConv1D, same", lambda: layers.DepthwiseConv1D(3, 2, padding="same"), *SERIES)
each("DepthwiseConv2D", lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), *IMAGE)
each("DepthwiseConv2D, same", lambda: layers.DepthwiseConv2D(3, 2, padding="same"), *IMAGE)
each("DepthwiseConv2D, dilated", lambda: layers.DepthwiseConv2D(3, dilation_rate=2), *IMAGE)
each("SeparableConv1D", lambda: layers.SeparableConv1D(4, 3), *SERIES)
each("SeparableConv1D, same", lambda: layers.SeparableConv1D(4, 3, 2, padding="same"), *SERIES)
each("SeparableConv2D", lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2), *IMAGE)
each("SeparableConv2D, same", lambda: layers.SeparableConv2D(4, 3, 2, padding="same"), *IMAGE)

# --- pooling -------------------------------------------------------------------------------

for _rank, _shape in ((1, SERIES), (2, IMAGE), (3, VOLUME)):
    _any = (None,) * _rank + _shape[-1:]
    for _kind in ("Average", "Max"):
        _pool = getattr(layers, f"{_kind}Pooling{_rank}D")
        each(f"{_kind}Pooling{_rank}D", lambda c=_pool: c(2), *_shape)
        each(
            f"{_kind}Pooling{_rank}D, same",
            lambda c=_pool: c(3, strides=2, padding="same"),
            *_shape,
        )
        each(f"{_kind}Pooling{_rank}D, any size", lambda c=_pool: c(2, padding="same"), *_any)
        _adaptive = getattr(layers, f"Adaptive{_kind}Pooling{_rank}D")
        each(f"Adaptive{_kind}Pooling{_rank}D", lambda c=_adaptive: c(2), *_shape)
        _global = getattr(layers, f"Global{_kind}Pooling{_rank}D")
        each(f"Global{_kind}Pooling{_rank}D", lambda c=_global: c(), *_any)
        each(f"Global{_kind}Pooling{_rank}D, kept", lambda c=_global: c(keepdims=True), *_shape)
each(
    "GlobalAveragePooling1D, masked",
    lambda: [layers.Embedding(7, 3, mask_zero=True), layers.GlobalAveragePooling1D()],
    6,
    dtype="int32",
)

# --- norms ---------------------------------------------------------------------------------

each("BatchNormalization", layers.BatchNormalization, *IMAGE)
each("BatchNormalization, on rows", layers.BatchNormalization, 5)
each("BatchNormalization, axis 1", lambda: layers.BatchNormalization(axis=1), *IMAGE)
each(
    "BatchNormalization, folded",
    lambda: [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()],
    *IMAGE,
)
each("LayerNormalization", layers.LayerNormalization, 6, 4)
each("LayerNormalization, two axes", lambda: layers.LayerNormalization(axis=(1, 2)), 6, 4)
each("GroupNormalization", lambda: layers.GroupNormalization(2), 8, 8, 4)
each("GroupNormalization, of instances", lambda: layers.GroupNormalization(-1), 8, 8, 4)
each("GroupNormalization, any size", lambda: layers.GroupNormalization(2), None, None, 4)
each("RMSNormalization", layers.RMSNormalization, 6, 4)
each("UnitNormalization", layers.UnitNormalization, 6, 4)
each("SpectralNormalization", lambda: layers.SpectralNormalization(layers.Dense(5)), 4)

# --- attention -----------------------------------------------------------------------------


def _self_attention(layer: Any, **options: Any) -> Any:
    x = keras.Input((None, 8), name="x")
    return keras.Model(x, layer(x, x, **options))


case("MultiHeadAttention")(lambda: _self_attention(layers.MultiHeadAttention(2, 4)))
case("MultiHeadAttention, causal")(
    lambda: _self_attention(layers.MultiHeadAttention(2, 4), use_causal_mask=True)
)
case("MultiHeadAttention, with scores")(
    lambda: _self_attention(layers.MultiHeadAttention(2, 4), return_attention_scores=True)
)
case("GroupedQueryAttention")(lambda: _self_attention(layers.GroupQueryAttention(4, 4, 2)))
case("GroupedQueryAttention, causal")(
    lambda: _self_attention(layers.GroupQueryAttention(4, 4, 2), use_causal_mask=True)
)


@case("MultiHeadAttention, with a mask")
def _masked_attention() -> Any:
    x = keras.Input((6, 8), name="x")
    mask = keras.Input((6, 6), name="mask", dtype="bool")
    return keras.Model([x, mask], layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask))


@case("MultiHeadAttention, mask_zero")
def _embedded_attention() -> Any:
    x = keras.Input((6,), name="x", dtype="int32")
    value = layers.Embedding(11, 8, mask_zero=True)(x)
    return keras.Model(x, layers.MultiHeadAttention(2, 4)(value, value))


@case("MultiHeadAttention, across")
def _cross_attention() -> Any:
    x, y = keras.Input((None, 8), name="x"), keras.Input((None, 5), name="y")
    return keras.Model([x, y], layers.MultiHeadAttention(2, 4)(x, y))


@case("MultiHeadAttention, an encoder")
def _encoder() -> Any:
    x = keras.Input((None,), name="x", dtype="int32")
    value = layers.Embedding(11, 8)(x)
    value = layers.LayerNormalization()(value + layers.MultiHeadAttention(2, 4)(value, value))
    value = layers.LayerNormalization()(value + layers.Dense(8)(layers.Dense(16, "gelu")(value)))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(value)))


def _attention(layer: Any, *, masked: bool = False, **options: Any) -> Any:
    x, y = keras.Input((5, 8), name="x"), keras.Input((6, 8), name="y")
    if not masked:
        return keras.Model([x, y], layer([x, y], **options))
    mask = keras.Input((6,), name="mask", dtype="bool")
    return keras.Model([x, y, mask], layer([x, y], mask=[None, mask], **options))


for _name in ("Attention", "AdditiveAttention"):
    _kind = getattr(layers, _name)
    case(_name)(lambda c=_kind: _attention(c()))
    case(f"{_name}, with a mask")(lambda c=_kind: _attention(c(), masked=True))
    case(f"{_name}, causal")(lambda c=_kind: _attention(c(), use_causal_mask=True))
case("Attention, concat")(lambda: _attention(layers.Attention(score_mode="concat", use_scale=True)))

# --- recurrent layers ----------------------------------------------------------------------

for _name in ("SimpleRNN", "LSTM", "GRU"):
    _kind = getattr(layers, _name)
    each(_name, lambda c=_kind: c(5), 6, 3)
    each(f"{_name}, any length", lambda c=_kind: c(5), None, 3)
    each(f"{_name}, sequences", lambda c=_kind: c(5, return_sequences=True), 6, 3)
    each(f"{_name}, backwards", lambda c=_kind: c(5, go_backwards=True), 6, 3)
    each(f"{_name}, unrolled", lambda c=_kind: c(5, unroll=True), 6, 3)
    each(f"{_name}, with states", lambda c=_kind: c(5, return_state=True), 6, 3)
    each(f"{_name}, stacked", lambda c=_kind: [c(5, return_sequences=True), c(4)], 6, 3)
    each(f"{_name}, masked", lambda c=_kind: [layers.Masking(), c(5)], 6, 3)
    each(
        f"{_name}, mask_zero",
        lambda c=_kind: [layers.Embedding(7, 4, mask_zero=True), c(5, return_sequences=True)],
        None,
        dtype="int32",
    )
    each(f"Bidirectional, {_name}", lambda c=_kind: layers.Bidirectional(c(5)), 6, 3)
    each(
        f"Bidirectional, {_name} masked",
        lambda c=_kind: [
            layers.Embedding(7, 4, mask_zero=True),
            layers.Bidirectional(c(5, return_sequences=True)),
        ],
        None,
        dtype="int32",
    )
    _cell = getattr(layers, f"{_name}Cell")
    each(f"{_name}Cell", lambda c=_cell: layers.RNN(c(5)), 6, 3)
each("GRU, reset before", lambda: layers.GRU(5, reset_after=False), 6, 3)
each("LSTM, other activations", lambda: layers.LSTM(5, "relu", "hard_sigmoid"), 6, 3)
each("LSTM, no bias", lambda: layers.LSTM(5, use_bias=False), 6, 3)
each("RNN", lambda: layers.RNN(layers.GRUCell(5), return_sequences=True), None, 3)
each(
    "StackedRNNCells",
    lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(5), layers.GRUCell(4)])),
    6,
    3,
)
each(
    "Bidirectional, sum",
    lambda: layers.Bidirectional(layers.LSTM(5, return_sequences=True), merge_mode="sum"),
    6,
    3,
)
each("GRU, dropout", lambda: layers.GRU(5, dropout=0.3, recurrent_dropout=0.2), 6, 3)
each("ConvLSTM1D, dropout", lambda: layers.ConvLSTM1D(3, 3, dropout=0.3), 4, 6, 2)
each("Bidirectional, dropout", lambda: layers.Bidirectional(layers.LSTM(5, dropout=0.3)), 6, 3)
each("ConvLSTM1D", lambda: layers.ConvLSTM1D(3, 3, padding="same"), 4, 6, 2)
each("ConvLSTM2D", lambda: layers.ConvLSTM2D(3, 3), 4, 6, 6, 2)
each("ConvLSTM2D, sequences", lambda: layers.ConvLSTM2D(3, 3, return_sequences=True), 4, 6, 6, 2)
each("ConvLSTM3D", lambda: layers.ConvLSTM3D(2, 3, padding="same"), 3, 4, 4, 4, 2)


each(
    "TimeDistributed, dense of any length",
    lambda: layers.TimeDistributed(layers.Dense(4, "relu")),
    None,
    3,
)


@case("LSTM, initial states")
def _from_states() -> Any:
    x = keras.Input((6, 3), name="x")
    states = [keras.Input((5,), name=name) for name in ("h", "c")]
    return keras.Model([x, *states], layers.LSTM(5)(x, initial_state=states))


@case("LSTM, encoder and decoder")
def _translator() -> Any:
    x, y = keras.Input((None, 3), name="x"), keras.Input((None, 4), name="y")
    _, *states = layers.LSTM(5, return_state=True)(x)
    decoded = layers.LSTM(5, return_sequences=True)(y, initial_state=states)
    return keras.Model([x, y], layers.Dense(3)(decoded))


# --- wrappers ------------------------------------------------------------------------------

each("TimeDistributed", lambda: layers.TimeDistributed(layers.Dense(4, "relu")), 5, 3)
each(
    "TimeDistributed, convolution",
    lambda: layers.TimeDistributed(layers.Conv2D(3, 3)),
    4,
    *IMAGE,
)
each(
    "TimeDistributed, any length",
    lambda: [layers.TimeDistributed(layers.Conv1D(3, 2)), layers.TimeDistributed(layers.Flatten())],
    None,
    5,
    2,
)
each(
    "TimeDistributed, masked",
    lambda: [layers.Masking(), layers.TimeDistributed(layers.Dense(4)), layers.GRU(3)],
    5,
    3,
)

# --- merging -------------------------------------------------------------------------------

for _name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Concatenate"):
    _kind = getattr(layers, _name)
    case(_name)(lambda c=_kind: merged(c(), (4, 3), (4, 3), (4, 3)))
case("Subtract")(lambda: merged(layers.Subtract(), (4, 3), (4, 3)))
case("Add, broadcast")(lambda: merged(layers.Add(), (4, 3), (1, 3)))
case("Concatenate, any size")(lambda: merged(layers.Concatenate(1), (None, 3), (None, 3)))
case("Dot")(lambda: merged(layers.Dot(2), (4, 3), (5, 3)))
case("Dot, normalized")(lambda: merged(layers.Dot(1, normalize=True), (4,), (4,)))

# --- reshaping -----------------------------------------------------------------------------

each("Flatten", layers.Flatten, 4, 3)
each("Flatten, any size", layers.Flatten, None, 3)
each(
    "Permute, then subtracted",
    lambda: [
        layers.Permute((2, 1)),
        layers.Lambda(lambda x: 1.0 - x),
        layers.Lambda(lambda x: 2.0 / (x + 9.0)),
    ],
    3,
    4,
)
each("Permute", lambda: layers.Permute((2, 1)), None, 3)
each("RepeatVector", lambda: layers.RepeatVector(3), 4)
each("Reshape", lambda: layers.Reshape((2, -1)), 4, 3)
each("Reshape, any size", lambda: layers.Reshape((-1, 2)), None, 4)
each("Cropping1D", lambda: layers.Cropping1D((1, 2)), 7, 4)
each("Cropping2D", lambda: layers.Cropping2D(((1, 2), (0, 1))), *IMAGE)
each("Cropping3D", lambda: layers.Cropping3D(1), *VOLUME)
each("ZeroPadding1D", lambda: layers.ZeroPadding1D((1, 2)), None, 4)
each("ZeroPadding2D", lambda: layers.ZeroPadding2D(((1, 2), (0, 1))), *IMAGE)
each("ZeroPadding3D", lambda: layers.ZeroPadding3D(1), *VOLUME)
each("UpSampling1D", lambda: layers.UpSampling1D(2), None, 4)
each("UpSampling2D", lambda: layers.UpSampling2D((2, 3)), *IMAGE)
each("UpSampling2D, any size", lambda: layers.UpSampling2D(2), None, None, 3)
for _name in ("bilinear", "bicubic", "lanczos3", "lanczos5"):
    each(
        f"UpSampling2D, {_name}",
        lambda n=_name: layers.UpSampling2D(2, interpolation=n),
        *IMAGE,
    )
each("UpSampling3D", lambda: layers.UpSampling3D(2), *VOLUME)

# --- regularizing: nothing at inference ----------------------------------------------------

for _name, _arguments in {
    "ActivityRegularization": (0.1,),
    "AlphaDropout": (0.3,),
    "Dropout": (0.3,),
    "GaussianDropout": (0.3,),
    "GaussianNoise": (0.3,),
}.items():
    _kind = getattr(layers, _name)
    each(_name, lambda c=_kind, a=_arguments: [layers.Dense(5), c(*a)], 4)
for _rank, _shape in ((1, SERIES), (2, IMAGE), (3, VOLUME)):
    each(
        f"SpatialDropout{_rank}D",
        lambda r=_rank: [layers.Dense(3), getattr(layers, f"SpatialDropout{r}D")(0.3)],
        *_shape,
    )

# --- numbers and categories ----------------------------------------------------------------


def _adapted(layer: Any, data: Any) -> Any:
    layer.adapt(data)
    return layer


def _rows() -> Any:
    return np.random.default_rng(SEED).normal(3.0, 2.0, (64, 4)).astype(np.float32)


each("Normalization", lambda: _adapted(layers.Normalization(), _rows()), 4)
each("Normalization, given", lambda: layers.Normalization(mean=3.0, variance=2.0), 4)
each("Normalization, inverse", lambda: layers.Normalization(mean=3.0, variance=2.0, invert=True), 4)
each(
    "Normalization, then dense",
    lambda: [_adapted(layers.Normalization(), _rows()), layers.Dense(3)],
    4,
)
each("Discretization", lambda: layers.Discretization([-1.0, 0.0, 0.5]), 4)
each(
    "Discretization, adapted", lambda: _adapted(layers.Discretization(num_bins=4), _rows()[:, 0]), 4
)
each("Discretization, one hot", lambda: layers.Discretization([0.0, 0.5], output_mode="one_hot"), 1)
each("CategoryEncoding", lambda: layers.CategoryEncoding(6), 3, dtype="int32")
each("CategoryEncoding, one hot", lambda: layers.CategoryEncoding(6, "one_hot"), 1, dtype="int32")
each("CategoryEncoding, counts", lambda: layers.CategoryEncoding(6, "count"), 3, dtype="int32")
each("IntegerLookup", lambda: layers.IntegerLookup(vocabulary=[3, 1, 4]), 2, dtype="int64")
each(
    "IntegerLookup, one hot",
    lambda: layers.IntegerLookup(vocabulary=[3, 1, 4], output_mode="one_hot"),
    1,
    dtype="int64",
)
each("StringLookup", lambda: layers.StringLookup(vocabulary=WORDS), 2, dtype="string")
each(
    "StringLookup, one hot",
    lambda: layers.StringLookup(vocabulary=WORDS, output_mode="one_hot"),
    1,
    dtype="string",
)
each(
    "StringLookup, then embedding",
    lambda: [layers.StringLookup(vocabulary=WORDS), layers.Embedding(5, 3), layers.Flatten()],
    2,
    dtype="string",
)
each(
    "StringLookup, inverse",
    lambda: layers.StringLookup(vocabulary=WORDS, invert=True),
    2,
    dtype="int64",
)
each("Hashing", lambda: layers.Hashing(7), 2, dtype="string")
each("Hashing, integers", lambda: layers.Hashing(7), 2, dtype="int64")
each("Hashing, salted", lambda: layers.Hashing(7, salt=[3, 4]), 2, dtype="string")
each("TextVectorization", lambda: layers.TextVectorization(vocabulary=WORDS), dtype="string")
each(
    "TextVectorization, tf-idf",
    lambda: _adapted(layers.TextVectorization(output_mode="tf_idf"), WORDS),
    dtype="string",
)
each(
    "TextVectorization, then embedding",
    lambda: [
        layers.TextVectorization(vocabulary=WORDS, output_sequence_length=4),
        layers.Embedding(7, 3, mask_zero=True),
        layers.GlobalAveragePooling1D(),
    ],
    dtype="string",
)


@case("HashedCrossing")
def _crossing() -> Any:
    x = keras.Input((1,), name="x", dtype="string")
    y = keras.Input((1,), name="y", dtype="string")
    return keras.Model([x, y], layers.HashedCrossing(7)((x, y)))


@case("Normalization, and categories")
def _features() -> Any:
    size, color = keras.Input((4,), name="size"), keras.Input((1,), name="color", dtype="string")
    encoded = layers.StringLookup(vocabulary=WORDS, output_mode="one_hot")(color)
    joined = layers.Concatenate()([_adapted(layers.Normalization(), _rows())(size), encoded])
    return keras.Model({"size": size, "color": color}, layers.Dense(3)(joined))


# --- images --------------------------------------------------------------------------------

each("Rescaling", lambda: layers.Rescaling(1 / 127.5, -1.0), *IMAGE)
each("Rescaling, of bytes", lambda: layers.Rescaling(1 / 255), *IMAGE, dtype="uint8")
for _name in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5", "area"):
    if _name != "area":
        each(f"Resizing, {_name}", lambda n=_name: layers.Resizing(6, 11, n), *IMAGE)
each("Resizing, any size", lambda: layers.Resizing(6, 5), None, None, 3)
each("Resizing, antialias", lambda: layers.Resizing(4, 5, antialias=True), *IMAGE)
each("Resizing, cropped", lambda: layers.Resizing(4, 6, crop_to_aspect_ratio=True), *IMAGE)
each("Resizing, padded", lambda: layers.Resizing(4, 6, pad_to_aspect_ratio=True), *IMAGE)
each("CenterCrop", lambda: layers.CenterCrop(4, 5), *IMAGE)
each("CenterCrop, larger", lambda: layers.CenterCrop(10, 12), *IMAGE)
each("CenterCrop, any size", lambda: layers.CenterCrop(2, 2), None, None, 3)

AUGMENTATIONS: dict[str, tuple[Any, ...]] = {
    "AugMix": (),
    "AutoContrast": (),
    "CutMix": (),
    "Equalization": (),
    "ContrastLimitedAdaptiveHistogramEqualization": (),
    "MixUp": (),
    "RandAugment": (),
    "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.5,),
    "RandomColorJitter": (),
    "RandomContrast": (0.2,),
    "RandomCrop": (5, 5),
    "RandomElasticTransform": (),
    "RandomErasing": (),
    "RandomFlip": (),
    "RandomGaussianBlur": (),
    "RandomGrayscale": (),
    "RandomHue": (0.2,),
    "RandomInvert": (),
    "RandomPerspective": (),
    "RandomPosterization": (3,),
    "RandomRotation": (0.2,),
    "RandomSaturation": (0.5,),
    "RandomSharpness": (0.5,),
    "RandomShear": (0.2,),
    "RandomTranslation": (0.2, 0.2),
    "RandomZoom": (0.2,),
    "Solarization": (),
}
for _name, _arguments in AUGMENTATIONS.items():
    _kind = getattr(layers, _name)
    each(_name, lambda c=_kind, a=_arguments: [c(*a), layers.Conv2D(3, 3)], *IMAGE)


@case("MaxNumBoundingBoxes")
def _boxes() -> Any:
    boxes = {
        "boxes": keras.Input((6, 4), name="boxes"),
        "labels": keras.Input((6,), name="labels"),
    }
    return keras.Model(boxes, layers.MaxNumBoundingBoxes(4, bounding_box_format="xyxy")(boxes))


# --- sound ---------------------------------------------------------------------------------

each("MelSpectrogram", lambda: layers.MelSpectrogram(32, 16, 32, num_mel_bins=8), 128)
each("STFTSpectrogram", lambda: layers.STFTSpectrogram("magnitude", 32, 16, 32), 128, 1)
each("STFTSpectrogram, stft", lambda: layers.STFTSpectrogram("stft", 32, 16, 32), 128, 1)
each("STFTSpectrogram, log", lambda: layers.STFTSpectrogram("log", 32, 16, 32), 128, 1)

# --- how models are put together -----------------------------------------------------------


@case("Dense, several inputs and outputs")
def _several() -> Any:
    x, y = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    joined = layers.Concatenate()([layers.Dense(5, "relu")(x), layers.Dense(5, "tanh")(y)])
    return keras.Model([x, y], [layers.Dense(2, name="a")(joined), layers.Dense(3, name="b")(y)])


@case("Dense, dict inputs and outputs")
def _dicts() -> Any:
    inputs = {name: keras.Input((4,), name=name) for name in ("z", "a")}
    summed = inputs["z"] - 2.0 * inputs["a"]
    return keras.Model(inputs, {"z": layers.Dense(2)(summed), "b": layers.Dense(3)(inputs["a"])})


@case("Dense, nested inputs")
def _nested() -> Any:
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    z = keras.Input((2,), name="z")
    joined = layers.Concatenate()([x - y, z])
    return keras.Model({"pair": [x, y], "z": z}, layers.Dense(3)(joined))


@case("Dense, shared")
def _shared() -> Any:
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    tower = keras.Sequential([layers.Dense(5, "relu"), layers.Dense(3)])
    return keras.Model([x, y], layers.Dot(1)([tower(x), tower(y)]))


@case("Dense, model in a model")
def _inner() -> Any:
    x = keras.Input((4,), name="x")
    inner = keras.Model(x, layers.Dense(3)(layers.BatchNormalization()(x)))
    y = keras.Input((4,), name="y")
    return keras.Model(y, layers.Add()([inner(y), inner(y * 2.0)]))


@case("Dense, sequential")
def _sequential() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3)])


@case("Dense, operations between")
def _operations() -> Any:
    x = keras.Input((4, 3), name="x")
    value = keras.ops.concatenate([keras.ops.cumsum(x, 1), keras.ops.sort(x, 1)], -1)
    value = keras.ops.where(value > 0.0, keras.ops.sqrt(keras.ops.abs(value)), value)
    return keras.Model(x, layers.Dense(2)(keras.ops.max(value, 1)))


@case("Dense, residual network")
def _residual() -> Any:
    x = keras.Input(IMAGE, name="x")
    value = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    for _ in range(2):
        inner = layers.ReLU()(layers.BatchNormalization()(value))
        inner = layers.SeparableConv2D(4, 3, padding="same")(inner)
        value = layers.Add()([value, inner])
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(value)))


@case("Dense, float16")
def _half() -> Any:
    x = keras.Input((4,), name="x")
    value = layers.Dense(8, "relu", dtype="mixed_float16")(x)
    return keras.Model(x, layers.Dense(3, dtype="float32")(value))
