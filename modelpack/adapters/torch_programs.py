"""Programs of `torch.export` as `torch.onnx` writes them rightly."""

from __future__ import annotations

from torch.export import ExportedProgram

from modelpack.adapters.torch_masks import filled
from modelpack.adapters.torch_plain import plain
from modelpack.adapters.torch_promotion import promoted


def writable(program: ExportedProgram) -> ExportedProgram:
    """The program with every op that `torch.onnx` writes badly as others that mean the same."""
    return promoted(filled(plain(program)))
