"""The JSON document of a validation, and its schema."""

from __future__ import annotations

import json
from typing import Any

from modelpack.validation import ArtifactResult, ValidationReport

SCHEMA_VERSION = 1
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def document(report: ValidationReport) -> dict[str, Any]:
    """Return the report as JSON values, with the verdict of the whole and of each artifact.

    NaN and infinity are still in it; in JSON text they are null.
    """
    import msgspec

    plain = msgspec.to_builtins(report)
    artifacts = [
        {"verdict": item.verdict.value, **fields}
        for item, fields in zip(report.artifacts, plain.pop("artifacts"), strict=True)
    ]
    return {
        "schema": SCHEMA_VERSION,
        "model": plain.pop("model"),
        "verdict": report.verdict.value,
        "artifacts": artifacts,
        **plain,
    }


def json_schema() -> str:
    """Return the JSON Schema of the document, as `validation.schema.json` holds it."""
    import msgspec

    schema = msgspec.json.schema(ValidationReport)
    definitions: dict[str, Any] = schema["$defs"]
    verdict = {"$ref": "#/$defs/Verdict"}
    for kind in (ValidationReport, ArtifactResult):
        definitions[kind.__name__]["properties"]["verdict"] = verdict
    root = definitions[ValidationReport.__name__]
    root["properties"]["schema"] = {"const": SCHEMA_VERSION}
    for definition in definitions.values():
        definition.pop("description", None)
        if definition.get("type") == "object":
            definition["additionalProperties"] = False
            # Every field is written, those at their default too.
            definition["required"] = sorted(definition["properties"])
    _allow_null(schema)
    return json.dumps({"$schema": _DIALECT, **schema}, indent=2, sort_keys=True) + "\n"


def _allow_null(node: Any) -> None:
    """Let null stand for the numbers that JSON lacks, NaN and infinity; drop defaults."""
    if isinstance(node, list):
        for item in node:
            _allow_null(item)
    elif isinstance(node, dict):
        node.pop("default", None)
        if node.get("type") == "number":
            node["type"] = ["number", "null"]
        for value in node.values():
            _allow_null(value)
