"""Ops that PyTorch's exporter writes badly, or not at all, as plain ones that mean the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from operator import getitem
from typing import Any
from unittest import mock

import torch
from torch._C import DispatchKey
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from modelpack.adapters import torch_dtype_forms as dtypes
from modelpack.adapters import torch_ordering_forms as ordering
from modelpack.adapters import torch_plain_forms as forms
from modelpack.adapters import torch_pooling_forms as pooling
from modelpack.adapters.torch_custom import translations
from modelpack.adapters.torch_failures import place_of_node
from modelpack.adapters.torch_rewriting import rewritten
from modelpack.errors import ConversionError

_aten = torch.ops.aten

# What computes the same, and which arguments it takes of a node; None where it does not apply.
_Rule = tuple[Callable[..., Any], Callable[[Node], tuple[Any, ...] | None]]


def plain(program: ExportedProgram) -> ExportedProgram:
    """The program with such ops written out; an op that a plug-in writes stays."""
    written = translations()

    def arguments(node: Node) -> tuple[Any, ...] | None:
        is_ours = node.target in _RULES and node.target not in written
        return _RULES[node.target][1](node) if is_ours else None

    return rewritten(program, arguments, _replace)


@contextlib.contextmanager
def any_sizes() -> Iterator[None]:
    """Trace by their plain forms the ops whose own way through PyTorch goes by their sizes."""
    with contextlib.ExitStack() as stack:
        for op, form in _BY_SIZES.items():
            kernels = {**op.py_kernels, DispatchKey.CompositeImplicitAutograd: form}
            stack.enter_context(mock.patch.dict(op.py_kernels, kernels))
            op._dispatch_cache.clear()
            stack.callback(op._dispatch_cache.clear)
        yield


def _replace(graph: Graph, node: Node, args: tuple[Any, ...]) -> None:
    """Put the nodes of the plain form in the place of a node."""
    leaves, structure = pytree.tree_flatten((args, dict(node.kwargs)))
    read = [leaf for leaf in leaves if isinstance(leaf, Node)]

    def form(*values: Any) -> Any:
        given = iter(values)
        filled = [next(given) if isinstance(leaf, Node) else leaf for leaf in leaves]
        made, options = pytree.tree_unflatten(filled, structure)
        return _RULES[node.target][0](*made, **options)

    values = [leaf.meta["val"] for leaf in read]
    # Without the mode of the values, what is made of sizes alone has those of the example.
    with torch.no_grad(), detect_fake_mode(values) or contextlib.nullcontext():
        traced = make_fx(form, pre_dispatch=True)(*values)
    inputs = [item for item in traced.graph.nodes if item.op == "placeholder"]
    copies: dict[Node, Any] = dict(zip(inputs, read, strict=True))
    with graph.inserting_before(node):
        result = graph.graph_copy(traced.graph, copies)
    for item in copies.values():
        if item not in read and "stack_trace" in node.meta:
            item.meta["stack_trace"] = node.meta["stack_trace"]
    _use(graph, node, result)


def _use(graph: Graph, node: Node, result: Any) -> None:
    """Let what reads a node, or one of its results, read what is in its place."""
    for user in list(node.users) if _has_several(node) else ():
        if user.users:
            user.replace_all_uses_with(result[user.args[1]])
        graph.erase_node(user)
    if node.users:
        node.replace_all_uses_with(result)
    graph.erase_node(node)


def _has_several(node: Node) -> bool:
    return isinstance(node.meta["val"], tuple | list)


def _only_first(node: Node) -> bool:
    """Whether only the first of a node's results is read."""
    return all(
        user.target is getitem and (user.args[1] == 0 or not user.users) for user in node.users
    )


# --- which arguments a form takes ------------------------------------------------------------


def _as_given(node: Node) -> tuple[Any, ...]:
    return node.args


def _largest(node: Node) -> tuple[Any, ...] | None:
    """Of a pooling or the like whose places of the largest values are not read."""
    return node.args if _only_first(node) else None


def _uneven(node: Node) -> tuple[Any, ...] | None:
    """Of a pooling into windows of unknown or several lengths: the exporter sums up each place."""
    image, wanted = node.args
    sizes = image.meta["val"].shape[-len(wanted) :]
    known = all(isinstance(size, int) for size in (*sizes, *wanted))
    even = known and all(size % count == 0 for size, count in zip(sizes, wanted, strict=True))
    return None if even else node.args


def _numbers(node: Node) -> tuple[Any, ...] | None:
    return None if _dtype(node.args[0]) is torch.bool else node.args


def _fractions(node: Node) -> tuple[Any, ...] | None:
    """Of what ONNX Runtime does not compute in whole numbers: a product overflows otherwise."""
    return node.args if _dtype(node).is_floating_point else None


def _whole(node: Node) -> tuple[Any, ...] | None:
    return None if _dtype(node).is_floating_point else node.args


def _of_whole(node: Node) -> tuple[Any, ...] | None:
    return None if _dtype(node.args[0]).is_floating_point else node.args


def _converted(node: Node) -> tuple[Any, ...] | None:
    """Of values that are converted first, which the exporter does last."""
    return node.args if node.kwargs.get("dtype") not in {None, _dtype(node.args[0])} else None


def _conditions(node: Node) -> tuple[Any, ...] | None:
    """Of what makes conditions of conditions, a sum or a choice."""
    return node.args if _dtype(node) is torch.bool and not node.kwargs else None


def _mixed(node: Node) -> tuple[Any, ...] | None:
    """Of tensors of several dtypes."""
    return node.args if len({_dtype(item) for item in node.args[0]}) > 1 else None


def _means(node: Node) -> tuple[Any, ...] | None:
    return node.args if node.args[4] == "mean" else None


def _dtype(node: Node) -> torch.dtype:
    """The dtype of the only, or first, tensor that a node makes."""
    made = node.meta["val"]
    return (made[0] if isinstance(made, tuple | list) else made).dtype


def _not_trained(node: Node) -> tuple[Any, ...] | None:
    training = node.args[3] if len(node.args) > 3 else node.kwargs.get("training", False)
    return None if training else node.args


def _attention(node: Node) -> tuple[Any, ...] | None:
    """Of an attention that the exporter does not write: of another rank than 4."""
    ranks = {item.meta["val"].dim() for item in node.args[:3]}
    dropout = node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0)
    return None if ranks == {4} or dropout else node.args


def _bags(node: Node) -> tuple[Any, ...] | None:
    """Of bags that are the rows of a matrix: the matrix in the place of indices and offsets."""
    weight, flat, offsets, _, mode, _, scales, last, padding = node.args
    is_even = (
        flat.target == _aten.reshape.default
        and flat.args[1] == [-1]
        and flat.args[0].meta["val"].dim() == 2
        and offsets.target == _aten.arange.start_step
    )
    if not is_even or last or not _only_first(node):
        return None
    rows = flat.args[0]
    wanted = (0, rows.meta["val"].numel(), rows.meta["val"].shape[1])
    have = tuple(item.meta["val"] if isinstance(item, Node) else item for item in offsets.args)
    return (weight, rows, mode, scales, padding) if str(have) == str(wanted) else None


def _projections(node: Node) -> tuple[Any, ...] | None:
    """Of an LSTM that is projected, which ONNX does not have.

    Raises:
        ConversionError: its number of steps is not known, so that they cannot be written out.
    """
    values, _, weights, biased, layers, _, training, both_ways, batch_first = node.args
    each = len(weights) / (layers * (1 + both_ways))
    if each != _PROJECTED[biased] or training:
        return None
    steps = values.meta["val"].shape[1 if batch_first else 0]
    if isinstance(steps, int) and steps <= _MOST_STEPS:
        return node.args
    raise ConversionError(
        f"an LSTM with proj_size{place_of_node(node)} has no form in ONNX, and {steps} steps of "
        "time are not written one by one",
        hint=f"give its input a fixed length of at most {_MOST_STEPS} steps, or train it without "
        "proj_size, with a Linear layer behind it",
    )


# Weights of a projected layer in one direction, without and with biases.
_PROJECTED = {False: 3, True: 5}

# A step is about twenty nodes of the graph.
_MOST_STEPS = 128

_RULES: dict[Any, _Rule] = {
    _aten.scaled_dot_product_attention.default: (forms.attention, _attention),
    _aten.embedding_bag.padding_idx: (forms.embedding_bag, _bags),
    _aten.lstm.input: (forms.projected_lstm, _projections),
    _aten.cdist.default: (forms.cdist, _as_given),
    _aten.hypot.default: (forms.hypot, _as_given),
    _aten.copysign.Tensor: (forms.copysign, _as_given),
    _aten.rrelu.default: (forms.rrelu, _not_trained),
    _aten.adaptive_max_pool1d.default: (pooling.adaptive_max, _largest),
    _aten.adaptive_max_pool2d.default: (pooling.adaptive_max, _largest),
    _aten.adaptive_max_pool3d.default: (pooling.adaptive_max, _largest),
    _aten.adaptive_avg_pool1d.default: (pooling.adaptive_mean, _uneven),
    _aten.adaptive_avg_pool2d.default: (pooling.adaptive_mean, _uneven),
    _aten.adaptive_avg_pool3d.default: (pooling.adaptive_mean, _as_given),
    _aten.sort.stable: (ordering.sort, _numbers),
    _aten.argsort.stable: (ordering.places_in_order, _numbers),
    _aten.kthvalue.default: (ordering.kth_value, _as_given),
    _aten.median.dim: (ordering.median, _as_given),
    _aten.median.default: (ordering.median_of_all, _as_given),
    _aten.cummax.default: (ordering.running_max, _numbers),
    _aten.cummin.default: (ordering.running_min, _numbers),
    _aten.cumprod.default: (ordering.running_product, _fractions),
    _aten.searchsorted.Tensor: (ordering.search, _as_given),
    _aten.isin.Tensor_Tensor: (ordering.is_in, _as_given),
    _aten.fmax.default: (ordering.largest_known, _as_given),
    _aten.fmin.default: (ordering.smallest_known, _as_given),
    _aten.scatter_reduce.two: (ordering.scattered_mean, _means),
    _aten.add.Tensor: (dtypes.either, _conditions),
    _aten.relu.default: (dtypes.not_negative, _whole),
    _aten.floor.default: (dtypes.whole, _whole),
    _aten.ceil.default: (dtypes.whole, _whole),
    _aten.trunc.default: (dtypes.whole, _whole),
    _aten.round.default: (dtypes.whole, _whole),
    _aten.isnan.default: (dtypes.is_unknown, _of_whole),
    _aten.softmax.int: (dtypes.softmax, _of_whole),
    _aten.log_softmax.int: (dtypes.log_softmax, _of_whole),
    _aten.mean.dim: (dtypes.mean, _converted),
    _aten.mean.default: (dtypes.mean_of_all, _converted),
    _aten._is_all_true.default: (dtypes.all_true, _as_given),
    _aten._is_any_true.default: (dtypes.any_true, _as_given),
    _aten.where.self: (dtypes.chosen, _conditions),
    _aten.where.ScalarSelf: (dtypes.chosen, _conditions),
    _aten.where.ScalarOther: (dtypes.chosen, _conditions),
    _aten.masked_fill.Scalar: (dtypes.filled, _conditions),
    _aten.masked_fill.Tensor: (dtypes.filled, _conditions),
    _aten.stack.default: (dtypes.stack, _mixed),
}


def _in_place(form: Callable[..., Any]) -> Callable[..., Any]:
    return lambda held, *args: held.copy_(form(held, *args))


# By the op that makes a tensor of its own.
_IN_PLACE = {
    _aten.add_.Tensor: _aten.add.Tensor,
    _aten.relu_.default: _aten.relu.default,
    _aten.masked_fill_.Scalar: _aten.masked_fill.Scalar,
    _aten.masked_fill_.Tensor: _aten.masked_fill.Tensor,
}
_RULES |= {op: (_in_place(_RULES[own][0]), _RULES[own][1]) for op, own in _IN_PLACE.items()}

# What PyTorch traces of these holds for their sizes of the example alone.
_BY_SIZES = {
    _aten.cdist.default: forms.cdist,
    _aten.chunk.default: forms.chunk,
    _aten.take_along_dim.default: ordering.take_along,
}
