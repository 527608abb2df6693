"""TorchScript: artifacts answer what the loaded script module answers, or are refused."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from modelpack.adapters.torch import describe, run, to_onnx
from modelpack.adapters.torch_scan import scan
from modelpack.adapters.torch_trace import trace
from modelpack.artifact import Encoding, ModelRef, detect
from modelpack.errors import ConversionError, InputError, UntrustedSourceError
from modelpack.samples import read_cases, write_cases
from modelpack.signature import TensorSpec
from modelpack.steps import RunOptions, StepOptions

from . import modules

RTOL, ATOL = 1e-5, 1e-6
X = "x:float32[batch,4]"


def saved(directory: Path, module: nn.Module, example: tuple[torch.Tensor, ...] = ()) -> Path:
    """Script a module, or trace it where an example is given, and save it."""
    path = directory / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module, example) if example else torch.jit.script(module)
        torch.jit.save(made, path)
    return path


def opened(path: Path, *inputs: str) -> ModelRef:
    specs = tuple(TensorSpec.parse(text) for text in inputs)
    ref = ModelRef("torch", detect(path), str(path), inputs=specs)
    assert ref.encoding is Encoding.TORCHSCRIPT
    found = describe(ref)
    return ModelRef("torch", ref.encoding, str(path), inputs=specs, signature=found.signature)


def converted(ref: ModelRef) -> onnxruntime.InferenceSession:
    target = ref.path.with_suffix(".onnx")
    to_onnx(ref, str(target), StepOptions())
    return onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])


def compare(session: onnxruntime.InferenceSession, path: Path, *tensors: torch.Tensor) -> None:
    """Compare with what PyTorch answers by itself."""
    with torch.no_grad():
        answer = torch.jit.load(path).eval()(*tensors)
    expected = (
        [*answer.values()]
        if isinstance(answer, dict)
        else [*answer]
        if isinstance(answer, tuple)
        else [answer]
    )
    feed = {item.name: x.numpy() for item, x in zip(session.get_inputs(), tensors, strict=True)}
    for got, want in zip(session.run(None, feed), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=RTOL, atol=ATOL)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_one_weight_of_two_names(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.TiedWeights())
    session = converted(opened(path, "ids:int64[batch,seq]"))
    compare(session, path, torch.randint(0, 10, (3, 5)))


def test_both_sides_of_a_branch_on_values(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.BranchOnValues())
    session = converted(opened(path, X))
    for rows, sign in itertools.product((2, 5), (1.0, -1.0)):
        compare(session, path, sign * torch.rand(rows, 4))
    compare(session, path, torch.tensor([[200.0, 0.0, 0.0, 0.0]]))  # the second condition


def test_a_branch_on_a_size_is_no_silent_choice(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.BranchOnSize())
    with pytest.raises(ConversionError, match=r"depends on the size of 'batch'.*also takes 5"):
        converted(opened(path, X))
    compare(converted(opened(path, "x:float32[6,4]")), path, torch.rand(6, 4))


REFUSED = {
    "in place": (modules.ChangesInBranch, r"in place at .*modules\.py:\d+: y\.mul_\(2\)"),
    "loop": (modules.EndlessLoop, r"turns of a loop depends on values at .*modules\.py:\d+"),
    "number": (modules.BranchOnWholeNumber, r"a number that was made of values at .*modules\.py"),
    "shapes": (modules.RowsTimesColumns, r"gives shapes .* on its two sides at .*modules\.py:\d+"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_graph_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    module, says = REFUSED[name]
    with pytest.raises(ConversionError, match=says):
        converted(opened(saved(tmp_path, module()), X))


def test_arguments_lists_loops_and_named_outputs(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.Everything().eval())
    ref = opened(path, "ids:int64[batch,time]", "mask:float32[batch,time]")
    session = converted(ref)
    assert [item.name for item in session.get_outputs()] == ["mean", "all"]
    for shape in ((2, 5), (3, 1), (1, 7)):
        compare(session, path, torch.randint(0, 30, shape), torch.rand(shape))


def test_integers_stay_within_the_embedding(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.Everything().eval())
    found = describe(
        ModelRef("torch", detect(path), str(path), inputs=(TensorSpec.parse("ids:int64[b,t]"),))
    )
    assert found.ranges["ids"].high == (29.0,)
    assert found.ops["Linear"] == 3


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("make", "spec", "sizes"),
    [
        (modules.convolutions, "image:float32[batch,3,8,8]", [(2, 3, 8, 8), (5, 3, 8, 8)]),
        (modules.encoder, "src:float32[batch,time,8]", [(2, 7, 8), (3, 4, 8)]),
        (modules.Recurrent, "x:float32[batch,time,4]", [(2, 7, 4), (3, 9, 4)]),
    ],
)
def test_scripted_and_traced_layers(tmp_path: Path, make, spec, sizes, traced: bool) -> None:
    module = make().eval()
    path = saved(tmp_path, module, (torch.rand(sizes[0]),) if traced else ())
    session = converted(opened(path, spec if not traced else spec.replace("image", "input")))
    for shape in sizes:
        compare(session, path, torch.rand(shape))


def test_the_reference_is_the_script_module(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.BranchOnValues())
    ref = opened(path, X)
    x = torch.rand(3, 4)
    feeds, answers = tmp_path / "feeds.npz", tmp_path / "answers.npz"
    write_cases(feeds, [{"x": x.numpy()}])
    run(ref, str(feeds), str(answers), RunOptions())
    assert ref.signature is not None
    got = read_cases(answers, ref.signature.outputs)[0]["output"]
    with torch.no_grad():
        assert np.array_equal(got, torch.jit.load(path)(x).numpy())


def test_its_operations_can_be_traced(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.BranchOnValues())
    feeds = tmp_path / "feeds.npz"
    write_cases(feeds, [{"x": np.ones((2, 4), np.float32)}])
    probes = trace(opened(path, X), str(feeds), str(tmp_path / "trace.npz"))
    assert "addmm" in {probe.op for probe in probes}


def test_the_inputs_must_be_said(tmp_path: Path) -> None:
    path = saved(tmp_path, modules.BranchOnValues())
    with pytest.raises(InputError, match=r"does not say its inputs: forward takes \(x\)"):
        opened(path)


def test_a_file_that_writes_while_it_is_loaded_is_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / "written"
    path = saved(tmp_path, modules.WritesOnLoad(str(target)))
    torch.jit.load(path)
    assert target.exists(), "TorchScript runs __setstate__, so the scan has something to find"
    target.unlink()
    ref = ModelRef("torch", Encoding.TORCHSCRIPT, str(path))
    assert any("'save'" in finding for finding in scan(ref))
    with pytest.raises(UntrustedSourceError, match="save"):
        describe(ref)
    assert not target.exists()


@pytest.mark.parametrize(
    "line",
    [
        "y = torch.from_file('f', True, 3)",
        "y = ops.c10d.barrier(x)",
        "y = ops . aten . neg(x)",
        "y = torch.neg(x) # c",
        "y = __torch__.torch.classes.rpc.Thing(x)",
    ],
)
def test_code_that_reaches_outside_is_found(tmp_path: Path, line: str) -> None:
    import zipfile

    path = saved(tmp_path, modules.BranchOnSize())
    changed = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(changed, "w") as bad:
        for member in good.namelist():
            content = good.read(member)
            if member.endswith("modules.py"):
                content += f"\ndef f(x: Tensor) -> Tensor:\n  {line}\n  return y\n".encode()
            bad.writestr(member, content)
    plain, odd = (ModelRef("torch", Encoding.TORCHSCRIPT, str(file)) for file in (path, changed))
    assert scan(plain) == []
    assert scan(odd)
