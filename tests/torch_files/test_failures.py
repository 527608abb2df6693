"""Why a module cannot be exported: said at the line of its code, without the exporter's advice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelpack.adapters.torch import describe, to_onnx
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError, ModelpackError, UnsupportedOpsError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

NET = """
import torch


class Branch(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


class Ops(torch.nn.Module):
    def forward(self, x):
        values = torch.linalg.svd(x)[1]
        return torch.special.bessel_j0(values)


class Packed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        lengths = torch.full((x.shape[0],), 2)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.layer(packed)[1]


class Wrong(torch.nn.Module):
    def forward(self, x):
        return x @ torch.ones(5, 2)


class Draws(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5)


class Counts(torch.nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Attention(torch.nn.Module):
    def forward(self, q):
        mixed = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        return mixed.transpose(1, 2).reshape(q.shape[0], q.shape[2], -1)


class Turns(torch.nn.Module):
    def forward(self, x):
        turned = 1j * x
        return turned.imag


class Groups(torch.nn.Module):
    def forward(self, x):
        rows = x.reshape(1, -1, 5)
        return torch.nn.functional.conv1d(rows, x.reshape(-1, 1, 1), groups=rows.shape[1])
"""


def export(directory: Path, name: str, spec: str) -> dict[str, object]:
    file = directory / "net.py"
    file.write_text(NET)
    specs = (TensorSpec.parse(spec),)
    ref = ModelRef("torch", Encoding.PYTHON, f"{file}:{name}", inputs=specs)
    found = describe(ref)
    settled = ModelRef("torch", ref.encoding, ref.location, inputs=specs, signature=found.signature)
    return dict(to_onnx(settled, str(directory / "m.onnx"), StepOptions()).options)


CASES = {
    "Branch": (5, "x:float32[batch,4]", r"net\.py:7 \(if x\.sum\(\) > 0:\)", "torch.where"),
    "Packed": (5, "x:float32[batch,2,4]", r"net\.py:2\d .*packed sequence", "padded"),
    "Draws": (2, "x:float32[batch,4]", r"random numbers at net\.py:36 \(return", "compared"),
    "Counts": (2, "x:float32[batch,4]", "two runs on .*keeps state", "compared"),
    "Turns": (5, "x:float32[batch,4]", r"net\.py:\d+ \(turned = .*complex numbers", "imaginary"),
    "Groups": (5, "x:float32[batch,1,5]", r"net\.py:\d+ \(return .*dynamic sizes", "--input"),
    "Wrong": (2, "x:float32[batch,4]", r"net\.py:\d+ \(return x @ torch\.ones\(5, 2\)\)", "check"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_line_of_the_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, spec, says, hint = CASES[name]
    with pytest.raises(ModelpackError, match=says) as caught:
        export(tmp_path, name, spec)
    assert caught.value.exit_code == code
    assert hint in caught.value.hint
    assert "\x1b" not in caught.value.message
    assert "Next steps" not in caught.value.message
    assert str(tmp_path) not in caught.value.message  # relative to where the user is


def test_every_missing_op_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpsError, match="2 ops") as caught:
        export(tmp_path, "Ops", "x:float32[batch,4]")
    assert "aten._linalg_svd.default at" in caught.value.message
    assert "bessel_j0(values)" in caught.value.message


def test_attention_whose_fused_form_has_no_view_is_exported_by_its_math(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.onnx.export
    kernels = []

    def failing_once(*args: object, **kwargs: object) -> object:
        kernels.append(torch.backends.cuda.flash_sdp_enabled())
        if kernels[-1]:
            raise RuntimeError("Cannot view a tensor with shape (s0, 2)")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", failing_once)
    assert export(tmp_path, "Attention", "q:float32[batch,2,t,4]")["attention"] == "math"
    assert kernels == [True, False]


def test_a_failure_of_another_kind_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(*args: object, **kwargs: object) -> object:
        calls.append(kwargs["dynamo"])
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(ModelpackError, match="something else"):
        export(tmp_path, "Attention", "q:float32[batch,2,t,4]")
    assert calls == [True]  # and never the tracer, which would keep one side of a branch


SIZES = """
import torch


class Sevens(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.size(0) % 7 == 0 else x * 3


class Alike(torch.nn.Module):
    def forward(self, x):
        return x + x if x.size(0) % 7 == 0 else x * 2
"""


def sizes(directory: Path, name: str) -> None:
    (directory / "sizes.py").write_text(SIZES)
    ref = ModelRef(
        "torch",
        Encoding.PYTHON,
        f"{directory / 'sizes.py'}:{name}",
        inputs=(TensorSpec.parse("x:float32[batch,4]"),),
    )
    to_onnx(ref, str(directory / "m.onnx"), StepOptions())


def test_a_branch_on_what_a_size_is_divisible_by_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="at batch=7 it answers otherwise"):
        sizes(tmp_path, "Sevens")


def test_a_branch_whose_sides_agree_is_converted(tmp_path: Path) -> None:
    sizes(tmp_path, "Alike")
