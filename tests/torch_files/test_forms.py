"""Code that fixes a size where it need not: traced in an equal form, or named with its line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_exporting import save_program
from modelpack.adapters.torch_forms import traceable
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_transformers_forms import transformers_forms
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

NETS = """
import torch


class Length(torch.nn.Module):
    def forward(self, x, y):
        if len(x) != len(y):
            raise ValueError("as many of both")
        return x + y + torch.arange(len(x))[:, None] + len([1, 2])


class Parts(torch.nn.Module):
    def forward(self, x, y):
        first, second = torch.cat([x, y]).chunk(2)
        one, other, third = torch.cat([x, y * 2, y]).chunk(3, dim=0)
        left, right = y.chunk(3, 1)  # of four: two and two
        return first - second * 2 + one * other + third + torch.cat([right, left], 1)


class Loop(torch.nn.Module):
    def forward(self, x, y):
        rows = [x[i] * (i + 1) for i in range(x.shape[0])]
        return torch.stack(rows) + y


class Half(torch.nn.Module):
    def forward(self, x, y):
        half = int(x.shape[0] / 2)
        return x[:half] + y[:half]


class Uneven(torch.nn.Module):
    def forward(self, x, y):
        left, right = torch.cat([x, x[:1]]).chunk(2)
        first, last = torch.cat([y, y[:2]]).chunk(2)
        return left.sum(0) + right.sum(0) + first.sum(0) * last.sum(0)


class AxialPositionEmbeddings(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.axial_pos_shape = (3, 4)
        parts = [torch.randn(3, 1, 2), torch.randn(1, 4, 5)]
        self.weights = torch.nn.ParameterList(parts)

    def forward(self, position_ids):
        wide = [part.expand(3, 4, part.shape[-1]).flatten(0, 1) for part in self.weights]
        rows = [torch.cat(wide, -1)[ids] for ids in position_ids]
        return torch.stack(rows)


AxialPositionEmbeddings.__module__ = "transformers.models.reformer.modeling_reformer"


class Positions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = AxialPositionEmbeddings()

    def forward(self, x, y):
        return self.layer(torch.arange(12).expand(x.shape[0], 12)) + x + y
"""


def reference(directory: Path, name: str, rows: int | str = "batch", columns: int = 4) -> ModelRef:
    file = directory / "net.py"
    file.write_text(NETS)
    texts = [f"{one}:float32[{rows},{columns}]" for one in "xy"]
    if name == "Positions":
        texts = [f"{one}:float32[{rows},12,7]" for one in "xy"]
    specs = tuple(map(TensorSpec.parse, texts))
    ref = ModelRef("torch", Encoding.PYTHON, f"{file}:{name}", inputs=specs)
    return dataclasses.replace(ref, signature=describe(ref).signature)


@pytest.mark.parametrize("name", ["Length", "Positions", "Parts"])
def test_it_is_exported_for_any_batch_and_left_as_it_was(tmp_path: Path, name: str) -> None:
    ref = reference(tmp_path, name)
    model = load(ref)
    before = [set(vars(part)) for part in model.modules()]

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    assert [set(vars(part)) for part in model.modules()] == before
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for rows in (1, 2, 7):
        shape = [rows, *session.get_inputs()[0].shape[1:]]
        draws = np.random.default_rng(rows)
        feed = {one: draws.normal(size=shape).astype(np.float32) for one in "xy"}
        want = model(*map(torch.from_numpy, feed.values())).numpy()
        np.testing.assert_allclose(session.run(None, feed)[0], want, rtol=1e-6, atol=1e-6)


def test_len_is_pythons_own_again_and_of_other_things_always(tmp_path: Path) -> None:
    model = load(reference(tmp_path, "Length"))
    names = type(model).forward.__globals__

    with traceable(model):
        assert names["len"]([1, 2, 3]) == 3
        assert type(names["len"](torch.zeros(2, 5))) is int
        with pytest.raises(TypeError, match="0-d tensor"):
            names["len"](torch.zeros(()))

    assert "len" not in names


FIXING = {
    "Loop": r"net\.py:\d+ \(rows = \[x\[i\]",
    "Half": r"net\.py:\d+ \(half = int\(x\.shape\[0\] / 2\)\)",
    "Uneven": r"net\.py:\d+ \(left, right = .* or at .*net\.py:\d+ \(first, last =",
}


@pytest.mark.parametrize("name", FIXING)
def test_a_size_that_code_fixes_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    ref = reference(tmp_path, name)

    with pytest.raises(
        ConversionError, match="'batch' cannot stay open.*" + FIXING[name]
    ) as caught:
        to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())
    assert "--input 'x:float32[1,4]' --input 'y:float32[1,4]'" in caught.value.hint

    with pytest.raises(ConversionError, match="'batch' cannot stay open.*" + FIXING[name]):
        save_program(load(ref), ref.inputs, tmp_path / "net.pt2")


def test_it_is_converted_with_a_fixed_size_then(tmp_path: Path) -> None:
    ref = reference(tmp_path, "Loop", rows=3)

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    feed = {"x": np.ones((3, 4), np.float32), "y": np.zeros((3, 4), np.float32)}
    want = np.arange(1, 4, dtype=np.float32)[:, None].repeat(4, 1)
    np.testing.assert_array_equal(session.run(None, feed)[0], want)


class LongformerSelfAttention(torch.nn.Module):
    """Each row attends to its window and to global rows, a global row to all: one by one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_heads, self.head_dim, self.one_sided_attn_window_size = 2, 3, 2
        for name in ("query", "key", "value", "query_global", "key_global", "value_global"):
            setattr(self, name, torch.nn.Linear(6, 6))

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        is_index_masked: torch.Tensor,
        is_index_global_attn: torch.Tensor,
        is_global_attn: bool,
    ) -> tuple[torch.Tensor]:
        made = torch.zeros_like(hidden_states)
        for batch, kinds in enumerate(attention_mask.sign().int().tolist()):
            for row, kind in enumerate(kinds):
                near = range(row - 2, row + 3)
                keys = [
                    j for j, other in enumerate(kinds) if other > 0 or (not other and j in near)
                ]
                keys = [j for j, other in enumerate(kinds) if other >= 0] if kind > 0 else keys
                if kind >= 0:
                    made[batch, row] = self.attended(hidden_states[batch], row, keys, kind > 0)
        return (made,)

    def attended(
        self, states: torch.Tensor, row: int, keys: list[int], is_global: bool
    ) -> torch.Tensor:
        query, key, value = (
            getattr(self, name + "_global" * is_global)(states).view(-1, 2, 3)
            for name in ("query", "key", "value")
        )
        scores = torch.einsum("hd,khd->hk", query[row], key[keys]) / 3**0.5
        return torch.einsum("hk,khd->hd", scores.softmax(-1), value[keys]).flatten()


LongformerSelfAttention.__module__ = "transformers.models.longformer.modeling_longformer"


def test_attention_to_windows_and_global_tokens_is_the_same_by_masks() -> None:
    layer = LongformerSelfAttention().eval()
    kinds = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, -1, -1], [0] * 8, [-1] * 8])
    mask = kinds * torch.finfo(torch.float32).max
    states = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(1))
    feed = states, mask, mask < 0, mask > 0, True

    with torch.no_grad():
        want = layer(*feed)[0]
        with transformers_forms(layer):
            made = layer(*feed)[0]
            program = torch.export.export(layer, feed)

    torch.testing.assert_close(made, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(program.module()(*feed)[0], want, rtol=1e-5, atol=1e-6)


def test_a_saved_program_keeps_its_dimensions_open(tmp_path: Path) -> None:
    ref = reference(tmp_path, "Parts")
    save_program(load(ref), ref.inputs, tmp_path / "net.pt2")
    saved = ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "net.pt2"))

    to_onnx(saved, str(tmp_path / "net.onnx"), StepOptions())

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x, y = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    want = load(ref)(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    got = session.run(None, {"tensors_0": x, "tensors_1": y})[0]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
