"""Modules with compiled parts, custom ops, tied weights and buffers that are not saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_exporting import save_program
from modelpack.adapters.torch_loading import without_compilation
from modelpack.adapters.torch_weights import apply_weights
from modelpack.adapters.torch_wide import widen
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import UnsupportedOpsError, UntrustedSourceError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions
from tests.thinned import thinned

NETS = """
import torch
from torch import nn


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.compile(nn.Sequential(nn.Linear(4, 6), nn.Tanh()))
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.body(x))


@torch.compile
def scaled(x):
    return torch.sin(x) + 1


class Function(nn.Linear):
    def forward(self, x):
        return scaled(super().forward(x))


@torch.library.custom_op("tests_of_parts::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@doubled.register_fake
def _(x):
    return torch.empty_like(x)


class Custom(nn.Linear):
    def forward(self, x):
        return doubled(super().forward(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(300, 16)
        self.head = nn.Linear(16, 300, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("places", torch.randn(20, 16), persistent=False)

    def forward(self, ids):
        return self.head(self.table(ids) + self.places[: ids.shape[1]])


class Masked(nn.Module):
    def forward(self, x, mask):
        hidden = mask[:, None, None, :].bool()
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=hidden)


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


part = lambda: seeded(Part)
whole = lambda: torch.compile(seeded(lambda: nn.Linear(4, 3)))
function = lambda: seeded(lambda: Function(4, 3))
custom = lambda: seeded(lambda: Custom(4, 3))
tied = lambda: seeded(Tied)
masked = lambda: seeded(Masked)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


@pytest.fixture(autouse=True)
def eager() -> object:
    """Loading a model turns the compiler off; other tests have it as it was."""
    yield
    torch.compiler.set_stance("default")


def described(location: str, *specs: str) -> ModelRef:
    inputs = tuple(map(TensorSpec.parse, specs))
    ref = ModelRef("torch", Encoding.PYTHON, location, inputs=inputs)
    signature = describe(ref).signature
    return ModelRef("torch", Encoding.PYTHON, location, inputs=inputs, signature=signature)


def exported(file: Path, name: str, *specs: str) -> Path:
    target = file.with_name("model.onnx")
    to_onnx(described(f"{file}:{name}", *specs), str(target), StepOptions())
    return target


def original(name: str) -> nn.Module:
    """The module of a factory, without what was compiled of it."""
    source: dict[str, object] = {}
    exec(NETS.replace("tests_of_parts", f"tests_of_{name}"), source)
    torch.compiler.set_stance("force_eager")
    return without_compilation(source[name]())


def agrees(target: Path, model: nn.Module, *inputs: Tensor) -> None:
    session = onnxruntime.InferenceSession(target)
    names = [item.name for item in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    [made] = session.run(None, feed)
    np.testing.assert_allclose(made, model(*inputs).detach().numpy(), rtol=1e-5, atol=1e-6)


# --- compiled ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", thinned(["part", "whole", "function"], 3))
def test_compiled_parts_are_exported_as_they_were_written(
    file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.compile_fx as inductor

    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("nothing has to be compiled")

    monkeypatch.setattr(inductor, "compile_fx", compiled)
    target = exported(file, name, "x:float32[batch,4]")
    agrees(target, original(name), torch.randn(5, 4))


@pytest.mark.slow
def test_weights_of_a_compiled_part_fit_with_and_without_its_name(
    file: Path, tmp_path: Path
) -> None:
    source: dict[str, object] = {}
    exec(NETS, source)
    saved = source["Part"]()
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    assert "body._orig_mod.0.weight" in saved.state_dict()
    plain = without_compilation(source["Part"]())
    assert "body.0.weight" in plain.state_dict()
    apply_weights(plain, tmp_path / "w.pt")
    assert torch.equal(plain.last.weight, saved.last.weight)
    assert torch.equal(plain.body[0].weight, saved.state_dict()["body._orig_mod.0.weight"])


def test_a_live_compiled_module_is_saved(file: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    save_program(
        torch.compile(plain), (TensorSpec.parse("x:float32[batch,4]"),), tmp_path / "m.pt2"
    )
    x = torch.randn(6, 4)
    [made] = torch.export.load(tmp_path / "m.pt2").module()(x)
    torch.testing.assert_close(made, plain(x), rtol=1e-6, atol=1e-6)


# --- custom ops --------------------------------------------------------------------------


def test_a_custom_op_is_refused_by_name(file: Path) -> None:
    with pytest.raises(UnsupportedOpsError, match=r"tests_of_parts\.doubled.* at .*nets\.py:\d+"):
        exported(file, "custom", "x:float32[batch,4]")


def test_a_plug_in_writes_a_custom_op(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "ops_of_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ops-of-parts\nVersion: 1.0\n")
    points = "[modelpack.torch_ops]\ntests_of_parts.doubled = ops_of_parts:doubled\n"
    (info / "entry_points.txt").write_text(points + "nowhere.op = ops_of_parts:doubled\n")
    (tmp_path / "site" / "ops_of_parts.py").write_text(
        "from onnxscript import opset18\n\n\ndef doubled(x):\n    return opset18.Add(x, x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    target = exported(file, "custom", "x:float32[batch,4]")
    agrees(target, original("custom"), torch.randn(5, 4))


def test_a_program_with_a_custom_op_is_refused_by_name(tmp_path: Path) -> None:
    """Without trust, since loading looks the op up; with it, since nothing defines the op."""
    with torch.library._scoped_library("tests_of_files", "FRAGMENT") as library:
        library.define("tripled(Tensor x) -> Tensor")
        library.impl("tripled", lambda x: x * 3, "CompositeExplicitAutograd")

        class Custom(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return torch.ops.tests_of_files.tripled(super().forward(x))

        program = torch.export.export(Custom(4, 3), (torch.randn(2, 4),))
        torch.export.save(program, tmp_path / "m.pt2")
    ref = ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "m.pt2"))
    with pytest.raises(UntrustedSourceError, match=r"tests_of_files\.tripled"):
        describe(ref)
    trusted = ModelRef("torch", Encoding.TORCH_EXPORT, ref.location, trusted=True)
    with pytest.raises(UnsupportedOpsError, match=r"tests_of_files\.tripled") as refused:
        describe(trusted)
    assert "--import" in refused.value.hint


def test_ops_on_booleans_need_no_trust(tmp_path: Path) -> None:
    class And(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * ((x > 0) & (x < 1))

    program = torch.export.export(And(), (torch.randn(2, 4),))
    torch.export.save(program, tmp_path / "m.pt2")
    assert any("__and__" in str(node.target) for node in program.graph.nodes)
    assert describe(ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "m.pt2"))).ops


# --- tied weights, buffers, masks ----------------------------------------------------------


def test_tied_weights_and_unsaved_buffers_are_exported(file: Path) -> None:
    target = exported(file, "tied", "ids:int64[batch,length]")
    agrees(target, original("tied"), torch.randint(0, 300, (2, 7)))


def test_attention_that_a_mask_hides_whole_is_zero(file: Path) -> None:
    target = exported(file, "masked", "x:float32[batch,2,seq,8]", "mask:int64[batch,seq]")
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    agrees(target, original("masked"), torch.randn(2, 2, 3, 8), mask)
    names = {name for node in onnx.load(target).graph.node for name in node.input}
    assert {item.name for item in onnx.load(target).graph.initializer} <= names


@pytest.mark.slow
def test_a_program_in_float64_leaves_its_graphs_of_contexts_alone(tmp_path: Path) -> None:
    class Rotary(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                angle = x.to(torch.float32) * 2
            return torch.sin(angle)

    program = torch.export.export(Rotary(), (torch.randn(2, 4),))
    assert [node for node in program.graph.nodes if "wrap_with_autocast" in str(node.target)]
    before = program.graph_module.print_readable(print_output=False)
    x = torch.randn(2, 4, dtype=torch.float64)
    module = program.module(check_guards=False)
    widen(program, module)
    torch.testing.assert_close(module(x), torch.sin(x * 2), rtol=1e-12, atol=1e-12)
    assert program.graph_module.print_readable(print_output=False) == before
    torch.onnx.export(program, dynamo=True, verbose=False)
