"""Whole numbers that are taken from a fraction: the usual form of masks in attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_promotion import promoted
from modelpack.artifact import Encoding, ModelRef
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

NET = """
import torch


class Mask(torch.nn.Module):
    def forward(self, mask):
        return (1.0 - mask) * -1e4 + torch.rsub(mask.int(), 2.5, alpha=3)


MODEL = Mask()
"""
MASK = np.array([[1, 0, 1, 1], [0, 1, 7, 0], [1, 1, 1, 1]], np.int64)


@pytest.mark.parametrize("kind", ["module", "program"])
def test_whole_numbers_taken_from_a_fraction_are_exported(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "net.py"
    file.write_text(NET)
    specs = (TensorSpec.parse("mask:int64[batch,n]"),)
    ref = ModelRef("torch", Encoding.PYTHON, f"{file}:MODEL", inputs=specs)
    space: dict[str, type[torch.nn.Module]] = {}
    exec(NET, space)
    model = space["Mask"]()
    if kind == "program":
        dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("n")}
        program = torch.export.export(
            model, (torch.ones(2, 3, dtype=torch.int64),), dynamic_shapes=(dims,)
        )
        torch.export.save(program, tmp_path / "net.pt2")
        ref = ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "net.pt2"))
    target = tmp_path / "net.onnx"

    to_onnx(replace(ref, signature=describe(ref).signature), str(target), StepOptions())

    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(
        session.run(None, {"mask": MASK})[0], model(torch.from_numpy(MASK)).numpy()
    )


def test_the_program_itself_stays_as_it_was() -> None:
    class Net(torch.nn.Module):
        def forward(self, mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return (1.0 - mask) * x + (1.0 - x) + (1 - mask)

    inputs = (torch.tensor([[1, 0]]), torch.tensor([[0.5, 2.0]]))
    program = torch.export.export(Net(), inputs)
    before = str(program.graph)

    changed = promoted(program)

    assert str(program.graph) == before
    assert str(changed.graph).count("aten.to.dtype") == 1
    assert torch.equal(changed.module()(*inputs), Net()(*inputs))
    assert promoted(changed) is changed
