"""The op table against ONNX's own schemas, and the page made from it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import onnx
import onnx.defs
import pytest

from modelpack.lowering import coverage, registry
from modelpack.lowering.graph import attribute

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "onnx-ops.md"
ENTRIES = [
    entry for entry in registry.entries() if entry.key.domain not in registry.RUNTIME_DOMAINS
]
POSITIONAL = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


def _schema(entry: registry.Lowering) -> Any:
    key = entry.key
    return onnx.defs.get_schema(key.op_type, max_inclusive_version=key.since, domain=key.domain)


def _parameters(entry: registry.Lowering) -> list[inspect.Parameter]:
    found = list(inspect.signature(entry.function).parameters.values())
    return found[1:] if entry.takes_context else found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.key))
def test_a_lowering_takes_the_attributes_of_its_schema_with_its_defaults(
    entry: registry.Lowering,
) -> None:
    schema = _schema(entry)
    assert schema.since_version == entry.key.since
    taken = {p.name: p.default for p in _parameters(entry) if p.kind is p.KEYWORD_ONLY}
    assert set(taken) == set(schema.attributes)
    for name, default in taken.items():
        declared = schema.attributes[name]
        if declared.required:
            assert default is inspect.Parameter.empty, name
        elif declared.default_value.type == onnx.AttributeProto.UNDEFINED:
            assert default is None, name
        else:
            expected = attribute(declared.default_value)
            if isinstance(expected, float):
                assert default == pytest.approx(expected, rel=1e-6, abs=0), name
            else:
                assert (list(default) if isinstance(expected, list) else default) == expected, name


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.key))
def test_a_lowering_takes_the_inputs_of_its_schema(entry: registry.Lowering) -> None:
    schema = _schema(entry)
    parameters = _parameters(entry)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    positional = [p for p in parameters if p.kind in POSITIONAL]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    if schema.max_input > 1000:
        assert variadic
    elif not variadic:
        assert len(positional) == schema.max_input
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    needed = [item for item in schema.inputs if item.option != optional]
    assert len(required) <= max(len(needed), schema.min_input)


def test_the_page_of_ops_is_what_the_table_gives() -> None:
    assert PAGE.read_text() == coverage.page()


def test_registering_a_version_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="already"):
        registry.lowers("Add", 14)(lambda a, b: a)


def test_a_version_that_is_not_in_the_table_is_not_replaced_by_a_nearby_one() -> None:
    assert registry.lookup("", "Add", 14) is not None
    assert registry.lookup("", "Add", 1) is None
