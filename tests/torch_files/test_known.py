"""Whole numbers in buffers that code decides on, as EnCodec keeps strides and paddings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_exporting import save_program
from modelpack.adapters.torch_known import Known, known_numbers
from modelpack.adapters.torch_loading import load
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

NETS = """
import torch
from torch.nn import functional


class Padded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("stride", torch.tensor(4))
        self.register_buffer("size", torch.tensor(7), persistent=False)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x):
        rest = (x.shape[-1] - self.size) / self.stride
        right = (torch.ceil(rest).to(torch.int64) * self.stride + self.size - x.shape[-1]) // 2
        left = max(self.size - self.stride, right)
        if x.shape[-1] <= left:
            raise ValueError("too short")
        padded = functional.pad(x, (left, right), "reflect")
        return padded[..., : -self.stride.item()] * self.scale + self.stride


class Counting(Padded):
    def forward(self, x):
        self.stride.fill_(3)
        return x * 2 if self.stride > 2 else x


class Added(Padded):
    def forward(self, x):
        self.stride += 1
        return x * 2 if self.stride > 2 else x


class Replaced(Padded):
    def forward(self, x):
        self.stride = self.stride + 1
        return x * 2 if self.stride > 2 else x


class Plain(Padded):
    def forward(self, x):
        self.stride.fill_(3)
        return x * self.stride
"""


def reference(directory: Path, name: str) -> ModelRef:
    file = directory / "net.py"
    file.write_text(NETS)
    specs = (TensorSpec.parse("x:float32[batch,1,18]"),)
    ref = ModelRef("torch", Encoding.PYTHON, f"{file}:{name}", inputs=specs)
    return dataclasses.replace(ref, signature=describe(ref).signature)


def test_they_are_constants_of_the_artifact_and_buffers_again(tmp_path: Path) -> None:
    ref = reference(tmp_path, "Padded")
    model = load(ref)

    result = to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())
    save_program(model, ref.inputs, tmp_path / "net.pt2")

    assert result.options["buffers"] == "constant"  # PyTorch itself did not export it
    assert {*dict(model.named_buffers())} == {"stride", "size", "scale"}
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    program = torch.export.load(tmp_path / "net.pt2").module()
    for rows in (1, 5):
        x = torch.randn(rows, 1, 18, generator=torch.Generator().manual_seed(rows))
        answer = model(x).numpy()
        assert answer.shape == (rows, 1, 17)
        np.testing.assert_array_equal(session.run(None, {"x": x.numpy()})[0], answer)
        np.testing.assert_array_equal(program(x)[0].numpy(), answer)


@pytest.mark.parametrize("name", ["Counting", "Added", "Replaced"])
def test_a_number_that_is_changed_is_no_constant(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="a number in a buffer that it changes"):
        to_onnx(reference(tmp_path, name), str(tmp_path / "net.onnx"), StepOptions())


def test_what_pytorch_exports_by_itself_is_left_to_it(tmp_path: Path) -> None:
    ref = reference(tmp_path, "Plain")

    result = to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    assert "buffers" not in result.options
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x = np.ones((2, 1, 18), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], 3 * x)


def test_numbers_follow_the_dtypes_of_tensors() -> None:
    numbers = torch.nn.Module()
    numbers.register_buffer("seven", torch.tensor(7, dtype=torch.int32))
    numbers.__class__ = type("Numbers", (torch.nn.Module,), {})
    real = numbers.seven

    with known_numbers(numbers):
        seven = numbers.seven
        assert isinstance(seven, Known)
        for compute in (
            lambda n: n / 2,
            lambda n: 2 - n,
            lambda n: n // 2 + n % 4,
            lambda n: -n,
            torch.sqrt,
            lambda n: n.to(torch.float16) ** 2,
            lambda n: n > 3,
            lambda n: torch.maximum(n, n * 2).float(),
        ):
            known, tensor = compute(seven), compute(real)
            assert (known.value, known.dtype) == (tensor.item(), tensor.dtype)
        assert torch.equal(seven * torch.ones(2), torch.full((2,), 7.0))
        assert [10, 20, 30, 40, 50, 60, 70, 80][seven] == 80
        assert (seven.dim(), seven.item(), int(seven)) == (0, 7, 7)
    assert numbers.seven is real
