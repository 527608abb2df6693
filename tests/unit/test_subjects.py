"""What a request means, and under which names and sizes two models are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixtures.inline import InlinePool
from modelpack import subjects
from modelpack.artifact import Encoding, ModelRef
from modelpack.golden import Evidence
from modelpack.signature import Meaning, Signature, TensorSpec
from modelpack.sources import Opened
from modelpack.steps import Description, Range


def signature(inputs: str, *outputs: TensorSpec | str) -> Signature:
    parsed = (TensorSpec.parse(o) if isinstance(o, str) else o for o in outputs)
    return Signature((TensorSpec.parse(inputs),), tuple(parsed))


def opened(found: Signature, encoding: Encoding = Encoding.ONNX, **facts: object) -> Opened:
    ref = ModelRef("onnx", encoding, "m.onnx", signature=found)
    return Opened(ref, Description(found, **facts))


@pytest.fixture
def pool(tmp_path: Path) -> InlinePool:
    return InlinePool(tmp_path)


def test_code_without_a_signature_is_opened_with_the_inputs_of_its_reference(
    pool: InlinePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = signature("x:float32[batch,4]", "y:float32[batch,3]")
    asked = []

    def open_model(_: object, ref: ModelRef) -> Opened:
        asked.append(ref.inputs)
        return opened(found, ref.encoding)

    monkeypatch.setattr(subjects, "open_model", open_model)
    for encoding in (Encoding.PYTHON, Encoding.TORCH_SAVE, Encoding.ONNX):
        subject = subjects.Subject(ModelRef("torch", encoding, "net:build"), Path())
        subjects.opened_subject(pool, subject, opened(found))
    assert asked == [found.inputs, found.inputs, ()]


def test_what_the_reference_knows_of_its_values_is_taken_over(
    pool: InlinePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = TensorSpec.parse("label:int64[batch]")
    known = TensorSpec("label", label.dtype, label.shape, (), (3, 5), Meaning.LABEL)
    monkeypatch.setattr(
        subjects, "open_model", lambda *_: opened(signature("x:float32[batch]", label))
    )
    subject = subjects.Subject(ModelRef("onnx", Encoding.ONNX, "m.onnx"), Path())
    reference = opened(signature("x:float32[batch]", known))
    result, problems = subjects.opened_subject(pool, subject, reference)
    assert result.ref.signature == reference.ref.signature
    assert problems == []


def test_a_reference_is_described_by_what_both_take() -> None:
    reference = opened(
        signature("a:float32[2,length]", "b:float32[2]"), ranges={"a": Range((0.0,), (9.0,))}
    )
    wanted = signature("x:float32[batch,7]", "y:float32[batch]")
    found = subjects.in_terms_of(reference, wanted)
    assert found.ref.signature == signature("x:float32[2,length]", "y:float32[2]")
    assert found.description.signature == signature("x:float32[2,7]", "y:float32[2]")
    assert found.description.ranges == {"x": Range((0.0,), (9.0,))}


def test_evidence_for_json_holds_finite_numbers_alone() -> None:
    one, inf = np.ones(1, np.float32), np.full(1, np.inf, np.float32)
    evidence = Evidence(
        [{"x": one}, {"x": inf}, {"x": one}],
        [{"y": one}, {"y": one}, {"y": inf}],
        "generated",
        "a source",
    )
    spec = signature("x:float32[1]", "y:float32[1]")
    assert subjects.exchangeable(opened(spec), evidence) is evidence
    kept = subjects.exchangeable(opened(spec, finite_only=True), evidence)
    assert list(kept.cases) == [{"x": one}]
