"""Guards of exported programs, which PyTorch evaluates as Python when it loads them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from modelpack.adapters.torch_scan import scan
from modelpack.artifact import Encoding, ModelRef


def guarded(directory: Path, guard: str) -> ModelRef:
    """A program whose sizes are guarded by this expression."""
    plain, path = directory / "plain.pt2", directory / "net.pt2"
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(4, 3),))
    torch.export.save(program, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("models/model.json"):
                content = json.dumps(json.loads(content) | {"guards_code": [guard]}).encode()
            target.writestr(name, content)
    return ModelRef("torch", Encoding.TORCH_EXPORT, str(path))


@pytest.mark.parametrize(
    "guard",
    [
        "L['args'][0].size()[0] == 4",
        "(L['x'].size()[1]*max(1, (4*L['x'].size()[0]) // L['y'].size()[0])) != 0",
        "min(2, L['x'].size()[0]) >= 1",
    ],
)
def test_arithmetic_of_sizes_is_plain(tmp_path: Path, guard: str) -> None:
    assert scan(guarded(tmp_path, guard)) == []


@pytest.mark.parametrize(
    "guard",
    ["__import__('os')", "max.__class__", "eval(1)", "L['x'].size().__class__", "maximum(1, 2)"],
)
def test_other_code_is_found(tmp_path: Path, guard: str) -> None:
    assert "a guard that is an arbitrary expression" in scan(guarded(tmp_path, guard))[0]
