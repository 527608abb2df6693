"""How the inputs of a signature, which are tensors in a row, are passed to ``forward``.

By name where all names are parameters, else by position. Where neither fits, ``batch_ids`` is
the part ``ids`` of the parameter ``batch`` (of a dict, a dataclass or a named tuple) and
``state_0`` the first of a tuple or list: as parts of what a model returns are called.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from modelpack.adapters.torch_script import forward_signature
from modelpack.errors import InputError

INPUT_HINT = (
    "describe each input, for example --input 'x:float32[batch,3,32,32]'; "
    "a part of a dict, tuple or dataclass is called PARAMETER_PART"
)


class Arguments:
    """Puts the tensors of a call into the places that ``forward`` has for them.

    Args:
        model: the model.
        names: its inputs by name, in the order in which they are given.

    Raises:
        InputError: some names are parameters of ``forward`` in other places than given, or
            ``forward`` does not take this many inputs.
    """

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        signature = forward_signature(model)
        self._kinds = _kinds(model)
        self._paths: list[tuple[str, ...]] | None
        self._paths = [(name,) for name in names] if _binds_by_name(signature, names) else None
        if self._paths is None and not _fits_by_position(signature, names, self._kinds):
            self._paths = _paths(signature, names)
        try:
            if self._paths is None:
                signature.bind(*names)
            else:
                signature.bind(**dict.fromkeys(path[0] for path in self._paths))
        except TypeError as error:
            raise InputError(
                f"the described inputs do not fit forward({', '.join(signature.parameters)}): "
                f"{error}",
                hint=INPUT_HINT,
            ) from None
        if self._paths is None:
            _demand_order(signature, names)

    def __call__(self, tensors: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments of a call."""
        if self._paths is None:
            return list(tensors), {}
        parts: dict[str, Any] = {}
        for path, tensor in zip(self._paths, tensors, strict=True):
            place = parts
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = tensor
        return [], {name: _made(part, self._kinds.get(name)) for name, part in parts.items()}


def _binds_by_name(signature: inspect.Signature, names: Sequence[str]) -> bool:
    parameters = signature.parameters.values()
    named = {
        item.name
        for item in parameters
        if item.kind in {item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY}
    }
    # Beside named ones, **kwargs would swallow a name that is wrong.
    takes_any = not named and any(item.kind is item.VAR_KEYWORD for item in parameters)
    return takes_any or named.issuperset(names)


def _fits_by_position(
    signature: inspect.Signature, names: Sequence[str], kinds: dict[str, Any]
) -> bool:
    """Whether there is a parameter for each name, none of which is known to take parts."""
    if any(_takes_parts(kind) for name, kind in kinds.items() if name in signature.parameters):
        return False
    try:
        signature.bind(*names)
    except TypeError:
        return False
    return True


def _takes_parts(kind: Any) -> bool:
    kind = _without_none(kind)
    if isinstance(kind, str):
        return kind.startswith(("List[", "Dict[", "Tuple["))
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and (
        dataclasses.is_dataclass(origin) or issubclass(origin, dict | tuple | list | Mapping)
    )


def _paths(signature: inspect.Signature, names: Sequence[str]) -> list[tuple[str, ...]] | None:
    """The parameter and the part of it that each name means; None if one means neither."""
    found: list[tuple[str, ...]] = []
    for name in names:
        owners = [item for item in signature.parameters if name.startswith(f"{item}_")]
        if name in signature.parameters:
            found.append((name,))
        elif owners:
            owner = max(owners, key=len)
            part = name.removeprefix(f"{owner}_")
            numbers = part.replace("_", "").isdecimal()
            found.append((owner, *(part.split("_") if numbers else [part])))
        else:
            return None
    return found


def _demand_order(signature: inspect.Signature, names: Sequence[str]) -> None:
    parameters = list(signature.parameters)
    for position, name in enumerate(names):
        if name in parameters and parameters[position : position + 1] != [name]:
            raise InputError(
                f"input '{name}' is number {position + 1} of the described inputs, "
                f"but not of forward({', '.join(parameters)})",
                hint="use forward's own names for all inputs, or for none",
            )


def _kinds(model: torch.nn.Module) -> dict[str, Any]:
    """The annotations of ``forward``, as far as they can be read."""
    if isinstance(model, torch.jit.ScriptModule):
        return {item.name: str(item.type) for item in model.forward.schema.arguments}
    try:
        return typing.get_type_hints(model.forward)
    except Exception:  # annotations are not required to make sense
        return {}


def _made(part: Any, kind: Any) -> Any:
    """The value of a parameter, or of a part of one: a tensor, or what its parts make up."""
    if not isinstance(part, dict):
        return part
    kind = _without_none(kind)
    is_class = isinstance(kind, type)
    if is_class and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _made(item, hints.get(name)) for name, item in part.items()})
    if set(part) == {str(index) for index in range(len(part))}:
        items = [_made(part[str(index)], None) for index in range(len(part))]
        wants_list = typing.get_origin(kind) is list or kind is list or str(kind)[:5] == "List["
        return items if wants_list else tuple(items)
    return {name: _made(item, None) for name, item in part.items()}


def _without_none(kind: Any) -> Any:
    """The type of an optional parameter."""
    if isinstance(kind, str):
        return kind.removeprefix("Optional[")
    options = [item for item in typing.get_args(kind) if item is not type(None)]
    is_optional = len(options) == 1 and type(None) in typing.get_args(kind)
    return options[0] if is_optional else kind
