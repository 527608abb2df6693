"""Arguments and results of every shape keep their names: keywords, dicts, tuples, dataclasses."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import modelpack
from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_arguments import Arguments
from modelpack.adapters.torch_signature import FlatModel, named_outputs
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions


@dataclasses.dataclass
class Pair:
    one: Tensor
    other: Tensor | None = None


class Named(typing.NamedTuple):
    one: Tensor
    other: Tensor


class Keywords(nn.Module):
    def forward(self, one, *, other):
        return {"sum": one + other, "parts": (one - other, one * other)}


class Dict(nn.Module):
    def forward(self, batch):
        return {"difference": batch["one"] - batch["other"]}


class OneKey(nn.Module):
    def forward(self, batch: dict[str, Tensor]):
        return batch["one"] * 2


class Tuple(nn.Module):
    def forward(self, state):
        one, other = state
        return one - other, (other,)


class List(nn.Module):
    def forward(self, items: list[Tensor]):
        assert isinstance(items, list)
        return [items[0] - items[1]]


class Dataclass(nn.Module):
    def forward(self, pair: Pair | None = None):
        return Pair(pair.one - pair.other)


class NamedTuple(nn.Module):
    def forward(self, pair: Named):
        return Named(pair.one - pair.other, pair.other)


class Nested(nn.Module):
    def forward(self, x, states: tuple[tuple[Tensor, Tensor], Tensor]):
        return x - states[0][1] + states[1] - states[0][0]


class AnyNames(nn.Module):
    def forward(self, **tensors):
        return tensors["one"] - tensors["other"]


class Optional(nn.Module):
    def forward(self, one, other=None, third=None):
        return one - third if other is None else one - other


CASES: dict[str, tuple[type[nn.Module], list[str], list[str]]] = {
    "keywords": (Keywords, ["other", "one"], ["sum", "parts_0", "parts_1"]),
    "dict": (Dict, ["batch_one", "batch_other"], ["difference"]),
    "dict of one": (OneKey, ["batch_one"], ["output"]),
    "tuple": (Tuple, ["state_0", "state_1"], ["output_0", "output_1_0"]),
    "list": (List, ["items_0", "items_1"], ["output"]),
    "dataclass": (Dataclass, ["pair_other", "pair_one"], ["one"]),
    "named tuple": (NamedTuple, ["pair_one", "pair_other"], ["one", "other"]),
    "nested": (Nested, ["states_1", "x", "states_0_1", "states_0_0"], ["output"]),
    "any names": (AnyNames, ["other", "one"], ["output"]),
    "optional": (Optional, ["one", "other"], ["output"]),
    "the last optional": (Optional, ["one", "third"], ["output"]),
}


def call(model: nn.Module, feed: dict[str, Tensor]) -> object:
    """Call each model as its own code is written, without what is tested."""
    calls = {
        Keywords: lambda f: model(f["one"], other=f["other"]),
        Dict: lambda f: model({"one": f["batch_one"], "other": f["batch_other"]}),
        OneKey: lambda f: model({"one": f["batch_one"]}),
        Tuple: lambda f: model((f["state_0"], f["state_1"])),
        List: lambda f: model([f["items_0"], f["items_1"]]),
        Dataclass: lambda f: model(Pair(f["pair_one"], f["pair_other"])),
        NamedTuple: lambda f: model(Named(f["pair_one"], f["pair_other"])),
        Nested: lambda f: model(f["x"], ((f["states_0_0"], f["states_0_1"]), f["states_1"])),
        AnyNames: lambda f: model(one=f["one"], other=f["other"]),
        Optional: lambda f: model(**f),
    }
    return calls[type(model)](feed)


@pytest.mark.parametrize("name", CASES)
def test_inputs_reach_the_places_they_are_named_for(name: str) -> None:
    kind, inputs, outputs = CASES[name]
    model = kind()
    torch.manual_seed(0)
    feed = {key: torch.rand(2, 3) for key in inputs}
    expected = named_outputs(call(model, feed))
    found = FlatModel(model, inputs).named(*feed.values())
    assert [key for key, _ in found] == [key for key, _ in expected] == outputs
    for (_, got), (_, want) in zip(found, expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", ["dict", "dataclass", "nested"])
def test_their_artifacts_have_the_names(tmp_path: Path, name: str) -> None:
    kind, inputs, outputs = CASES[name]
    specs = tuple(TensorSpec.parse(f"{key}:float32[n,3]") for key in inputs)
    ref = ModelRef("torch", Encoding.PYTHON, f"{__file__}:{kind.__name__}", inputs=specs)
    signature = describe(ref).signature
    settled = dataclasses.replace(ref, signature=signature)
    to_onnx(settled, str(tmp_path / "m.onnx"), StepOptions())
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_outputs()] == outputs
    torch.manual_seed(1)
    feed = {key: torch.rand(4, 3) for key in inputs}
    got = session.run(None, {key: tensor.numpy() for key, tensor in feed.items()})
    for one, (_, other) in zip(got, named_outputs(call(kind(), feed)), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "names", "says"),
    [
        (Keywords, ["one", "another"], "do not fit"),
        (Keywords, ["one"], "missing a required argument: 'other'"),
        (Dict, ["one", "other"], "too many positional"),
        (Optional, ["other", "x"], "number 1 of the described inputs"),
    ],
)
def test_names_that_fit_nowhere_are_refused(
    kind: type[nn.Module], names: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Arguments(kind(), names)


class Scripted(nn.Module):
    def forward(self, batch: dict[str, Tensor], state: tuple[Tensor, Tensor]) -> Tensor:
        return batch["one"] - state[0] + state[1] * batch["other"]


def test_a_live_script_module_takes_parts_too(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(Scripted())
    names = ["batch_one", "state_0", "state_1", "batch_other"]
    manifest = modelpack.convert(
        model, tmp_path / "m.onnx", inputs=[f"{name}:float32[n,3]" for name in names]
    )
    assert [spec.name for spec in manifest.signatures[0].inputs] == names
    assert manifest.artifacts[0].parity
