"""Code that decides by a size which no example has."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpack.adapters.torch import to_onnx
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

NET = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        if {condition}:
            return x * 2
        return x + 1
"""


def reference(directory: Path, condition: str) -> ModelRef:
    file = directory / "net.py"
    file.write_text(NET.format(condition=condition))
    inputs = (TensorSpec.parse("x:float32[batch,4]"),)
    return ModelRef("torch", Encoding.PYTHON, f"{file}:Net", inputs=inputs)


@pytest.mark.parametrize(
    "condition", ["x.shape[0] == 30", "len(x) == 600", "x.shape[0] // 8 == 75"]
)
def test_a_branch_at_one_size_is_found_however_large_it_is(condition: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="answers otherwise than what PyTorch traced"):
        to_onnx(reference(tmp_path, condition), str(tmp_path / "net.onnx"), StepOptions())
