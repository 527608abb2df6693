"""Code under ``torch.no_grad()``, which exported programs keep as regions of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_exporting import save_program
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions


class Unused(torch.nn.Module):
    """A part computes without gradients, and nothing uses what it computes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _ = torch.relu(x + 1)
        return x * 2


class Changing(torch.nn.Module):
    """Such a part changes what is read under another name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        row = y[0]
        with torch.no_grad():
            row.mul_(3)
        return y + 1


def saved(model: torch.nn.Module, directory: Path) -> ModelRef:
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.zeros(2, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, directory / "net.pt2")
    return ModelRef("torch", Encoding.TORCH_EXPORT, str(directory / "net.pt2"))


def test_a_region_that_nothing_uses_is_left_out(tmp_path: Path) -> None:
    ref = saved(Unused(), tmp_path)
    with pytest.raises(Exception, match="missing val field"):
        torch.export.load(ref.location)  # what is repaired here

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    assert describe(ref).signature.dynamic_dims == ("batch",)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(session.run(None, {session.get_inputs()[0].name: x})[0], 2 * x)


def test_a_region_that_changes_something_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot load") as caught:
        describe(saved(Changing(), tmp_path))

    assert "torch.no_grad()" in caught.value.hint


def test_a_live_module_with_such_a_part_is_saved(tmp_path: Path) -> None:
    save_program(Unused(), (TensorSpec.parse("x:float32[batch,3]"),), tmp_path / "net.pt2")

    loaded = torch.export.load(tmp_path / "net.pt2").module()

    assert torch.equal(loaded(torch.ones(5, 3))[0], torch.full((5, 3), 2.0))
