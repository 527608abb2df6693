from __future__ import annotations

import importlib.util
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from modelpack.errors import ManifestError
from modelpack.manifest import Manifest, dump, json_schema, load, plain

# The strategies and the small manifest of the round-trip tests serve here too.
_spec = importlib.util.spec_from_file_location(
    "manifest_cases", Path(__file__).with_name("test_manifest.py")
)
assert _spec is not None
assert _spec.loader is not None
_cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_cases)
SMALL: Manifest = _cases.SMALL

SCHEMA = json.loads(json_schema())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_in_the_package_is_the_one_of_the_code() -> None:
    text = resources.files("modelpack").joinpath("manifest.schema.json").read_text("utf-8")
    assert text == json_schema()


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@settings(max_examples=25)
@given(_cases.MANIFESTS)
def test_every_manifest_that_is_written_fits_the_schema(manifest: Manifest) -> None:
    VALIDATOR.validate(yaml.safe_load(dump(manifest)))


def damaged(path: str, value: Any) -> Any:
    """The small manifest as a document, with one field set, or removed by ``...``."""
    document = plain(SMALL)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    here = document
    for part in parents:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("surprise", 1),
        ("source.surprise", 1),
        ("signatures.0.surprise", 1),
        ("signatures.0.inputs.0.surprise", 1),
        ("artifacts.1.surprise", 1),
        ("artifacts.1.parity.surprise", 1),
        ("artifacts.1.parity.tolerance.surprise", 1),
        ("artifacts.1.quantization.surprise", 1),
        ("golden.surprise", 1),
        ("modelpack", 2),
        ("modelpack", "1"),
        ("modelpack", ...),
        ("name", ...),
        ("name", 1),
        ("version", 3),
        ("source", ...),
        ("source", "iris.skops"),
        ("signatures", ...),
        ("signatures", {}),
        ("signatures.0.inputs", ...),
        ("signatures.0.inputs.0.dtype", "float31"),
        ("signatures.0.inputs.0.shape", "batch"),
        ("signatures.0.inputs.0.shape.1", 1.5),
        ("signatures.0.outputs.0.meaning", "truth"),
        ("signatures.0.outputs.0.classes.0", None),
        ("artifacts.0.digest", ...),
        ("artifacts.0.size", "12"),
        ("artifacts.0.opset", {"ai.onnx": "21"}),
        ("artifacts.1.parity.verdict", "fine"),
        ("artifacts.1.parity.outputs.0.elements", 1.5),
        ("artifacts.1.quantization.scheme", ...),
        ("golden.cases", "4"),
    ],
)
def test_reader_and_schema_refuse_the_same_documents(path: str, value: Any) -> None:
    document = damaged(path, value)
    with pytest.raises(ManifestError):
        load(yaml.safe_dump(document))
    assert not VALIDATOR.is_valid(document)


def test_reader_and_schema_accept_the_undamaged_document() -> None:
    VALIDATOR.validate(plain(SMALL))
    assert load(yaml.safe_dump(plain(SMALL))) == SMALL
