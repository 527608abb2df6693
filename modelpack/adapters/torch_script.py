"""TorchScript as something that `torch.export` can trace: its graph, run op by op in Python.

PyTorch does not export script modules. Running their graph under its exporter keeps what a
trace loses: a branch on sizes becomes a guard, which the exporter reports, and a branch on
values computes both sides and selects one. Nothing is decided by the example inputs in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from modelpack.adapters.torch_script_ops import STRUCTURE, as_tensor, call, schema_of, source_line
from modelpack.errors import ConversionError

_NO_DEFAULT = inspect.Parameter.empty


def forward_signature(model: torch.nn.Module) -> inspect.Signature:
    """The parameters of ``forward``, also of a script module, whose schema has them."""
    if isinstance(model, ScriptGraph):
        return model.signature
    if not isinstance(model, torch.jit.ScriptModule):
        return inspect.signature(model.forward)
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=argument.default_value if argument.has_default_value() else _NO_DEFAULT,
            )
            for argument in model.forward.schema.arguments[1:]
        ]
    )


def is_recurrent_script(model: torch.nn.Module) -> bool:
    """Whether a script module calls LSTM or GRU layers."""
    return isinstance(model, torch.jit.ScriptModule) and _has(model, {"aten::lstm", "aten::gru"})


def has_embeddings(script: torch.jit.ScriptModule) -> bool:
    """Whether a script module looks rows of a table up."""
    return _has(script, {"aten::embedding"})


def _has(script: torch.jit.ScriptModule, kinds: set[str]) -> bool:
    return any(node.kind() in kinds for node in _nodes(_inlined(script)))


class ScriptGraph(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """A script module as a module of Python, which answers what it answers.

    Args:
        script: the module. Its weights are shared, not copied.

    Raises:
        ConversionError: it holds something that only the interpreter of TorchScript can run.
    """

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.signature = forward_signature(script)
        self.tables: list[tuple[int, torch.Tensor | None]] = []
        self._hidden = (script,)  # not a child: torch.export refuses modules that hold one
        self._graph = _inlined(script)
        self._tensors: dict[str, str] = {}
        first: dict[int, str] = {}
        for name, tensor in _weights(script):
            place = self._tensors.get(first.setdefault(id(tensor), f"self.{name}"))
            if place is None:
                self._keep(f"self.{name}", tensor)
            else:  # one weight of two names
                self._tensors[f"self.{name}"] = place
        for node in _nodes(self._graph):
            value = node.output().toIValue() if node.kind() == "prim::Constant" else None
            if isinstance(value, torch.Tensor) and not _is_number(value):
                self._keep(node.output().debugName(), value)

    def _keep(self, key: str, tensor: torch.Tensor) -> None:
        self._tensors[key] = f"tensor_{len(self._tensors)}"
        self.register_buffer(self._tensors[key], tensor.detach())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the graph; arguments as of the script module's own ``forward``."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        inputs = list(self._graph.inputs())
        values: dict[str, Any] = {inputs[0].debugName(): _Path("self", self._hidden[0])}
        self.tables = []
        for value, argument in zip(inputs[1:], bound.arguments.values(), strict=True):
            values[value.debugName()] = argument
        return self._run(self._graph, values)[0]

    # --- blocks ----------------------------------------------------------------------

    def _run(self, block: Any, values: dict[str, Any]) -> list[Any]:
        """Run a graph or a block; what it defines is added to ``values``."""
        for node in block.nodes():
            try:
                results = self._results(node, values)
            except NotImplementedError as error:
                raise ConversionError(
                    f"TorchScript's {error} cannot be exported{source_line(node)}"
                ) from error
            for output, result in zip(node.outputs(), results, strict=True):
                values[output.debugName()] = result
        return [values[output.debugName()] for output in block.outputs()]

    def _results(self, node: Any, values: dict[str, Any]) -> Sequence[Any]:
        kind = node.kind()
        if kind == "prim::Constant":
            return [self._constant(node)]
        args = [values[item.debugName()] for item in node.inputs()]
        if kind == "prim::GetAttr":
            return [self._attribute(args[0], node.s("name"))]
        if kind == "prim::If":
            return self._branch(node, args[0], values)
        if kind == "prim::Loop":
            return self._loop(node, args, values)
        if kind == "aten::embedding":
            self.tables.append((int(args[0].shape[0]), args[1]))
        if kind in STRUCTURE:
            return STRUCTURE[kind](args, node)
        result = call(node, args)
        count = node.outputsSize()
        return [result] if count == 1 else list(result) if count else []

    def _constant(self, node: Any) -> Any:
        key = node.output().debugName()
        if key in self._tensors:
            return getattr(self, self._tensors[key])
        value = node.output().toIValue()
        return value.item() if isinstance(value, torch.Tensor) else value

    def _attribute(self, owner: Any, name: str) -> Any:
        if not isinstance(owner, _Path):
            raise NotImplementedError(f"object attribute '{name}'")
        path, value = f"{owner.name}.{name}", getattr(owner.value, name)
        if path in self._tensors:
            return getattr(self, self._tensors[path])
        if isinstance(value, torch.nn.Module | torch._C.ScriptModule):
            return _Path(path, value)
        if isinstance(value, torch._C.ScriptObject):
            raise NotImplementedError(f"object of class {value._type().qualified_name()}")
        return value

    def _branch(self, node: Any, condition: Any, values: dict[str, Any]) -> Sequence[Any]:
        blocks = list(node.blocks())
        if not isinstance(condition, torch.Tensor):
            return self._run(blocks[0] if _known(condition, node) else blocks[1], values)
        # A check that raises cannot be in a graph: what it lets pass is computed.
        usable = [block for block in blocks if not _raises(block)]
        if len(usable) == 1:
            return self._run(usable[0], values)
        for block in blocks:
            _demand_no_effect(block)
        either = [self._run(block, dict(values)) for block in blocks]
        chosen = condition.reshape(()).to(torch.bool)
        try:
            return [_selected(chosen, one, other) for one, other in zip(*either, strict=True)]
        except ValueError as error:
            raise ConversionError(
                f"a branch on values gives {error} on its two sides{source_line(node)}",
                hint="let both sides give tensors of one shape and dtype",
            ) from None

    def _loop(self, node: Any, args: list[Any], values: dict[str, Any]) -> Sequence[Any]:
        count, going, *carried = args
        (body,) = node.blocks()
        index = 0
        while index < count:
            if isinstance(going, torch.Tensor):
                raise ConversionError(
                    f"the number of turns of a loop depends on values{source_line(node)}",
                    hint="give the loop a number of turns that is known, or convert the parts "
                    "before and after it",
                )
            if not going:
                break
            names = [item.debugName() for item in body.inputs()]
            values.update(zip(names, [index, *carried], strict=True))
            going, *carried = self._run(body, values)
            index += 1
        return carried


class _Path:
    """A module that the graph refers to, and its name."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value


@lru_cache(maxsize=2)
def _inlined(script: torch.jit.ScriptModule) -> Any:
    """The graph of ``forward`` with those of the methods that it calls in their places."""
    graph = script.forward.graph.copy()
    for _ in range(_DEEPEST):  # one level of calls each, where graphs are not optimized
        if all(node.kind() not in _CALLS for node in _nodes(graph)):
            break
        torch._C._jit_pass_inline(graph)
    return graph


_CALLS = {"prim::CallMethod", "prim::CallFunction"}
_DEEPEST = 100


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _is_number(tensor: torch.Tensor) -> bool:
    """Whether a constant is a number: traces keep them, and sizes, as tensors."""
    return tensor.dim() == 0 and tensor.dtype in {torch.int64, torch.float64, torch.bool}


def _weights(script: torch.jit.ScriptModule) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers under each of their names."""
    return [
        *script.named_parameters(remove_duplicate=False),
        *script.named_buffers(remove_duplicate=False),
    ]


def _known(condition: Any, node: Any) -> bool:
    """A condition on numbers: what they are now, or a guard on sizes that the export checks.

    Raises:
        ConversionError: a number comes from values, so that either side can be right.
    """
    try:
        return bool(condition)
    except GuardOnDataDependentSymNode:
        raise ConversionError(
            f"a branch on a number that was made of values{source_line(node)}",
            hint="compare the tensor itself, without int() or item()",
        ) from None


def _raises(block: Any) -> bool:
    return any(node.kind() == "prim::RaiseException" for node in block.nodes())


def _demand_no_effect(block: Any) -> None:
    """Check that a side of a branch changes nothing that it has not made itself.

    Raises:
        ConversionError: it does; both sides are computed, and would both change it.
    """
    inside = {value.debugName(): node for node in _nodes(block) for value in node.outputs()}
    for node in _nodes(block):
        if node.kind() == "prim::SetAttr" or node.kind() in _LIST_CHANGES:
            fresh = node.kind() != "prim::SetAttr" and next(node.inputs()).debugName() in inside
        else:
            fresh = all(
                value.debugName() in inside and _makes_new(inside[value.debugName()])
                for value, argument in zip(node.inputs(), _arguments(node), strict=False)
                if argument.alias_info is not None and argument.alias_info.is_write
            )
        if not fresh:
            raise ConversionError(
                f"a branch on values changes a tensor in place{source_line(node)}",
                hint="return the changed tensor from both sides instead",
            )


_LIST_CHANGES = {"aten::append", "aten::extend", "aten::insert", "aten::pop", "aten::_set_item"}


def _arguments(node: Any) -> Sequence[Any]:
    return () if node.schema() == "(no schema)" else schema_of(node.schema()).arguments


def _makes_new(node: Any) -> bool:
    if node.schema() == "(no schema)":
        return False
    returns = schema_of(node.schema()).returns
    return all(item.alias_info is None for item in returns)


_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)


def _selected(condition: torch.Tensor, one: Any, other: Any) -> Any:
    """What one side of a branch gives, or the other.

    Raises:
        ValueError: they differ in more than values; the message says how.
    """
    if one is other:
        return one
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        return type(one)(_selected(condition, *pair) for pair in zip(one, other, strict=True))
    if isinstance(one, _NUMBERS) or isinstance(other, _NUMBERS):
        one, other = (as_tensor(x) if isinstance(x, _NUMBERS) else x for x in (one, other))
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        raise ValueError(f"{type(one).__name__} and {type(other).__name__}")
    if one.dim() != other.dim() or not bool(one.shape == other.shape):
        raise ValueError(f"shapes {tuple(one.shape)} and {tuple(other.shape)}")
    if one.dtype != other.dtype:
        raise ValueError(f"{one.dtype} and {other.dtype}")
    if one.dtype == torch.bool:  # ONNX Runtime has no Where of truth values
        return (condition & one) | (~condition & other)
    return torch.where(condition, one, other)
