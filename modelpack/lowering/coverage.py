"""The page that says which ONNX ops can be lowered, made from the op table itself."""

from __future__ import annotations

from dataclasses import dataclass

import onnx.defs

from modelpack.lowering import ops as _ops  # fills the table  # noqa: F401
from modelpack.lowering import registry

# Models of older op sets are hardly met any more.
_OLDEST_OPSET = 7

_HEAD = """# ONNX ops that can be lowered

Made from the op table by `make docs`; a test compares.

Each version of an op is named by the opset that introduced it. *Function* means that the
body which ONNX itself defines for the op is lowered in its place. TFLite means built-in ops
only; `--select-ops` allows TensorFlow's kernels for the others. What depends on a node's
attributes or inputs is refused with the node's name when a model is converted.
"""


@dataclass(frozen=True, slots=True)
class _Row:
    op_type: str
    own: tuple[int, ...]
    function: tuple[int, ...]
    missing: tuple[int, ...]
    tflite: bool


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for domain in _domains():
        rows = _rows(domain)
        parts.append(f"## {domain or 'ai.onnx'}\n")
        parts.append("| Op | Lowered | Function | Not lowered | TFLite |\n|---|---|---|---|---|")
        parts += [
            f"| {row.op_type} | {_versions(row.own)} | {_versions(row.function)} "
            f"| {_versions(row.missing)} | {'yes' if row.tflite else 'no'} |"
            for row in rows
        ]
        done = sum(not row.missing for row in rows)
        parts.append(f"\n{done} of {len(rows)} ops in every version.\n")
    return "\n".join(parts) + "\n"


def _domains() -> list[str]:
    known = {schema.domain for schema in onnx.defs.get_all_schemas()}
    return sorted((known | {entry.key.domain for entry in registry.entries()}) - {registry.OWN})


def _rows(domain: str) -> list[_Row]:
    versions: dict[str, set[int]] = {}
    bodies: set[tuple[str, int]] = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain != domain or schema.deprecated:
            continue
        versions.setdefault(schema.name, set()).add(schema.since_version)
        if schema.has_function or schema.has_context_dependent_function:
            bodies.add((schema.name, schema.since_version))
    lowered = {
        (entry.key.op_type, entry.key.since): entry
        for entry in registry.entries()
        if entry.key.domain == domain
    }
    for op_type, since in lowered:
        versions.setdefault(op_type, set()).add(since)
    return [
        _row(op_type, _current(sorted(found), domain), lowered, bodies)
        for op_type, found in sorted(versions.items())
    ]


def _current(versions: list[int], domain: str) -> list[int]:
    """Versions that a model of a supported opset can mean."""
    if domain:
        return versions
    newest_old = max((v for v in versions if v <= _OLDEST_OPSET), default=0)
    return [version for version in versions if version >= newest_old]


def _row(
    op_type: str,
    versions: list[int],
    lowered: dict[tuple[str, int], registry.Lowering],
    bodies: set[tuple[str, int]],
) -> _Row:
    own = tuple(version for version in versions if (op_type, version) in lowered)
    function = tuple(v for v in versions if v not in own and (op_type, v) in bodies)
    missing = tuple(version for version in versions if version not in {*own, *function})
    tflite = bool(own or function) and all(lowered[op_type, version].builtin for version in own)
    return _Row(op_type, own, function, missing, tflite)


def _versions(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions))
