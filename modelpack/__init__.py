"""modelpack: trained models out of their frameworks, into checked artifacts.

The verbs are `export`, `convert`, `quantize`, `validate`, `package` and `inspect`; the
types they take and return are here too. Importing this package imports no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelpack.api import convert, export, inspect, package, quantize, validate
    from modelpack.artifact import Artifact
    from modelpack.manifest import Manifest
    from modelpack.parity import ParityReport, Tolerance, Verdict
    from modelpack.routes import Converter, Format, Route
    from modelpack.signature import DType, Signature, TensorSpec
    from modelpack.worker import Limits

# Where each public name lives. Resolved when first used (PEP 562), so that `import
# modelpack` and the command line start without what a command does not need.
_HOMES = {
    "convert": "modelpack.api",
    "export": "modelpack.api",
    "inspect": "modelpack.api",
    "package": "modelpack.api",
    "quantize": "modelpack.api",
    "validate": "modelpack.api",
    "Artifact": "modelpack.artifact",
    "Manifest": "modelpack.manifest",
    "ParityReport": "modelpack.parity",
    "Tolerance": "modelpack.parity",
    "Verdict": "modelpack.parity",
    "Converter": "modelpack.routes",
    "Format": "modelpack.routes",
    "Route": "modelpack.routes",
    "DType": "modelpack.signature",
    "Signature": "modelpack.signature",
    "TensorSpec": "modelpack.signature",
    "Limits": "modelpack.worker",
}

__all__ = [
    "Artifact",
    "Converter",
    "DType",
    "Format",
    "Limits",
    "Manifest",
    "ParityReport",
    "Route",
    "Signature",
    "TensorSpec",
    "Tolerance",
    "Verdict",
    "convert",
    "export",
    "inspect",
    "package",
    "quantize",
    "validate",
]


def __getattr__(name: str) -> Any:
    import importlib

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelpack' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)
