"""Weights of PyTorch: state dicts, and the checkpoints of training that hold one."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from modelpack.adapters.torch_scan import check_sums, scan_save, shown
from modelpack.artifact import Encoding, detect
from modelpack.errors import InputError, UntrustedSourceError, first_line

State: TypeAlias = Mapping[str, torch.Tensor]

# What torch.compile puts before the names of what it wraps, at any depth.
_COMPILED = "_orig_mod."

# What wrappers of training put before every name.
_WRAPPERS = ("module.", _COMPILED, "model.", "net.", "network.", "backbone.")
_REFERENCE_HINT = (
    "give the model as a Python reference, file.py:attribute, and this file with --weights"
)


def apply_weights(model: torch.nn.Module, path: Path, *, trusted: bool = False) -> None:
    """Load weights (``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors``) into the module.

    A checkpoint may hold its state dict under a key, and a wrapper's name may stand before
    every name of it: it is taken where all names and shapes fit then, and in no other case.

    Raises:
        InputError: the file is missing or damaged, or does not fit the module.
        UntrustedSourceError: the file is a pickle of more than tensors, and not trusted.
    """
    found = list(_states(_read(path, trusted), ""))
    if not found:
        raise InputError(f"'{path.name}' holds {contents(_read(path, trusted))}, no state dict")
    fitting = {key: fit for key, state in found if (fit := _fit(model, state)) is not None}
    if len(fitting) > 1:
        raise InputError(
            f"'{path.name}' holds several weights that fit the model: {shown(fitting)}",
            hint="save the one that you mean with torch.save(checkpoint[key], path)",
        )
    if not fitting:
        raise _misfit(model, path, found[0][1])
    model.load_state_dict(next(iter(fitting.values())), strict=True)


def _read(path: Path, trusted: bool) -> Any:
    if not path.is_file():
        raise InputError(f"there is no weights file '{path}'")
    encoding = detect(path)
    if encoding is Encoding.SAFETENSORS:
        return _read_safetensors(path)
    if encoding not in {Encoding.TORCH_SAVE, Encoding.PICKLE}:
        raise InputError(
            f"'{path.name}' is no weights of PyTorch: its content is {encoding.value}",
            hint="give a state dict, saved with torch.save or as safetensors",
        )
    if zipfile.is_zipfile(path):
        check_sums(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError:
        raise UntrustedSourceError(
            f"'{path.name}' holds more than tensors: {shown(scan_save(str(path)))}",
            hint="save the weights with torch.save(model.state_dict(), path) or as safetensors; "
            "or give --trust when you trust where the file comes from",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, ImportError, AttributeError) as error:
        raise InputError(f"cannot read the weights '{path.name}': {first_line(error)}") from None


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read the weights '{path.name}': {error}") from None
    return state


def _states(value: Any, key: str) -> Iterator[tuple[str, State]]:
    """Yield each state dict in a checkpoint, with the key it is under."""
    if isinstance(value, torch.nn.Module):
        yield key, value.state_dict()
    elif isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
        if _is_state(value):
            yield key, value
            return
        for name, item in value.items():
            if isinstance(item, Mapping | torch.nn.Module):
                yield from _states(item, f"{key}.{name}" if key else name)


def _is_state(value: Mapping[str, Any]) -> bool:
    """Whether all values are tensors, but for extra states, which modules may add."""
    return all(
        isinstance(item, torch.Tensor) or name.endswith("_extra_state")
        for name, item in value.items()
    ) and any(isinstance(item, torch.Tensor) for item in value.values())


def _fit(model: torch.nn.Module, state: State) -> State | None:
    """The state dict under the names of the module; None where it does not fit."""
    own = model.state_dict()
    for names in _spellings(list(state)):
        renamed = dict(zip(names, state.values(), strict=True))
        if renamed.keys() == own.keys() and all(
            _like(own[name], tensor) for name, tensor in renamed.items()
        ):
            return renamed
    return None


def _like(one: Any, other: Any) -> bool:
    """Whether one can be filled with the other: float dtypes are converted, others are not."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return type(one) is type(other)
    same_kind = one.dtype == other.dtype or (one.is_floating_point() and other.is_floating_point())
    return one.shape == other.shape and same_kind


def _spellings(names: list[str]) -> Iterator[list[str]]:
    """Yield the names as they are, then without the wrappers that stand before all of them."""
    yield names
    for wrapper in _WRAPPERS:
        if names and all(name.startswith(wrapper) for name in names):
            yield from _spellings([name.removeprefix(wrapper) for name in names])
    if any(_COMPILED in name for name in names):
        yield from _spellings([name.replace(_COMPILED, "") for name in names])


def _misfit(model: torch.nn.Module, path: Path, state: State) -> InputError:
    own = model.state_dict()
    problems = [
        f"{kind} keys: {shown(keys)}"
        for kind, keys in (
            ("missing", [name for name in own if name not in state]),
            ("unexpected", [name for name in state if name not in own]),
        )
        if keys
    ]
    problems += [
        f"size mismatch for {name}: {_shape(state[name])} in the file, "
        f"{_shape(tensor)} in the model"
        for name, tensor in own.items()
        if name in state and not _like(tensor, state[name])
    ]
    return InputError(
        f"'{path.name}' does not fit the model: {'; '.join(problems[:5])}",
        hint="missing keys are the model's, unexpected keys the file's",
    )


def _shape(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


# --- saying what a file holds --------------------------------------------------------


def contents(value: Any) -> str:
    """Say what was read from a file: a state dict, a checkpoint, an optimizer's state."""
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    if not value:
        return "an empty dict"
    if "pytorch-lightning_version" in value:
        return f"a checkpoint of Lightning ({_keys(value)})"
    if {"state", "param_groups"} <= value.keys():
        return "the state of an optimizer"
    if _is_state(value):
        return f"only weights ({_weights(value)})"
    inside = [f"'{key}': {_weights(state)}" for key, state in _states(value, "")]
    kind = f"a checkpoint with weights ({shown(inside)})" if inside else "a dict"
    return f"{kind} with the keys {_keys(value)}" if not inside else kind


def advice(value: Any) -> str:
    """Say what to do with a file that holds no model."""
    states = list(_states(value, ""))
    if not states:
        return "give the file of the model, or a Python reference and its weights with --weights"
    first = next(iter(states[0][1]))
    wrapper = next((name for name in _WRAPPERS if first.startswith(name)), "")
    more = f"; '{wrapper}' before every name is taken away" if wrapper else ""
    return _REFERENCE_HINT + more


def _keys(value: Mapping[Any, Any]) -> str:
    return shown([str(key) for key in value])


def _weights(state: State) -> str:
    tensors = [item for item in state.values() if isinstance(item, torch.Tensor)]
    count = sum(tensor.numel() for tensor in tensors)
    first, tensor = next((key, item) for key, item in state.items() if hasattr(item, "shape"))
    return f"{len(tensors)} tensors, {count} numbers, the first '{first}' {_shape(tensor)}"
