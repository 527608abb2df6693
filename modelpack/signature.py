"""What goes into a model and what comes out: dtypes, dimensions, tensors, signatures.

The text form of a tensor is ``name:dtype[dim,dim,...]``: ``image:float32[batch,8,8,1]``.
A dimension is an integer, a name (dynamic: the same name is the same size wherever it
stands in a signature) or ``?`` (unknown). ``x:float32[]`` is a scalar; ``x:float32``,
without brackets, has unknown rank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from modelpack.errors import InputError

T = TypeVar("T")

Dim = int | str | None
"""A static size, the name of a dynamic dimension, or None when nothing is known."""

DEFAULT_SIGNATURE = "serving_default"

EVERY_SIGNATURE = "all"
"""Stands for all signatures of a model, where one is asked for by name."""


class DType(StrEnum):
    """Element types, by their usual names (those of NumPy, plus bfloat16 and string)."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"

    @property
    def is_float(self) -> bool:
        """Whether values of this type round."""
        return self in {DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64}

    @property
    def is_integer(self) -> bool:
        """Whether values of this type are whole numbers (bool is not one)."""
        return self.value.startswith(("int", "uint"))


class Meaning(StrEnum):
    """What the values of an output say, where a classifier or regressor is known to say it."""

    LABEL = "label"
    PROBABILITIES = "probabilities"
    SCORES = "scores"
    PREDICTION = "prediction"


_NAME = r"[A-Za-z_][A-Za-z0-9_.:/-]*"
_DIM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TENSOR = re.compile(rf"(?P<name>{_NAME}):(?P<dtype>[a-z0-9]+)(?P<shape>\[.*\])?\Z")
_EXAMPLE = "write name:dtype[dim,...], for example 'image:float32[batch,8,8,1]'"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        name: the name a caller uses; starts with a letter or underscore and holds
            letters, digits and ``_ . : / -``.
        dtype: element type.
        shape: one dimension per axis, or None when the rank itself is unknown.
        columns: names of the features along the last axis, when they have names.
        classes: the class that each position of the last axis, or each label, stands for.
        meaning: what the values say, when it is known.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...] | None = None
    columns: tuple[str, ...] = ()
    classes: tuple[str | int | float | bool, ...] = ()
    meaning: Meaning | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name):
            raise InputError(
                f"'{self.name}' is not a usable tensor name",
                hint="start with a letter or underscore; use letters, digits and _ . : / -",
            )
        for dim in self.shape or ():
            if isinstance(dim, int) and dim < 0:
                raise InputError(f"input or output '{self.name}' has a negative dimension {dim}")
            if isinstance(dim, str) and not _DIM_NAME.match(dim):
                raise InputError(f"'{dim}' is not a usable dimension name (tensor '{self.name}')")

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}:{self.dtype}"
        dims = ",".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}:{self.dtype}[{dims}]"

    @classmethod
    def parse(cls, text: str) -> TensorSpec:
        """Parse ``name:dtype[dim,...]``; ``TensorSpec.parse(str(spec)) == spec`` for plain specs.

        Raises:
            InputError: the text does not have this form, or the dtype is unknown.
        """
        match = _TENSOR.match(text.strip())
        if match is None:
            raise InputError(f"cannot read the tensor '{text}'", hint=_EXAMPLE)
        try:
            dtype = DType(match["dtype"])
        except ValueError:
            known = ", ".join(DType)
            raise InputError(
                f"unknown dtype '{match['dtype']}' in '{text}'", hint=f"use one of {known}"
            ) from None
        if match["shape"] is None:
            return cls(match["name"], dtype)
        body = match["shape"][1:-1].strip()
        items = body.split(",") if body else []
        return cls(match["name"], dtype, tuple(_parse_dim(item.strip(), text) for item in items))

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """Names of the dynamic dimensions, in order of axes."""
        return tuple(dim for dim in self.shape or () if isinstance(dim, str))

    def with_dims(self, sizes: Mapping[str, int]) -> TensorSpec:
        """Return the spec with the named dimensions that ``sizes`` holds made static."""
        if self.shape is None:
            return self
        shape = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in self.shape)
        return replace(self, shape=shape)

    def channel_last(self) -> TensorSpec:
        """Return the spec with its second dimension moved to the end."""
        assert self.shape is not None
        return replace(self, shape=(self.shape[0], *self.shape[2:], self.shape[1]))

    def channel_first(self) -> TensorSpec:
        """Return the spec with its last dimension moved to the second place."""
        assert self.shape is not None
        return replace(self, shape=(self.shape[0], self.shape[-1], *self.shape[1:-1]))


@dataclass(frozen=True, slots=True)
class Signature:
    """The named inputs and outputs of one callable of a model.

    Raises:
        InputError: two inputs, or two outputs, have one name.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    name: str = DEFAULT_SIGNATURE

    def __post_init__(self) -> None:
        for side, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            doubled = sorted({name for name in names if names.count(name) > 1})
            if doubled:
                raise InputError(f"two {side} are called '{doubled[0]}'")

    def __str__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        outputs = ", ".join(map(str, self.outputs))
        return f"({inputs}) -> ({outputs})"

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """Names of the dynamic dimensions of all inputs, each once, in order of appearance."""
        return tuple(dict.fromkeys(dim for spec in self.inputs for dim in spec.dynamic_dims))

    def with_dims(self, sizes: Mapping[str, int]) -> Signature:
        """Return the signature with the named dimensions that ``sizes`` holds made static."""
        return replace(
            self,
            inputs=tuple(spec.with_dims(sizes) for spec in self.inputs),
            outputs=tuple(spec.with_dims(sizes) for spec in self.outputs),
        )

    def channel_last(self, names: Collection[str]) -> Signature:
        """Return the signature with the named tensors channel-last instead of channel-first."""
        return self._changed(names, TensorSpec.channel_last)

    def channel_first(self, names: Collection[str]) -> Signature:
        """Undo `channel_last`."""
        return self._changed(names, TensorSpec.channel_first)

    def _changed(
        self, names: Collection[str], change: Callable[[TensorSpec], TensorSpec]
    ) -> Signature:
        inputs, outputs = (
            tuple(change(spec) if spec.name in names else spec for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        return replace(self, inputs=inputs, outputs=outputs)


def differences(expected: Signature, actual: Signature) -> list[str]:
    """Say where ``actual`` breaks what ``expected`` promises; empty when it keeps all of it.

    A dynamic dimension must stay dynamic: formats without dimension names report it as
    unknown, which is accepted; a rank must not be lost. An expected unknown dimension or
    rank accepts anything, and so does a named dimension that no input has: what comes out may
    turn out to be constant. Order does not matter, since tensors are bound by name.
    """
    found: list[str] = []
    given_in = {dim for spec in expected.inputs for dim in spec.shape or ()}
    for side, wanted, given in (
        ("input", expected.inputs, actual.inputs),
        ("output", expected.outputs, actual.outputs),
    ):
        by_name = {spec.name: spec for spec in given}
        for spec in wanted:
            other = by_name.pop(spec.name, None)
            if other is None:
                found.append(f"{side} '{spec.name}' is missing")
            else:
                found.extend(_tensor_differences(side, spec, other, given_in))
        found.extend(f"{side} '{name}' was not asked for" for name in by_name)
    return found


def _tensor_differences(
    side: str, wanted: TensorSpec, given: TensorSpec, given_in: Collection[Dim]
) -> Iterator[str]:
    if wanted.dtype != given.dtype:
        yield f"{side} '{wanted.name}' is {given.dtype}, not {wanted.dtype}"
    if wanted.shape is None:
        return
    if given.shape is None:
        yield f"{side} '{wanted.name}' has no known rank, not {len(wanted.shape)}"
        return
    if len(wanted.shape) != len(given.shape):
        yield f"{side} '{wanted.name}' has rank {len(given.shape)}, not {len(wanted.shape)}"
        return
    for axis, (want, have) in enumerate(zip(wanted.shape, given.shape, strict=True)):
        lost_static = isinstance(want, int) and isinstance(have, int) and want != have
        frozen = isinstance(want, str) and isinstance(have, int) and want in given_in
        renamed = isinstance(want, str) and isinstance(have, str) and want != have
        if lost_static or frozen or renamed:
            yield f"{side} '{wanted.name}' axis {axis} is {have}, not {want}"


def _parse_dim(item: str, text: str) -> Dim:
    if item == "?":
        return None
    if item.isascii() and item.isdigit() and len(item) < 19:  # below 2**63
        return int(item)
    if _DIM_NAME.match(item):
        return item
    raise InputError(f"cannot read the dimension '{item}' in '{text}'", hint=_EXAMPLE)


def unknown_signature(model: str, name: str, held: Collection[str]) -> InputError:
    """The error that a model has no signature of this name, but others."""
    return InputError(
        f"'{model}' has no signature called '{name}', but {', '.join(held) or 'none at all'}",
        hint="choose one with --signature",
    )


def requested(
    native: Signature, inputs: tuple[TensorSpec, ...], outputs: tuple[str, ...]
) -> Signature:
    """Return ``native`` with the names, dimensions and dtypes that the user asked for.

    An input spec whose name the model knows describes that input. When none of the names
    is known, the specs are taken by position, and rename. Order is that of ``native``, so
    the two signatures correspond position by position.

    Raises:
        InputError: the counts do not fit, a name is unknown, or a spec contradicts what
            the model says of its own dtype, rank or static dimensions.
    """
    wanted = _by_native_name(native, inputs)
    if outputs and len(outputs) != len(native.outputs):
        raise InputError(
            f"{len(outputs)} output names were given, but the model has {len(native.outputs)}: "
            + ", ".join(spec.name for spec in native.outputs)
        )
    refined = [(old, _refined(old, wanted.get(old.name, old))) for old in native.inputs]
    dims = _renamed_dims(refined)
    names = outputs or tuple(spec.name for spec in native.outputs)
    return replace(
        native,
        inputs=tuple(replace(new, shape=_with_dims(new, old, dims)) for old, new in refined),
        outputs=tuple(
            replace(spec, name=name, shape=_with_dims(spec, spec, dims))
            for spec, name in zip(native.outputs, names, strict=True)
        ),
    )


def _by_native_name(native: Signature, inputs: tuple[TensorSpec, ...]) -> dict[str, TensorSpec]:
    """The specs of the user by the model's own names: as given, or else by position."""
    known = {spec.name for spec in native.inputs}
    names = [spec.name for spec in inputs]
    if len(set(names)) < len(names):
        raise InputError("an input was described twice: " + ", ".join(names))
    if inputs and not known & set(names):
        if len(inputs) != len(native.inputs):
            raise InputError(
                f"{len(inputs)} inputs were described, but the model has {len(native.inputs)}: "
                + ", ".join(map(str, native.inputs))
            )
        return {old.name: new for old, new in zip(native.inputs, inputs, strict=True)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise InputError(
            f"the model has no input '{unknown[0]}'; it has " + ", ".join(sorted(known))
        )
    return {spec.name: spec for spec in inputs}


def _renamed_dims(pairs: list[tuple[TensorSpec, TensorSpec]]) -> dict[str, int | str]:
    """What each dynamic dimension of the model becomes; it must become the same everywhere."""
    dims: dict[str, int | str] = {}
    for before, after in pairs:
        if before is after:  # nothing was said of this input
            continue
        for old, new in zip(before.shape or (), after.shape or (), strict=False):
            if isinstance(old, str) and new is not None and dims.setdefault(old, new) != new:
                raise InputError(
                    f"the dimension '{old}' of the model was described as {dims[old]} and as {new}"
                )
    return dims


def _with_dims(
    spec: TensorSpec, native: TensorSpec, dims: Mapping[str, int | str]
) -> tuple[Dim, ...] | None:
    if spec.shape is None or native.shape is None:
        return spec.shape
    return tuple(
        dims.get(old, old) if isinstance(old, str) else new
        for old, new in zip(native.shape, spec.shape, strict=True)
    )


def _refined(native: TensorSpec, wanted: TensorSpec) -> TensorSpec:
    """Take the name and dimensions of ``wanted`` for ``native``, which must allow them."""
    if wanted is native:
        return native
    if wanted.dtype != native.dtype:
        raise InputError(
            f"input '{wanted.name}' was described as {wanted.dtype}, "
            f"but the model takes {native.dtype}"
        )
    if wanted.shape is None:
        return replace(native, name=wanted.name)
    if native.shape is not None:
        fits = len(native.shape) == len(wanted.shape) and all(
            not isinstance(have, int) or have == want
            for have, want in zip(native.shape, wanted.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"input '{wanted.name}' was described as {wanted}, but the model takes {native}"
            )
    return replace(native, name=wanted.name, shape=wanted.shape)


def in_order_of(native: Signature, expected: Signature | None) -> Signature:
    """Return what a file holds in the order, and with the dimension names, of ``expected``.

    For formats that keep neither. Tensors that are not expected come last, by name.
    """
    if expected is None:
        return native
    return replace(
        native,
        inputs=_reordered(native.inputs, expected.inputs),
        outputs=_reordered(native.outputs, expected.outputs),
    )


def _reordered(
    native: tuple[TensorSpec, ...], expected: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    wanted = {spec.name: (position, spec) for position, spec in enumerate(expected)}
    named = []
    for spec in native:
        position, other = wanted.get(spec.name, (len(wanted), None))
        shape = spec.shape
        if shape is not None:
            like = other.shape if other and other.shape and len(other.shape) == len(shape) else None
            hints = like or (None,) * len(shape)
            shape = tuple(
                have if isinstance(have, int) else hint if isinstance(hint, str) else None
                for have, hint in zip(shape, hints, strict=True)
            )
        named.append((position, replace(spec, shape=shape)))
    return tuple(spec for _, spec in sorted(named, key=lambda item: (item[0], item[1].name)))


def refuse_swapped(native: Signature, outputs: tuple[str, ...]) -> None:
    """Refuse output names that could mean either a new order or new names.

    Raises:
        InputError: they are the file's own, in another order.
    """
    own = tuple(spec.name for spec in native.outputs)
    if outputs and outputs != own and sorted(outputs) == sorted(own):
        raise InputError(
            "the output names given are the model's own in another order, so it is not clear "
            "whether they reorder or rename",
            hint=f"the model's order is {', '.join(own)}; use other names to rename",
        )


def bound_names(given: tuple[TensorSpec, ...], native: tuple[TensorSpec, ...]) -> dict[str, str]:
    """Map names of a signature to a file's own: by name where they are the same, else by position.

    Raises:
        InputError: they are renamed, but not as many.
    """
    own = {spec.name for spec in native}
    if {spec.name for spec in given} == own:
        return {name: name for name in sorted(own)}
    if len(given) != len(native):
        raise InputError(
            f"the signature has {len(given)} tensors where the file has {len(native)}: "
            + ", ".join(sorted(own))
        )
    return {new.name: old.name for new, old in zip(given, native, strict=True)}


def own_names(signature: Signature, native: Signature) -> dict[str, str]:
    """Map each name of a signature to the model's own, which stands at the same position."""
    pairs = zip(
        (*signature.inputs, *signature.outputs), (*native.inputs, *native.outputs), strict=True
    )
    return {new.name: old.name for new, old in pairs}


def for_inputs(values: Mapping[str, T], old: Signature, new: Signature) -> dict[str, T]:
    """Carry what is known of inputs by their old names over to the new names, by position."""
    return {
        after.name: values[before.name]
        for before, after in zip(old.inputs, new.inputs, strict=True)
        if before.name in values
    }
