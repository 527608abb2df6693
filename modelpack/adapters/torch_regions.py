"""Regions of saved programs that PyTorch writes but cannot load again.

``torch.export.save`` keeps code under ``torch.no_grad()`` as a part of its own. Where nothing uses
what it computes, that part has no outputs, and ``torch.export.load`` refuses a node without any.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch

_REGIONS = (
    "torch.ops.higher_order.wrap_with_set_grad_enabled",
    "torch.ops.higher_order.wrap_with_autocast",
)
_PROGRAM = "models/model.json"


def without_unused_regions(path: Path) -> io.BytesIO | None:
    """A saved program without the regions that compute nothing that is used.

    Returns:
        the file's content without them; None where it has none, or they change their inputs.
    """
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in archive.namelist() if name.endswith(_PROGRAM)), None)
        program = json.loads(archive.read(member)) if member else None
        if member is None or not _drop_unused(program):
            return None
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as target:
            for item in archive.infolist():
                is_program = item.filename == member
                content = json.dumps(program).encode() if is_program else archive.read(item)
                target.writestr(item.filename, content)
    made.seek(0)
    return made


def _drop_unused(value: Any) -> bool:
    """Drop regions without outputs from every graph of a program; return whether there are any."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    dropped = [_drop_unused(item) for item in items]  # inner ones first
    if not isinstance(value, dict) or not isinstance(value.get("nodes"), list):
        return any(dropped)
    kept = [node for node in value["nodes"] if not _is_unused(node)]
    is_changed = len(kept) < len(value["nodes"])
    value["nodes"] = kept
    return is_changed or any(dropped)


def _is_unused(node: dict[str, Any]) -> bool:
    """Whether a node is a region whose results nothing uses, and that changes nothing else."""
    return node["target"] == _REGIONS[0] and not node["outputs"] and _only_computes(node)


def _only_computes(node: dict[str, Any]) -> bool:
    """Whether a node, and all in the graphs that it holds, leave their arguments as they are."""
    if node["target"] in _REGIONS:
        arguments = [item["arg"] for item in node["inputs"] if isinstance(item.get("arg"), dict)]
        graphs = [argument["as_graph"]["graph"] for argument in arguments if "as_graph" in argument]
        return all(_only_computes(inner) for graph in graphs for inner in graph["nodes"])
    namespace, _, name = node["target"].removeprefix("torch.ops.").partition(".")
    op, _, overload = name.partition(".")
    for schema in torch._C._jit_get_schemas_for_operator(f"{namespace}::{op}"):
        if schema.overload_name == ("" if overload == "default" else overload):
            return not schema.is_mutable
    return namespace == "_operator"
