"""The Triton layout: ``NAME/config.pbtxt`` and ``NAME/VERSION/model.onnx`` or ``model.savedmodel``.

Format and rules: "Model Configuration" and "Model Repository" of the Triton Inference
Server's documentation. Directories that are not numeric and other files beside the versions
are ignored by the server, so manifest and golden samples lie there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from modelpack.errors import PackagingError
from modelpack.layouts import LayoutOptions, Package, choose, evidence, version_number
from modelpack.signature import DEFAULT_SIGNATURE, DType, Signature, TensorSpec

_TYPES = {
    DType.BOOL: "TYPE_BOOL",
    DType.INT8: "TYPE_INT8",
    DType.INT16: "TYPE_INT16",
    DType.INT32: "TYPE_INT32",
    DType.INT64: "TYPE_INT64",
    DType.UINT8: "TYPE_UINT8",
    DType.UINT16: "TYPE_UINT16",
    DType.UINT32: "TYPE_UINT32",
    DType.UINT64: "TYPE_UINT64",
    DType.FLOAT16: "TYPE_FP16",
    DType.BFLOAT16: "TYPE_BF16",
    DType.FLOAT32: "TYPE_FP32",
    DType.FLOAT64: "TYPE_FP64",
    DType.STRING: "TYPE_STRING",
}

# File name and first lines of the configuration by artifact format.
_BACKENDS = {
    "onnx": ("model.onnx", 'backend: "onnxruntime"'),
    "savedmodel": ("model.savedmodel", 'platform: "tensorflow_savedmodel"'),
}


def arrange(package: Package, options: LayoutOptions) -> dict[str, Path]:
    """Lay out the ONNX artifact, or the SavedModel where there is no ONNX.

    Raises:
        PackagingError: there is neither, the version is no whole number, a rank is
            unknown, or batching is asked of a model that cannot batch.
    """
    artifact = choose(package, tuple(_BACKENDS), options)
    name, version = package.manifest.name, version_number(package.manifest)
    signature = package.manifest.exchanged_signature_of(artifact)
    file, backend = _BACKENDS[artifact.format]
    config = package.scratch / "config.pbtxt"
    text = configuration(name, backend, signature, options.max_batch_size)
    if artifact.format == "savedmodel" and signature.name != DEFAULT_SIGNATURE:
        text += _choice_of(signature.name)
    config.write_text(text, encoding="utf-8")
    files = {
        f"{name}/{version}/{file}": package.root / artifact.path,
        f"{name}/config.pbtxt": config,
    }
    for sidecar in artifact.sidecars:
        files[f"{name}/{version}/{sidecar}"] = (package.root / artifact.path).with_name(sidecar)
    for kept, path in evidence(package, artifact, f"{version}/{file}").items():
        files[f"{name}/{kept}"] = path
    return files


def configuration(name: str, backend: str, signature: Signature, max_batch_size: int) -> str:
    """Return the text of ``config.pbtxt``.

    With ``max_batch_size`` above 0 the server adds the batch dimension itself, so dims are
    written without their first axis, which must then be one and the same dynamic dimension
    everywhere. With 0 dims are written in full.

    Raises:
        PackagingError: a rank is unknown, or the model cannot batch.
    """
    if not name.isprintable() or {'"', "\\"} & set(name):
        raise PackagingError(f"'{name}' cannot be a model's name in Triton", hint="add --name NAME")
    specs = (*signature.inputs, *signature.outputs)
    if max_batch_size:
        _require_batch(specs)
    lines = [f'name: "{name}"', backend, f"max_batch_size: {max_batch_size}"]
    for kind, side in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in side:
            lines += _tensor(kind, spec, skip=1 if max_batch_size else 0)
    return "\n".join(lines) + "\n"


def _choice_of(signature: str) -> str:
    """What tells the server's TensorFlow which signature it serves, if not the usual one."""
    value = json.dumps(signature, ensure_ascii=False)
    return f'parameters {{\n  key: "TF_SIGNATURE_DEF"\n  value: {{ string_value: {value} }}\n}}\n'


def _tensor(kind: str, spec: TensorSpec, *, skip: int) -> list[str]:
    if spec.shape is None:
        raise PackagingError(
            f"{kind} '{spec.name}' has unknown rank, which Triton cannot serve",
            hint="convert with --input 'name:dtype[dims]'",
        )
    dims = [str(dim) if isinstance(dim, int) else "-1" for dim in spec.shape[skip:]]
    # Triton has no scalars: a tensor without dims is written as one element and reshaped.
    shape = ", ".join(dims) if dims else "1"
    lines = [
        f"{kind} [",
        "  {",
        f'    name: "{spec.name}"',
        f"    data_type: {_TYPES[spec.dtype]}",
        f"    dims: [ {shape} ]",
    ]
    if not dims:
        lines.append("    reshape: { shape: [ ] }")
    return [*lines, "  }", "]"]


def _require_batch(specs: Iterable[TensorSpec]) -> None:
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    if len(first) != 1 or not all(isinstance(dim, str) for dim in first):
        raise PackagingError(
            "--max-batch-size needs one dynamic batch dimension, first in every input and output",
            hint="leave it out: the server then takes requests as they are",
        )
