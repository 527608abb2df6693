"""How the layers of Keras end that are not simply right, and the page that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.sweep.keras_cases import CASES, NO_CASE, layer_of
from tests.sweep.keras_trials import FORMATS


@dataclass(frozen=True)
class Expected:
    """A kind of `keras_trials.Outcome`, and what its reason must say."""

    kind: str
    reason: str = ""


def _everywhere(kind: str, reason: str) -> dict[str, Expected]:
    return dict.fromkeys(FORMATS, Expected(kind, reason))


# Every other case must be right in every format, so that what is supported cannot shrink unseen.
OUTCOMES: dict[str, dict[str, Expected]] = {
    "ELU": {"tflite": Expected("caught", "noise floor")},
    "Conv3D, groups": _everywhere("refused", "calling Conv3D.call()"),
    "Conv2D, channels first": _everywhere(
        "refused", "only supports the NHWC tensor format on the CPU"
    ),
    "GroupNormalization": {"onnx": Expected("caught", "noise floor")},
    "StringLookup": {"tflite": Expected("refused", "did not keep the signature")},
    "StringLookup, inverse": {"tflite": Expected("refused", "did not keep the signature")},
    "Hashing": {
        "onnx": Expected("refused", "StringToHashBucketFast"),
        "tflite": Expected("refused", "StringToHashBucketFast"),
    },
    "Hashing, integers": {
        "onnx": Expected("refused", "StringToHashBucketFast"),
        "tflite": Expected("refused", "AsString"),
    },
    "Hashing, salted": {
        "onnx": Expected("refused", "StringToHashBucketStrong"),
        "tflite": Expected("refused", "StringToHashBucketStrong"),
    },
    "TextVectorization": {
        "onnx": Expected("refused", "StaticRegexReplace"),
        "tflite": Expected("refused", "RaggedTensorToTensor"),
    },
    "TextVectorization, tf-idf": {
        "onnx": Expected("refused", "RaggedBincount"),
        "tflite": Expected("refused", "DenseBincount"),
    },
    "TextVectorization, then embedding": {
        "onnx": Expected("refused", "StaticRegexReplace"),
        "tflite": Expected("refused", "RaggedTensorToTensor"),
    },
    "HashedCrossing": {
        "onnx": Expected("refused", "SparseCross"),
        "tflite": Expected("refused", "SparseCross"),
    },
    "Resizing, any size": {"onnx": Expected("caught", "noise floor")},
    "CenterCrop, any size": _everywhere("caught", "has shape"),
    "RandomShear": _everywhere("refused", "Keras cannot load"),
    "MaxNumBoundingBoxes": _everywhere("refused", "calling MaxNumBoundingBoxes.call()"),
    "MelSpectrogram": {"onnx": Expected("refused", "Imag")},
}

_HEAD = """# Keras layers

Made by `make docs` from the outcomes that a sweep expects of every public class of
`keras.layers`; a test compares.

A layer has one or more small models with weights far from their initial values. Each is converted
and compared with Keras as [`modelpack convert`](cli.md) does. *Yes* means that all of them were
right, at any batch size. Otherwise the models are named that were refused, with what the refusal
names, and those that the comparison caught: their artifacts are not written.

| Layer | ONNX | SavedModel | TFLite |
|---|---|---|---|
"""


def expected(case: str, form: str) -> Expected:
    """How a case must end in a format."""
    return OUTCOMES.get(case, {}).get(form, Expected("right"))


def page() -> str:
    """The page, in Markdown."""
    names = sorted({layer_of(case) for case in CASES})
    rows = [f"| {name} | {' | '.join(_cell(name, form) for form in FORMATS)} |" for name in names]
    without = [f"- {name}: {reason}" for name, reason in sorted(NO_CASE.items())]
    return _HEAD + "\n".join([*rows, "\nNot tried:\n", *without]) + "\n"


def _cell(layer: str, form: str) -> str:
    cases = [case for case in CASES if layer_of(case) == layer]
    notes = list(_notes(cases, form))
    if not notes:
        return "yes"
    right = sum(expected(case, form).kind == "right" for case in cases)
    return ("yes, but: " if right else "no: ") + "; ".join(dict.fromkeys(notes))


def _notes(cases: list[str], form: str) -> Iterator[str]:
    for case in cases:
        wanted = expected(case, form)
        if wanted.kind == "right":
            continue
        variant = case.partition(", ")[2]
        reason = f"{wanted.kind} ({wanted.reason})" if wanted.reason else wanted.kind
        yield f"{variant}: {reason}" if variant else reason
